"""Who asks whom: from the agents found and what was asked for to rounds, as the controller would publish them. Pure.

A way is a pair of sites, the one that asks and the one that is asked. A site that asks itself is a mesh; two clusters
are two ways, there and back, each a round of its own, since a round has one membership.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from topics import ids, mesh_members, share
from topics.mesh_members import Member
from topics.outcome import Layer, Proto
from topics.task_rounds import FULL_SIZE, DnsRequest, Expect, HttpRequest, MembersRef, Mesh, RoundScheduled, Target

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
    """Agents of one cluster and flavour that answered; `mapped` is a node's address as the other cluster sees it."""

    name: str
    members: tuple[Member, ...]
    layer: Layer = Layer.pod
    mapped: Mapping[str, str] = field(default_factory=dict)

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
    dns_server: str = ""
    dns_name: str = "kubernetes.default.svc.cluster.local"
    addresses: tuple[tuple[str, int], ...] = ()
    custom_proto: str = "tcp"
    success_rate: float = 1.0

    @property
    def duration_s(self) -> float:
        """How long the requests are spread over."""
        return self.requests / self.rate


Way = tuple[Site, Site]
Key = tuple[str, str, str]
"""Source node, destination, protocol: what stays the same from one run to the next."""


def rounds(
    *, asked: Asked, ways: Sequence[Way], run: str, only: Collection[Key] | None = None
) -> list[tuple[Site, RoundScheduled]]:
    """The rounds of a check, each with the site whose agents run it. ``run`` makes the ids unique; times count
    from the start, which is fixed when the agents are attached.

    With ``only`` a source's round has those targets alone; its site then holds that source alone.
    """
    whole = _all(asked, ways, run)
    return whole if only is None else _narrowed(asked, whole, only, run)


def _narrowed(
    asked: Asked, whole: Sequence[tuple[Site, RoundScheduled]], only: Collection[Key], run: str
) -> list[tuple[Site, RoundScheduled]]:
    wanted: dict[tuple[str, str], list[Target]] = {}
    sources: dict[tuple[str, str], tuple[Site, Member]] = {}
    for site, round_ in whole:
        for member in site.members:
            for stream in share.share(round_=round_, members=site.members, agent=member.agent):
                if (member.node, stream.target.dst, stream.target.proto.name) in only:
                    key = (site.name, member.agent)
                    sources[key] = (site, member)
                    wanted.setdefault(key, []).append(stream.target)
    made: list[tuple[Site, RoundScheduled]] = []
    for key, targets in wanted.items():
        site, member = sources[key]
        alone = Site(name=f"{site.name}/{member.node}", members=(member,), mapped=site.mapped)
        made.append((alone, _round(asked, alone, run, len(made) + 1, targets=tuple(targets))))
    return made


def _all(asked: Asked, ways: Sequence[Way], run: str) -> list[tuple[Site, RoundScheduled]]:
    made: list[tuple[Site, RoundScheduled]] = []
    for site, other in ways:
        mesh, targets = _peers(asked, site, other)
        if mesh is not None or targets:
            made.append((site, _round(asked, site, run, len(made) + 1, mesh=mesh, targets=targets)))
    for site in {source.name: source for source, _ in ways}.values():
        fixed = (*(_dns(asked) if "dns" in asked.protocols else ()), *_custom(asked))
        if fixed:
            made.append((site, _round(asked, site, run, len(made) + 1, targets=fixed)))
    return made


def _peers(asked: Asked, site: Site, other: Site) -> tuple[Mesh | None, tuple[Target, ...]]:
    protos = tuple(Proto[name] for name in asked.protocols if name in MESH_PROTOS)
    if not protos:
        return None, ()
    if other is site:
        return Mesh(protos=protos, families=asked.families, degree=asked.degree, sizes=(0, FULL_SIZE)), ()
    return None, tuple(_targets(asked, protos, site, other))


def _targets(asked: Asked, protos: Sequence[Proto], site: Site, other: Site) -> Iterable[Target]:
    for member in other.members:
        for family in asked.families:
            address = other.mapped.get(member.node) or member.address(family)
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


def port_of(member: Member, proto: Proto) -> int:
    """Where that member serves the protocol; 0 for ICMP."""
    ports = {Proto.http: member.http_port, Proto.tcp: member.tcp_port, Proto.udp: member.udp_port}
    return ports.get(proto, 0)


def _dns(asked: Asked) -> tuple[Target, ...]:
    server = asked.dns_server
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
    asked: Asked, site: Site, run: str, number: int, *, targets: tuple[Target, ...],
    mesh: Mesh | None = None,
) -> RoundScheduled:  # fmt: skip
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
