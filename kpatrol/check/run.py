"""A check from its configuration to its result: bring the agents up, run the rounds, judge, clean."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

from kpatrol.check import gather, manifests, nodes
from kpatrol.check.cluster import Cluster, ClusterTrouble
from kpatrol.check.config import CheckConfig
from kpatrol.check.gather import Attach, Gathered, Stream
from kpatrol.check.judging import judged
from kpatrol.check.manifests import FLAVOURS, Flavour
from kpatrol.check.mesh import Key, Site, Way, rounds
from kpatrol.check.nodes import NodeState
from kpatrol.check.pairs import rows
from kpatrol.check.result import Apart, Result
from topics.mesh_members import Member
from topics.outcome import Layer

POLL_S = 1.0
GONE_S = 60.0
_LAYERS: dict[Flavour, Layer] = {"pod": Layer.pod, "host": Layer.host}


class CannotCheck(Exception):
    """Nothing can be said: no agent answered, or time ran out."""


class Told(Protocol):
    """Where progress is shown."""

    def step(self, text: str) -> None:
        """A line of what happens now."""
        ...

    def progress(self, *, done: int, of: int, left_s: float) -> None:
        """Requests recorded, and the time left."""
        ...


@dataclass(slots=True, kw_only=True)
class _Party:
    """One cluster in the check: its agents by flavour."""

    cluster: Cluster
    image: str
    run: str
    found: dict[Flavour, list[NodeState]] = field(default_factory=dict)


def default_image() -> str:
    """This version's own agent."""
    return f"kpatrol/agent:{version('kpatrol')}"


async def check(*, config: CheckConfig, told: Told, deadline_s: float, only: Collection[Key] | None = None) -> Result:
    """Run a check. Raises ClusterTrouble, CannotCheck, TimeoutError; what it made is removed all the same."""
    parties = await asyncio.to_thread(_parties, config)
    async with asyncio.timeout(deadline_s), _agents(config, parties, told):
        return await _measure(config, parties, told, only)


def _parties(config: CheckConfig) -> list[_Party]:
    run, image = uuid.uuid4().hex[:12], config.image or default_image()
    two = bool(config.peer_kubeconfig)
    first = Cluster(kubeconfig=config.kubeconfig, context=config.context, name="a" if two else "cluster")
    parties = [_Party(cluster=first, image=image, run=run)]
    if two:
        peer = Cluster(kubeconfig=config.peer_kubeconfig, context=config.peer_context, name="b")
        parties.append(_Party(cluster=peer, image=config.peer_image or image, run=run))
    return parties


@asynccontextmanager
async def _agents(config: CheckConfig, parties: Sequence[_Party], told: Told) -> AsyncGenerator[None, None]:
    """The agents are there inside, and removed afterwards whatever happens, unless they are to be kept."""
    try:
        for party in parties:
            await _bring_up(config, party, told)
        await asyncio.gather(*(_wait(config, party, told) for party in parties))
        yield
    finally:
        if not config.keep:
            told.step("removing the agents")
            cleaning = [asyncio.to_thread(_remove, config, party) for party in parties]
            troubles = await asyncio.shield(asyncio.gather(*cleaning, return_exceptions=True))
            for trouble in troubles:
                if isinstance(trouble, BaseException):
                    told.step(f"could not be removed: {trouble}; try `kpatrol check clean`")
        for party in parties:
            party.cluster.close()


def _remove(config: CheckConfig, party: _Party) -> None:
    party.cluster.remove(config.namespace, names=[f"kpatrol-check-{f}" for f in ("pod", "host")])


async def _bring_up(config: CheckConfig, party: _Party, told: Told) -> None:
    cluster, where = party.cluster, config.namespace
    missing = await asyncio.to_thread(cluster.missing_rights, where)
    if missing:
        raise ClusterTrouble(f"cluster {cluster.name}: the user lacks these rights: {', '.join(missing)}")
    ours = await asyncio.to_thread(cluster.namespace_is_ours, where)
    if ours:
        # Left by a run that was killed, or kept: its pods are of another run and would be taken for ours.
        told.step(f"cluster {cluster.name}: removing what an earlier check left")
        await asyncio.to_thread(_remove, config, party)
        until = time.monotonic() + GONE_S
        while not await asyncio.to_thread(cluster.is_gone, where):
            if time.monotonic() > until:
                raise CannotCheck(f"cluster {cluster.name}: namespace {where} of an earlier check does not end")
            await asyncio.sleep(POLL_S)
        ours = None
    if ours is None:
        await asyncio.to_thread(cluster.create_namespace, manifests.namespace(where, run=party.run))
    for flavour in manifests.flavours(config.mode):
        manifest = manifests.daemonset(config=config, flavour=flavour, run=party.run, image=party.image)
        await asyncio.to_thread(cluster.apply_daemonset, manifest)
    told.step(f"cluster {cluster.name}: agents in namespace {where}, image {party.image}")


async def _wait(config: CheckConfig, party: _Party, told: Told) -> None:
    """Until every node's agent is ready or hopeless, `waitS` at most; the good nodes do not wait for one bad one."""
    until = time.monotonic() + config.wait_s
    known = await asyncio.to_thread(party.cluster.nodes)
    wait_s, shown = 0.5, ""
    while True:
        for flavour in manifests.flavours(config.mode):
            name = f"kpatrol-check-{flavour}"
            pods = await asyncio.to_thread(party.cluster.pods, config.namespace, run=party.run, name=name)
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


def _site(config: CheckConfig, party: _Party, flavour: Flavour, *, first: bool) -> Site:
    # One cluster's nodes go by their own names; of two, each by its cluster's.
    mapped = config.map if first else config.peer_map
    members = nodes.members(party.found[flavour], flavour=flavour)
    return Site(name=party.cluster.name, members=members, layer=_LAYERS[flavour], mapped=mapped)


async def _measure(config: CheckConfig, parties: Sequence[_Party], told: Told, only: Collection[Key] | None) -> Result:
    sites = [
        {flavour: _site(config, party, flavour, first=party is parties[0]) for flavour in party.found}
        for party in parties
    ]
    everyone = [member for site in sites for flavour in site.values() for member in flavour.members]
    apart = [Apart(cluster=p.cluster.name, state=state) for p in parties for state in _troubled(p)]
    if not everyone:
        why = "; ".join(f"{each.state.node}: {each.state.why}" for each in apart[:5])
        raise CannotCheck(f"no agent is ready: {why or 'the cluster has no node for it'}")
    dns = await asyncio.to_thread(parties[0].cluster.dns_server) if "dns" in config.protocols else ""
    planned = rounds(
        asked=config.asked(dns_server=dns),
        ways=ways(config, sites),
        run=parties[0].run,
        only=only,
    )
    if not planned:
        return Result(rows=(), apart=apart, verdicts=(), changes={} if only is not None else None)
    told.step(f"attaching to {len(everyone)} agents")
    attach = _attach(config, parties)
    gathered = await gather.run(rounds=planned, attach=attach, told=_teller(planned, told), attach_s=config.wait_s)
    found = judged(gathered=gathered, at_us=gather.now_us())
    return Result(rows=rows(found), apart=apart, verdicts=[each.verdict for each in found])


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


def _teller(planned: Sequence[tuple[Site, Any]], told: Told) -> Callable[[Gathered], None]:
    of = sum(round_.planned for _, round_ in planned)

    def tell(gathered: Gathered) -> None:
        # Before the start the rounds have no times yet.
        ends_us = max(r.start_us + int(r.duration_s * 1e6) + r.timeout_ms * 1000 for _, r in gathered.rounds)
        if any(r.start_us for _, r in gathered.rounds):
            done = sum(batch.rows.num_rows for batch in gathered.batches)
            told.progress(done=done, of=of, left_s=max(0.0, (ends_us - gather.now_us()) / 1e6))

    return tell
