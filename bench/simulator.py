"""A network that does not exist: what its agents would have counted in a round, fed to the judge's own functions.

The mesh is the agents' own (`topics.share.ring_offsets`); what comes out is the evidence that the judge makes of a pair
table whose both ends have counted (`streams.judging.evidence`; a unit test holds both equal). Everything that follows,
from evidence to statement, is the judge's code and not the simulator's.

A packet there and its answer back are two; each is lost by the background or by a fault on its way. Background losses
are independent, or come in bursts on one line, or are of unequal rate by node and between zones, or both; their mean is
`background` in each case.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from streams.judging.evidence import NOWHERE, Evidence, Floats, Indexes, Masks, Ports, fit_only, no_ports
from topics.share import ring_offsets

Background = Literal["independent", "bursty", "unequal", "bursty and unequal"]
Place = Literal["node", "rack", "zone_pair", "layer", "size", "pair"]
# Mean length of a burst in packets, and the spread of nodes' own rates (standard deviation of the logarithm).
BURST_PACKETS = 4.0
SPREAD = 0.4
BETWEEN_ZONES = 1.5
PORTS = 5
SERVICES = 4


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that loses `rate` of the packets of one element. `number` is of the node, rack or zones (a·zones + b).

    With `tuples` it is `rate` of the 5-tuples that lose all. `size` restricts it to packets of that payload.
    """

    place: Place
    number: int
    direction: Literal["ingress", "egress", "pair", "layer", "size"]
    rate: float
    tuples: bool = False
    size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Network:
    """What there is: `nodes` in racks of `per_rack`, racks in `zones`; each probes `degree` others with `packets` each.

    `sizes` are packet sizes among which a pair's packets are shared out; with `services` each node also asks one of
    SERVICES cluster addresses, whose account is the client's alone; `ports` tells of source ports.
    """

    nodes: int = 5000
    per_rack: int = 20
    zones: int = 3
    degree: int = 20
    packets: int = 10
    background: float = 1e-4
    kind: Background = "independent"
    sizes: tuple[int, ...] = (0,)
    services: bool = False
    ports: bool = False

    @property
    def racks(self) -> int:
        """How many racks there are."""
        return -(-self.nodes // self.per_rack)

    @cached_property
    def rack(self) -> Indexes:
        """The rack of each node."""
        return np.arange(self.nodes, dtype=np.int64) // self.per_rack

    @cached_property
    def zone(self) -> Indexes:
        """The zone of each node: racks in turn."""
        return self.rack % self.zones

    @cached_property
    def weight(self) -> tuple[Floats, Floats]:
        """How much of the background each node loses in sending and in receiving, 1 on average."""
        rng = np.random.default_rng(self.nodes)
        drawn = np.exp(rng.normal(-SPREAD * SPREAD / 2, SPREAD, (2, self.nodes)))
        return drawn[0], drawn[1]

    @cached_property
    def names(self) -> list[str]:
        """Names of the nodes, and of the services behind them."""
        return [f"node-{i:04d}" for i in range(self.nodes)] + [f"service-{i}" for i in range(SERVICES)]

    def element(self, fault: Fault) -> tuple[str, str]:
        """(element, direction) as a finding must name it."""
        match fault.place:
            case "node":
                name = self.names[fault.number]
            case "rack":
                name = f"rack r{fault.number}"
            case "zone_pair":
                name = f"zone z{fault.number // self.zones}>zone z{fault.number % self.zones}"
            case "layer":
                name = "udp/cluster_ip"
            case "size":
                name = "size full"
            case "pair":
                name = f"{self.names[fault.number // self.nodes]}>{self.names[fault.number % self.nodes]}"
        return name, fault.direction


@dataclass(frozen=True, kw_only=True)
class Agents:
    """Agents that are not as they should be: `silent` ones' records do not come; `throttled` ones lose answers of
    their own making and are told unfit by their own account."""

    silent: frozenset[int] = frozenset()
    throttled: frozenset[int] = frozenset()


NOBODY = Agents()
# What a throttled agent reads too late.
FORGED = 0.05


@dataclass(frozen=True, kw_only=True)
class _Lines:
    """Lines there, then lines back, then lines to services."""

    src: Indexes
    dst: Indexes
    tried: Floats
    size: Indexes
    kind: Indexes
    exact: Masks
    lost: Floats = field(default_factory=lambda: np.zeros(0))


def round_of(
    network: Network,
    *,
    number: int,
    rng: np.random.Generator,
    faults: Sequence[Fault] = (),
    agents: Agents = NOBODY,
) -> Evidence:
    """What the agents would have counted in round `number`."""
    lines = _lines(network, number)
    lost = _background(network, lines, rng)
    bad = [_tuple_fault(network, lines, f, rng, lost) for f in faults if f.tuples]
    for fault in faults:
        if not fault.tuples:
            met = np.nonzero(_met(network, lines, fault))[0]
            lost[met] += rng.binomial(lines.tried[met].astype(np.int64), fault.rate)
    _forge(lines, agents, rng, lost)
    lost = np.minimum(lost, lines.tried)
    tried = lines.tried
    there = network.nodes * network.degree * len(network.sizes)
    # Only what came is answered.
    answered = tried.copy()
    answered[there : 2 * there] -= lost[:there]
    lost[there : 2 * there] = np.minimum(lost[there : 2 * there], answered[there : 2 * there])
    places = network.nodes + (SERVICES if network.services else 0)
    aside = np.full(places - network.nodes, NOWHERE, dtype=np.int64)
    seen = Evidence(
        nodes=network.names[:places],
        racks=[f"r{i}" for i in range(network.racks)],
        zones=[f"z{i}" for i in range(network.zones)],
        rack=np.concatenate([network.rack, aside]),
        zone=np.concatenate([network.zone, aside]),
        src=lines.src,
        dst=lines.dst,
        tried=answered,
        own=answered,
        lost=lost,
        forward=np.ones(len(lost), dtype=bool),
        exact=lines.exact,
        kinds=[("udp", "pod"), ("udp", "cluster_ip")] if network.services else [("udp", "pod")],
        kind=lines.kind,
        sizes=list(network.sizes),
        size=lines.size,
        age=np.zeros(len(lost), dtype=np.int64),
        ports=_ports(network, lines, lost, bad, there) if network.ports else no_ports(),
    )
    return _heard(network, seen, agents, there)


def _lines(network: Network, number: int) -> _Lines:
    offsets = _offsets(network.nodes, network.degree, number)
    src = np.tile(np.arange(network.nodes, dtype=np.int64), network.degree)
    dst = (src + np.repeat(offsets, network.nodes)) % network.nodes
    sizes = len(network.sizes)
    size = np.repeat(np.arange(sizes, dtype=np.int64), len(src))
    src, dst = np.tile(src, sizes), np.tile(dst, sizes)
    each = network.packets / sizes
    ends = [(src, dst), (dst, src)]
    aside = np.zeros(0, dtype=np.int64)
    if network.services:
        aside = np.arange(network.nodes, dtype=np.int64)
        ends.append((aside, network.nodes + (aside + number) % SERVICES))
    count = 2 * len(src)
    return _Lines(
        src=np.concatenate([a for a, _ in ends]),
        dst=np.concatenate([b for _, b in ends]),
        tried=np.full(count + len(aside), np.floor(each)),
        size=np.concatenate([size, size, np.zeros_like(aside)]),
        kind=np.concatenate([np.zeros(count, dtype=np.int64), np.ones_like(aside)]),
        exact=np.concatenate([np.ones(count, dtype=bool), np.zeros(len(aside), dtype=bool)]),
    )


_PERMUTATIONS: dict[int, Indexes] = {}


def _offsets(nodes: int, degree: int, number: int) -> Indexes:
    """The ring's offsets of a round; the permutation is drawn once for a size of network."""
    if nodes not in _PERMUTATIONS:
        cycle = -(-(nodes - 1) // degree)
        walked = [ring_offsets(count=nodes, degree=degree, epoch=1, number=i + 1) for i in range(cycle)]
        _PERMUTATIONS[nodes] = np.array([o for part in walked for o in part], dtype=np.int64)
    every = _PERMUTATIONS[nodes]
    cycle = (nodes - 1) // degree
    first = (number - 1) % cycle * degree
    return every[first : first + degree]


def _background(network: Network, lines: _Lines, rng: np.random.Generator) -> Floats:
    count = len(lines.src)
    lost = np.zeros(count)
    bursty = network.kind.startswith("bursty")
    mean = BURST_PACKETS if bursty else 1.0
    events = network.background * float(lines.tried.sum()) / mean
    if network.kind.endswith("unequal"):
        most = 8.0
        at = rng.integers(0, count, rng.poisson(events * most))
        at = at[rng.random(len(at)) * most < _weights(network, lines.src[at], lines.dst[at])]
    else:
        at = rng.integers(0, count, rng.poisson(events))
    np.add.at(lost, at, rng.geometric(1 / mean, len(at)) if bursty else 1)
    return lost


def _weights(network: Network, src: Indexes, dst: Indexes) -> Floats:
    """Of lines, by both their ends, 1 on average; services are as good as any."""
    sending, receiving = network.weight
    node = dst < network.nodes
    to = np.where(node, dst, 0)
    between = np.where(network.zone[src] == network.zone[to], 1.0, BETWEEN_ZONES)
    apart = 1 - 1 / network.zones
    mean = apart * BETWEEN_ZONES + 1 - apart
    return np.where(node, sending[src] * receiving[to] * between / mean, 1.0)


def _met(network: Network, lines: _Lines, fault: Fault) -> Masks:
    """Lines that a fault lies on."""
    ends = {"ingress": lines.dst, "egress": lines.src}
    inside = lines.dst < network.nodes
    inside &= lines.src < network.nodes
    src, dst = np.where(inside, lines.src, 0), np.where(inside, lines.dst, 0)
    match fault.place:
        case "node":
            met = ends[fault.direction] == fault.number
        case "rack":
            here, there = network.rack[src], network.rack[dst]
            met = inside & (here != there) & ((there if fault.direction == "ingress" else here) == fault.number)
        case "zone_pair":
            met = inside & (network.zone[src] * network.zones + network.zone[dst] == fault.number)
        case "layer":
            met = lines.kind == fault.number
        case "size":
            met = np.ones(len(lines.src), dtype=bool)
        case "pair":
            met = (lines.src == fault.number // network.nodes) & (lines.dst == fault.number % network.nodes)
    if fault.size is not None:
        met = met & (np.array(network.sizes)[lines.size] == fault.size)
    return met


def _tuple_fault(
    network: Network, lines: _Lines, fault: Fault, rng: np.random.Generator, lost: Floats
) -> tuple[Indexes, Floats]:
    """Drop all packets of `rate` of the source ports; returns (line, lost) of each port that lost them."""
    met = np.nonzero(_met(network, lines, fault))[0]
    dead = rng.binomial(PORTS, fault.rate, len(met))
    each = lines.tried[met] / PORTS
    lost[met] += dead * each
    return np.repeat(met, dead), np.repeat(each, dead)


def _ports(network: Network, lines: _Lines, lost: Floats, bad: Sequence[tuple[Indexes, Floats]], there: int) -> Ports:
    """Ports of the lines there: those of tuple faults, and one for each other packet lost."""
    used = np.full(there, float(PORTS))
    line = np.concatenate([np.zeros(0, dtype=np.int64), *(at[at < there] for at, _ in bad)])
    each = np.concatenate([np.zeros(0), *(gone[at < there] for at, gone in bad)])
    others = lost[:there] - np.bincount(line, weights=each, minlength=there)
    single = np.repeat(np.arange(there), np.maximum(others, 0).astype(np.int64))
    return Ports(
        used=used,
        each=lines.tried[:there] / PORTS,
        bad_line=np.concatenate([line, single]),
        bad_lost=np.concatenate([each, np.ones(len(single))]),
    )


def _forge(lines: _Lines, agents: Agents, rng: np.random.Generator, lost: Floats) -> None:
    if not agents.throttled:
        return
    who = np.array(sorted(agents.throttled), dtype=np.int64)
    met = np.nonzero(np.isin(lines.src, who) | np.isin(lines.dst, who))[0]
    lost[met] += rng.binomial(lines.tried[met].astype(np.int64), FORGED)


def _heard(network: Network, seen: Evidence, agents: Agents, there: int) -> Evidence:
    """Without what silent agents would have told, and without what unfit ones did."""
    if agents.silent:
        who = np.zeros(len(seen.nodes), dtype=bool)
        who[list(agents.silent)] = True
        asked_by = np.concatenate([seen.src[:there], seen.dst[there : 2 * there], seen.src[2 * there :]])
        answered_by = np.concatenate([seen.dst[:there], seen.src[there : 2 * there], seen.dst[2 * there :]])
        back = np.zeros(len(seen), dtype=bool)
        back[there : 2 * there] = True
        # Who asks a silent agent has the client's account alone; what the answers lost is in it.
        alone = who[answered_by] & ~who[asked_by]
        lost = seen.lost.copy()
        client = np.nonzero(alone[:there])[0]
        lost[client] += seen.lost[there + client]
        marked = replace(seen, lost=lost, exact=seen.exact & ~alone, forward=seen.forward & ~alone)
        seen = _only(marked, ~who[asked_by] & ~(back & alone))
    return fit_only(seen, frozenset(network.names[i] for i in agents.throttled))


def _only(seen: Evidence, kept: Masks) -> Evidence:
    columns = ("src", "dst", "tried", "own", "lost", "forward", "exact", "kind", "size", "age")
    return replace(seen, **{name: getattr(seen, name)[kept] for name in columns}, ports=no_ports())
