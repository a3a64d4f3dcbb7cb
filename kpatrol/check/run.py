"""A check from its configuration to its result: bring the agents up, run the rounds, judge, clean."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Collection, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version

from kpatrol.check import gather, manifests, nodes
from kpatrol.check.cluster import Cluster, ClusterTrouble
from kpatrol.check.config import CheckConfig
from kpatrol.check.gather import Attach, Gathered, Stream
from kpatrol.check.judging import judged
from kpatrol.check.manifests import FLAVOURS, Flavour
from kpatrol.check.mesh import MESH_PROTOS, Key, Pair, Site, Wave, Way, pairs_of, waves
from kpatrol.check.nodes import NodeState
from kpatrol.check.pairs import rows, worst_first
from kpatrol.check.patience import patient, whole
from kpatrol.check.result import Apart, Result
from kpatrol.check.task import check_by_task, obstacle
from kpatrol.check.told import Saves, Told
from topics.mesh_members import Member
from topics.outcome import Layer

POLL_S = 1.0
GONE_S = 60.0
# What a wave takes beside its requests: telling the agents, and their receipts.
WAVE_S = 4.5
_NAMES = [f"kpatrol-check-{flavour}" for flavour in ("pod", "host")]
_LAYERS: dict[Flavour, Layer] = {"pod": Layer.pod, "host": Layer.host}


class CannotCheck(Exception):
    """Nothing can be said: no agent answered, or time ran out."""


@dataclass(slots=True, kw_only=True)
class _Party:
    """One cluster in the check: its agents by flavour."""

    cluster: Cluster
    image: str
    run: str
    mapped: Mapping[str, str]
    found: dict[Flavour, list[NodeState]] = field(default_factory=dict)
    dns_server: str = ""


def default_image() -> str:
    """This version's own agent."""
    return f"kpatrol/agent:{version('kpatrol')}"


async def check(
    *,
    config: CheckConfig,
    told: Told,
    deadline_s: float,
    save: Saves,
    only: Container[Key] | None = None,
    standalone: bool = False,
    clusters: Sequence[str] = (),
) -> Result:
    """Run a check. Raises ClusterTrouble, CannotCheck, TimeoutError; what it made is removed all the same.

    Where kpatrol is installed a task of its own does it, unless ``standalone`` or what is asked for is not a task's.
    With ``clusters`` it is about the clusters at these addresses and no others.
    """
    parties = await asyncio.to_thread(_parties, config)
    asked = tuple(party.cluster.url for party in parties)
    if clusters and asked != tuple(clusters):
        raise CannotCheck(
            f"the last check was of {' and '.join(clusters)}; the kubeconfig leads to {' and '.join(asked)}: "
            "name that one by --kubeconfig and --context, or run `kpatrol check`"
        )
    until_s = time.monotonic() + deadline_s
    for party in parties:
        party.cluster.until_s = until_s
    async with asyncio.timeout(deadline_s):
        if not standalone and only is None and await _by_task(config, parties[0], told):
            cluster, run = parties[0].cluster, parties[0].run
            found = await check_by_task(config=config, cluster=cluster, told=told, run=run)
        else:
            async with _agents(config, parties, told):
                keep = _of(save, asked)
                found = await _measure(config, parties, told, only, keep)
    return replace(found, clusters=asked)


def _of(save: Saves, clusters: tuple[str, ...]) -> Saves:
    def keep(so_far: Result, left: Collection[Pair]) -> None:
        save(replace(so_far, clusters=clusters), left)

    return keep


async def _by_task(config: CheckConfig, party: _Party, told: Told) -> bool:
    if config.peer_kubeconfig or not await asyncio.to_thread(party.cluster.has_kpatrol):
        return False
    why = obstacle(config)
    if why:
        told.step(f"kpatrol is installed, but {why} is nothing that a task can ask: with agents of the check's own")
        return False
    missing = await asyncio.to_thread(party.cluster.missing_task_rights)
    if missing:
        lacks = ", ".join(missing)
        told.step(f"kpatrol is installed, but the user lacks the right to {lacks}: with agents of the check's own")
    return not missing


def _parties(config: CheckConfig) -> list[_Party]:
    run, image = uuid.uuid4().hex[:12], config.image or default_image()
    two = bool(config.peer_kubeconfig)
    first = Cluster(kubeconfig=config.kubeconfig, context=config.context, name="a" if two else "cluster")
    parties = [_Party(cluster=first, image=image, run=run, mapped=config.map)]
    if two:
        peer = Cluster(kubeconfig=config.peer_kubeconfig, context=config.peer_context, name="b")
        parties.append(_Party(cluster=peer, image=config.peer_image or image, run=run, mapped=config.peer_map))
    return parties


@asynccontextmanager
async def _agents(config: CheckConfig, parties: Sequence[_Party], told: Told) -> AsyncGenerator[None, None]:
    """The agents are there inside, and removed afterwards whatever happens, unless they are to be kept."""
    for party in parties:
        # Before anything is made in either cluster.
        missing = await asyncio.to_thread(party.cluster.missing_rights, config.namespace)
        if missing:
            raise ClusterTrouble(f"cluster {party.cluster.name}: the user lacks these rights: {', '.join(missing)}")
    try:
        for party in parties:
            await _bring_up(config, party, told)
        await asyncio.gather(*(_wait(config, party, told) for party in parties))
        yield
    finally:
        if not config.keep:
            told.step("removing the agents")
            cleaning = [patient(partial(_remove, config, party)) for party in parties]
            troubles = await asyncio.shield(asyncio.gather(*cleaning, return_exceptions=True))
            for trouble in troubles:
                if isinstance(trouble, BaseException):
                    told.step(f"could not be removed: {trouble}; try `kpatrol check clean`")
        for party in parties:
            party.cluster.close()


def _remove(config: CheckConfig, party: _Party) -> None:
    # To clean is worth its time after the deadline, too.
    party.cluster.until_s = None
    party.cluster.remove(config.namespace, names=_NAMES)


async def _bring_up(config: CheckConfig, party: _Party, told: Told) -> None:
    cluster, where = party.cluster, config.namespace
    ours = await asyncio.to_thread(cluster.namespace_is_ours, where)
    if ours:
        # Left by a run that was killed, or kept: its pods are of another run and would be taken for ours.
        told.step(f"cluster {cluster.name}: removing what an earlier check left")
        await whole(partial(party.cluster.remove, where, names=_NAMES))
        until = time.monotonic() + GONE_S
        while not await patient(partial(cluster.is_gone, where)):
            if time.monotonic() > until:
                raise CannotCheck(f"cluster {cluster.name}: namespace {where} of an earlier check does not end")
            await asyncio.sleep(POLL_S)
        ours = None
    if ours is None:
        await whole(partial(cluster.create_namespace, manifests.namespace(where, run=party.run)))
    for flavour in manifests.flavours(config.mode):
        manifest = manifests.daemonset(config=config, flavour=flavour, run=party.run, image=party.image)
        await whole(partial(cluster.apply_daemonset, manifest))
    told.step(f"cluster {cluster.name}: agents in namespace {where}, image {party.image}")


async def _wait(config: CheckConfig, party: _Party, told: Told) -> None:
    """Until every node's agent is ready or hopeless, `waitS` at most; the good nodes do not wait for one bad one."""
    until = time.monotonic() + config.wait_s
    known = await patient(party.cluster.nodes)
    strangers = sorted(
        {name for name in party.mapped if "/" not in name} - {node["metadata"]["name"] for node in known}
    )
    if strangers:
        raise CannotCheck(
            f"cluster {party.cluster.name}: an address is given for {strangers[0]}, which is no node of it"
        )
    if "dns" in config.protocols:
        party.dns_server = config.dns.server or await patient(party.cluster.dns_server)
    wait_s, shown = 0.5, ""
    while True:
        for flavour in manifests.flavours(config.mode):
            name = f"kpatrol-check-{flavour}"
            pods = await patient(partial(party.cluster.pods, config.namespace, run=party.run, name=name))
            party.found[flavour] = nodes.states(nodes=known, pods=pods, exclude=config.exclude_labels)
        everyone = [state for states in party.found.values() for state in states]
        waiting = [state for state in everyone if state.standing == "waiting"]
        line = f"cluster {party.cluster.name}: {sum(s.standing == 'ready' for s in everyone)} agents ready"
        if waiting:
            line += f", waiting for {waiting[0].node}: {waiting[0].why}"
        if line != shown:
            shown = line
            told.step(line)
        if not waiting or time.monotonic() >= until:
            return
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 1.5, 5.0)


def ways(config: CheckConfig, sites: Sequence[dict[Flavour, Site]]) -> list[Way]:
    """Who asks whom: within one cluster, or from each of two to the other."""
    asking, asked = FLAVOURS[config.mode]
    if len(sites) == 1:
        return [(sites[0][asking], sites[0][asked])]
    one, other = sites
    return [(one[asking], other[asked]), (other[asking], one[asked])]


def _site(party: _Party, flavour: Flavour) -> Site:
    members = nodes.members(party.found[flavour], flavour=flavour)
    return Site(
        name=party.cluster.name, members=members, layer=_LAYERS[flavour], mapped=party.mapped,
        dns_server=party.dns_server,
    )  # fmt: skip


async def _measure(
    config: CheckConfig, parties: Sequence[_Party], told: Told, only: Container[Key] | None, save: Saves
) -> Result:
    sites = [{flavour: _site(party, flavour) for flavour in party.found} for party in parties]
    everyone = [member for site in sites for flavour in site.values() for member in flavour.members]
    apart = [Apart(cluster=p.cluster.name, state=state) for p in parties for state in _troubled(p)]
    if not everyone:
        why = "; ".join(f"{each.state.node}: {each.state.why}" for each in apart[:5])
        raise CannotCheck(f"no agent is ready: {why or 'the cluster has no node for it'}")
    planned = waves(asked=config.asked(), ways=ways(config, sites), run=parties[0].run, only=only)
    if not planned:
        return Result(rows=(), apart=apart, verdicts=(), changes={} if only is not None else None)
    if not sum(round_.planned for wave in planned for _, round_ in wave) or no_address(config, everyone):
        families = " or ".join(f"IPv{family}" for family in config.families)
        raise CannotCheck(f"nothing to ask: {len(everyone)} agents are ready, and no two of them have {families}")
    left = [pairs_of(wave) for wave in planned]
    progress = _Progress(planned, told)
    so_far = Result(rows=(), apart=apart, verdicts=())
    save(so_far, _joined(left))
    told.step(f"attaching to {len(everyone)} agents")
    asking = [site for wave in planned for site, _ in wave]
    streams = gather.attached(sites=asking, attach=_attach(config, parties), told=progress.tell, attach_s=config.wait_s)
    async with streams as agents:
        for number, wave in enumerate(planned, start=1):
            if len(planned) > 1:
                told.step(f"wave {number} of {len(planned)}")
            found = judged(gathered=await agents.run(wave), at_us=gather.now_us())
            progress.end_wave()
            so_far = Result(
                rows=worst_first([*so_far.rows, *rows(found)]),
                apart=apart,
                verdicts=[*so_far.verdicts, *(each.verdict for each in found)],
            )
            save(so_far, _joined(left[number:]))
    return so_far


def no_address(config: CheckConfig, everyone: Sequence[Member]) -> bool:
    """Whether the nodes are to ask each other, and nobody has an address of the families asked for."""
    mesh = set(config.protocols) & set(MESH_PROTOS)
    known = any(member.address(family) for member in everyone for family in config.families)
    return bool(mesh) and not (known or config.map or config.peer_map)


def _joined(left: Sequence[Collection[Pair]]) -> set[Pair]:
    return {pair for each in left for pair in each}


def _troubled(party: _Party) -> list[NodeState]:
    """Nodes without a ready agent, each once."""
    troubled = {s.node: s for states in party.found.values() for s in states if s.standing != "ready"}
    return list(troubled.values())


def _attach(config: CheckConfig, parties: Sequence[_Party]) -> Attach:
    cluster_of = {state.pod: party.cluster for party in parties for states in party.found.values() for state in states}
    gate = asyncio.Semaphore(config.concurrency)

    @asynccontextmanager
    async def attach(member: Member) -> AsyncGenerator[Stream, None]:
        # The gate bounds how many streams are opened at one time, not how many are open.
        async with gate:
            opening = cluster_of[member.pod].attach(member, namespace=config.namespace)
            stream = await opening.__aenter__()
        try:
            yield stream
        finally:
            await opening.__aexit__(None, None, None)

    return attach


class _Progress:
    """Requests recorded of all, over the waves, and the time left."""

    def __init__(self, planned: Sequence[Wave], told: Told) -> None:
        self._told = told
        self._of = sum(round_.planned for wave in planned for _, round_ in wave)
        self._wave_s = [max(r.duration_s + r.timeout_ms / 1000 for _, r in wave) + WAVE_S for wave in planned]
        self._before, self._now = 0, 0

    def tell(self, gathered: Gathered) -> None:
        """Something came."""
        starts = [round_.start_us for _, round_ in gathered.rounds if round_.start_us]
        if not starts or not self._wave_s:
            return
        self._now = sum(batch.rows.num_rows for batch in gathered.batches)
        this, *following = self._wave_s
        gone_s = (gather.now_us() - min(starts)) / 1e6
        left_s = max(0.0, this - WAVE_S - gone_s) + sum(following)
        self._told.progress(done=min(self._before + self._now, self._of), of=self._of, left_s=left_s)

    def end_wave(self) -> None:
        """The next wave begins."""
        self._before += self._now
        self._now = 0
        del self._wave_s[:1]
