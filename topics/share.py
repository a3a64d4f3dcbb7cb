"""Who owes which requests of a round: one rule for the controller (planned), the agents (their share) and the judge.

Pure. A stream is one agent's requests to one target: `requests` of them, due at `start + (i + phase) / rate`.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from topics.mesh_members import Member
from topics.outcome import Layer, Proto
from topics.task_rounds import RoundScheduled, Target

# Protocols whose every request is one packet, so that its size can be chosen.
SIZED = frozenset({Proto.icmp, Proto.udp})
PORTS = {Proto.http: "http_port", Proto.https: "https_port", Proto.tcp: "tcp_port", Proto.udp: "udp_port"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One agent's requests to one target: the target with its address filled in, and how many are due."""

    target: Target
    requests: int


def requests_due(*, rate: float, duration_s: float) -> int:
    """Requests of one stream: those due before the duration is over, at least one."""
    return max(1, math.floor(rate * duration_s + 1e-9))


def ring_offsets(*, count: int, degree: int, epoch: int, number: int) -> tuple[int, ...]:
    """The offsets that every member probes in round `number` of a ring mesh.

    A pseudo-random permutation of 1 … count-1, known to all from the epoch, is walked `degree` at a time: in-degree and
    out-degree are `degree`, and every ordered pair occurs once in a cycle of ceil((count-1)/degree) rounds.
    """
    offsets = list(range(1, count))
    if degree <= 0 or degree >= len(offsets):
        return tuple(offsets)
    random.Random(epoch).shuffle(offsets)
    cycle = math.ceil(len(offsets) / degree)
    first = (number - 1) % cycle * degree
    return tuple(offsets[first : first + degree])


def taking_part(*, round_: RoundScheduled, members: tuple[Member, ...]) -> list[Member]:
    """The members that the round is for, by slot."""
    only = frozenset(round_.only)
    return sorted((m for m in members if not only or m.agent in only), key=lambda m: m.slot)


def peers(*, round_: RoundScheduled, members: tuple[Member, ...], agent: str) -> tuple[Member, ...]:
    """The members that `agent` probes in this round, itself never; empty when it is not a member."""
    if round_.mesh is None:
        return ()
    ordered = taking_part(round_=round_, members=members)
    position = next((i for i, m in enumerate(ordered) if m.agent == agent), None)
    if position is None:
        return ()
    count = len(ordered)
    offsets = ring_offsets(count=count, degree=round_.mesh.degree, epoch=round_.members.epoch, number=round_.number)
    return tuple(ordered[(position + offset) % count] for offset in offsets)


def share(*, round_: RoundScheduled, members: tuple[Member, ...], agent: str) -> tuple[Stream, ...]:
    """What `agent` owes in this round; empty when it is not a member."""
    me = next((m for m in taking_part(round_=round_, members=members) if m.agent == agent), None)
    if me is None:
        return ()
    due = requests_due(rate=round_.rate, duration_s=round_.duration_s)
    targets = [
        target for peer in peers(round_=round_, members=members, agent=agent) for target in _mesh_targets(round_, peer)
    ]
    targets += [_own(target, me) for target in round_.targets]
    return tuple(Stream(target=t, requests=due) for t in targets)


def planned(*, round_: RoundScheduled, members: tuple[Member, ...]) -> dict[str, int]:
    """Requests owed by each agent of the membership."""
    due = requests_due(rate=round_.rate, duration_s=round_.duration_s)
    if round_.mesh is None:
        return {m.agent: due * len(round_.targets) for m in taking_part(round_=round_, members=members)}
    ordered = taking_part(round_=round_, members=members)
    reach = [sum(1 for _ in _mesh_ways(round_, m)) for m in ordered]
    fixed = due * len(round_.targets)
    if round_.mesh.degree == 0:
        total = sum(reach)
        return {m.agent: due * (total - own) + fixed for m, own in zip(ordered, reach, strict=True)}
    # The offsets are the same for all: drawn once, not once for each of thousands of members.
    count = len(ordered)
    offsets = ring_offsets(count=count, degree=round_.mesh.degree, epoch=round_.members.epoch, number=round_.number)
    if len(set(reach)) == 1:
        each = due * reach[0] * len(offsets) + fixed
        return dict.fromkeys((m.agent for m in ordered), each)
    twice = reach + reach
    return {
        m.agent: due * sum(twice[position + offset] for offset in offsets) + fixed for position, m in enumerate(ordered)
    }


def _own(target: Target, me: Member) -> Target:
    if not target.own_node:
        return target
    address = me.node_ipv6 if target.family == 6 else me.node_ipv4
    name = target.name.replace("{node}", address)
    return msgspec.structs.replace(target, name=name, address=address, own_node=False)


def _mesh_ways(round_: RoundScheduled, peer: Member) -> Iterator[tuple[Proto, int, int]]:
    """(protocol, family, size) of every stream that a member is sent by each of its peers."""
    mesh = round_.mesh
    assert mesh is not None
    for proto in mesh.protos:
        if proto in PORTS and not getattr(peer, PORTS[proto]):
            continue
        for family in mesh.families:
            if peer.address(family):
                yield from ((proto, family, size) for size in (mesh.sizes if proto in SIZED else (0,)))


def _mesh_targets(round_: RoundScheduled, peer: Member) -> list[Target]:
    label = peer.pod or peer.agent
    return [
        Target(
            name=f"AgentPodV{family}IP_{label}_{peer.address(family)}",
            dst=peer.node,
            proto=proto,
            layer=Layer.pod,
            address=peer.address(family),
            port=getattr(peer, PORTS[proto]) if proto in PORTS else 0,
            family=family,
            agent=peer.agent,
            dst_node=peer.node,
            dst_zone=peer.zone,
            dst_rack=peer.rack,
            size=size,
        )
        for proto, family, size in _mesh_ways(round_, peer)
    ]
