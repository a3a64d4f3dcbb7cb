"""Who asks whom: from the agents found and what was asked for to rounds, as the controller would publish them. Pure.

A way is a pair of sites, the one that asks and the one that is asked. A site that asks itself is a mesh; two clusters
are two ways, there and back, each a round of its own, since a round has one membership.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import TypeVar

import msgspec

from topics import ids, mesh_members, share
from topics.mesh_members import Member
from topics.outcome import Layer, Proto
from topics.task_rounds import FULL_SIZE, DnsRequest, Expect, HttpRequest, MembersRef, Mesh, RoundScheduled, Target

T = TypeVar("T")
MESH_PROTOS = ("icmp", "tcp", "udp", "http")
PROTOCOLS = (*MESH_PROTOS, "dns")
KIND = "Check"
# What every agent of a check is told to be in, whichever cluster it is of.
GROUP = "check"
TASK = "check"
# An agent's account comes after its last request has ended; a stream through an API server adds to that.
GRACE_US = 15_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Agents of one cluster and flavour that answered.

    `mapped` is a node's (or a network's) address as the other cluster sees it, `dns_server` whom they ask for names;
    empty: nobody.
    """

    name: str
    members: tuple[Member, ...]
    layer: Layer = Layer.pod
    mapped: Mapping[str, str] = field(default_factory=dict)
    dns_server: str = ""

    @property
    def reference(self) -> MembersRef:
        """What a round says of this membership."""
        return MembersRef(group=GROUP, epoch=1, digest=mesh_members.digest(self.members), count=len(self.members))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a check sends: from each agent to each target, by each protocol."""

    protocols: tuple[str, ...] = ("icmp", "tcp", "udp", "http")
    requests: int = 10
    rate: float = 5.0
    timeout_ms: int = 2000
    degree: int = 0
    families: tuple[int, ...] = (4,)
    dns_name: str = "kubernetes.default.svc.cluster.local"
    addresses: tuple[tuple[str, int], ...] = ()
    custom_proto: str = "tcp"
    success_rate: float = 1.0
    wave: int = 0

    @property
    def duration_s(self) -> float:
        """How long the requests are spread over."""
        return self.requests / self.rate


Way = tuple[Site, Site]
Key = tuple[str, str, str]
"""Source node, destination, protocol: what stays the same from one run to the next."""


Pair = tuple[str, str]
"""Source node, destination."""
Wave = list[tuple[Site, RoundScheduled]]
"""Rounds that run at one time, each with the site whose agents run it."""


def waves(*, asked: Asked, ways: Sequence[Way], run: str, only: Container[Key] | None = None) -> list[Wave]:
    """The rounds of a check. In one wave each node asks ``asked.wave`` others at most (0: all of them at once).

    ``run`` makes the ids unique; times count from the start, which is fixed when the agents are attached. With ``only``
    a source's round has those targets alone; its site then holds that source alone.
    """
    parts = _all(asked, ways)
    made = _numbered(parts, asked, run)
    return made if only is None else _numbered(_narrowed(asked, parts, made, only), asked, run)


def rounds(*, asked: Asked, ways: Sequence[Way], run: str, only: Container[Key] | None = None) -> Wave:
    """The same, all in one wave."""
    made = waves(asked=replace(asked, wave=0), ways=ways, run=run, only=only)
    return [each for wave in made for each in wave]


def pairs_of(wave: Wave) -> set[Pair]:
    """Who asks whom in a wave: what `share` says of all agents, without making every agent's streams."""
    found: set[Pair] = set()
    for site, round_ in wave:
        found.update((member.node, target.dst) for member in site.members for target in round_.targets)
        if round_.mesh is not None:
            found.update(_mesh_pairs(round_, round_.mesh, site.members))
    return found


def _mesh_pairs(round_: RoundScheduled, mesh: Mesh, members: Sequence[Member]) -> Iterable[Pair]:
    ordered = sorted(members, key=lambda member: member.slot)
    count = len(ordered)
    offsets = share.ring_offsets(count=count, degree=mesh.degree, epoch=round_.members.epoch, number=round_.number)
    asked = [any(member.address(family) for family in mesh.families) for member in ordered]
    for position, member in enumerate(ordered):
        for other in ((position + offset) % count for offset in offsets):
            if asked[other]:
                yield member.node, ordered[other].node


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What one site's agents do in one wave: a slice of the mesh, counted from one, or these targets."""

    site: Site
    mesh: Mesh | None = None
    slice: int = 0
    targets: tuple[Target, ...] = ()


def _numbered(parts: Sequence[Sequence[_Part]], asked: Asked, run: str) -> list[Wave]:
    # A slice of the ring is known by its round's number; other rounds have numbers beyond all slices.
    others = itertools.count(1 + max((part.slice for each in parts for part in each), default=0))
    return [
        [
            (part.site, _round(asked, part.site, run, part.slice or next(others), part.targets, part.mesh))
            for part in each
        ]
        for each in parts
    ]


def _narrowed(
    asked: Asked, parts: Sequence[Sequence[_Part]], made: Sequence[Wave], only: Container[Key]
) -> list[list[_Part]]:
    """What is wanted of the parts: a part that is wanted whole stays as it is; of others each source has a round of its
    own with what it is to ask."""
    wanted: dict[tuple[str, str], dict[str, list[Target]]] = {}
    sites: dict[tuple[str, str], Site] = {}
    whole: list[list[_Part]] = []
    for part, (site, round_) in zip(
        itertools.chain.from_iterable(parts), itertools.chain.from_iterable(made), strict=True
    ):
        asks = [
            (member, stream.target)
            for member in site.members
            for stream in share.share(round_=round_, members=site.members, agent=member.agent)
        ]
        chosen = [(member, target) for member, target in asks if (member.node, target.dst, target.proto.name) in only]
        if chosen and len(chosen) == len(asks):
            whole.append([part])
            continue
        for member, target in chosen:
            key = (site.name, member.agent)
            sites[key] = Site(name=f"{site.name}/{member.node}", members=(member,), mapped=site.mapped)
            wanted.setdefault(key, {}).setdefault(target.dst, []).append(target)
    single = [
        [_Part(site=sites[key], targets=tuple(itertools.chain.from_iterable(chunk))) for chunk in chunks]
        for key, by_peer in wanted.items()
        if (chunks := _chunks(list(by_peer.values()), asked.wave))
    ]
    return [*_side_by_side(single), *whole]


def _all(asked: Asked, ways: Sequence[Way]) -> list[list[_Part]]:
    parts = [_peers(asked, site, other) for site, other in ways]
    for site in {source.name: source for source, _ in ways}.values():
        fixed = (*_dns(asked, site), *_custom(asked))
        parts.append([_Part(site=site, targets=fixed)] if fixed else [])
    return _side_by_side(parts)


def _side_by_side(parts: Sequence[Sequence[_Part]]) -> list[list[_Part]]:
    """From the waves of each to what each wave holds."""
    zipped = itertools.zip_longest(*parts)
    return [[part for part in each if part is not None] for each in zipped]


def _chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    step = size or max(1, len(items))
    return [items[first : first + step] for first in range(0, len(items), step)]


def _peers(asked: Asked, site: Site, other: Site) -> list[_Part]:
    protos = tuple(Proto[name] for name in asked.protocols if name in MESH_PROTOS)
    if not protos:
        return []
    if other is site:
        count, each = _slices(asked, len(site.members) - 1)
        mesh = Mesh(protos=protos, families=asked.families, degree=each, sizes=(0, FULL_SIZE))
        return [_Part(site=site, mesh=mesh, slice=number) for number in range(1, count + 1)]
    peers = [tuple(_targets(asked, protos, site, other, member)) for member in other.members]
    chunks = _chunks([targets for targets in peers if targets], asked.wave)
    return [_Part(site=site, targets=tuple(itertools.chain.from_iterable(chunk))) for chunk in chunks]


def _slices(asked: Asked, others: int) -> tuple[int, int]:
    """(waves, peers of each node in one of them; 0 is all) of a mesh in which a node has so many others."""
    reach = min(asked.degree or others, others)
    if not asked.wave or reach <= asked.wave:
        return 1, asked.degree
    count = math.ceil(reach / asked.wave)
    return count, math.ceil(reach / count)


def _targets(asked: Asked, protos: Sequence[Proto], site: Site, other: Site, member: Member) -> Iterable[Target]:
    for family in asked.families:
        address = seen_address(other.mapped, node=member.node, own=member.address(family))
        for proto in protos if address else ():
            yield Target(
                name=f"{other.name}/{member.node} {address}",
                dst=f"{other.name}/{member.node}" if other.name != site.name else member.node,
                proto=proto,
                layer=other.layer,
                address=address,
                port=port_of(member, proto),
                family=family,
                agent=member.agent,
                dst_node=member.node,
                dst_zone=member.zone,
            )


def seen_address(mapped: Mapping[str, str], *, node: str, own: str) -> str:
    """A node's address as the other cluster sees it: its own entry, else the network that its address is shown in, host
    for host, else its own."""
    if node in mapped or not own:
        return mapped.get(node, "")
    for inside, outside in mapped.items():
        if "/" in inside and ip_address(own) in (network := ip_network(inside)):
            return str(ip_network(outside)[int(ip_address(own)) - int(network.network_address)])
    return own


def port_of(member: Member, proto: Proto) -> int:
    """Where that member serves the protocol; 0 for ICMP."""
    ports = {Proto.http: member.http_port, Proto.tcp: member.tcp_port, Proto.udp: member.udp_port}
    return ports.get(proto, 0)


def _dns(asked: Asked, site: Site) -> tuple[Target, ...]:
    server = site.dns_server
    if "dns" not in asked.protocols or not server:
        return ()
    return (
        Target(name=f"dns {asked.dns_name} @{server}", dst=f"dns {server}", proto=Proto.dns, layer=Layer.dns,
               address=server, port=53, family=6 if ":" in server else 4),
    )  # fmt: skip


def _custom(asked: Asked) -> tuple[Target, ...]:
    return tuple(
        Target(name=f"{address} port {port}", dst=f"{address}:{port}", proto=Proto[asked.custom_proto],
               layer=Layer.url, address=address, port=port, family=6 if ":" in address else 4)
        for address, port in asked.addresses
    )  # fmt: skip


def _round(
    asked: Asked, site: Site, run: str, number: int, targets: tuple[Target, ...], mesh: Mesh | None
) -> RoundScheduled:
    spread_us = int(asked.duration_s * 1e6) + asked.timeout_ms * 1000
    round_ = RoundScheduled(
        round_id=ids.round_id(task_uid=run, number=number),
        number=number,
        task_uid=run,
        task=TASK,
        kind=KIND,
        start_us=0,
        deadline_us=spread_us + GRACE_US,
        duration_s=asked.duration_s,
        rate=asked.rate,
        timeout_ms=asked.timeout_ms,
        members=site.reference,
        planned=0,
        expect=Expect(success_rate=asked.success_rate, mean_delay_ms=asked.timeout_ms),
        mesh=mesh,
        targets=targets,
        http=HttpRequest(),
        dns=DnsRequest(domain=asked.dns_name),
        cluster=site.name or "cluster",
    )
    owed = share.planned(round_=round_, members=site.members)
    return msgspec.structs.replace(round_, planned=sum(owed.values()))
