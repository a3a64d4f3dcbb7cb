"""What a round says of the network, as numbers: each line is packets that went from one place to another.

Where both ends have counted (`directions`), a line of the pair table is two of evidence: its requests on the way there
and its answers on the way back, each lost on its own way. So what a node receives is the requests to it and the
answers to its own. Where only the client has, a lost reply is charged to the way there.

Lines of earlier rounds (`memory`) stand behind the round's own, with their `age` in rounds.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from streams.judging.directions import TCP, Directions
from streams.judging.pair_table import Ints, PairTable
from topics.outcome import NOT_LOSS, Outcome

Floats = npt.NDArray[np.float64]
Masks = npt.NDArray[np.bool_]
Indexes = npt.NDArray[np.int64]
NOWHERE = -1


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Source ports of the round's own lines: how many each line used, and what each port that lost anything lost.

    `bad_line`, `bad_lost` say of each such port its line and how many of its packets were lost; `each` is packets by
    port of a line. A port used for one request only is a port for all the packets of that request.
    """

    used: Floats
    each: Floats
    bad_line: Indexes
    bad_lost: Floats


def no_ports() -> Ports:
    """Where source ports are not known."""
    nothing = np.zeros(0)
    return Ports(used=nothing, each=nothing, bad_line=nothing.astype(np.int64), bad_lost=nothing)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Packets tried and lost by line, both ends numbered in `nodes`; `rack` and `zone` are by node, NOWHERE unknown.

    `dst` is the node of a mesh peer, else the target's short name. `forward` marks lines whose loss is mostly the way
    there (TCP's retransmissions); datagrams are lost on either way. `exact` marks those whose loss is the way from
    `src` to `dst` and no other. `kinds` are (protocol, layer), numbered in `kind`; `sizes` payloads in bytes.

    `age` is 0 of the round's own lines. Earlier lines are only those that lost something: `tried` is 0 there and `own`
    what they tried; how much was tried in all in the rounds before, as a multiple of this one, is in `before`, and
    whether some of what was lost there is not among the lines, in `forgot`.
    """

    nodes: list[str]
    racks: list[str]
    zones: list[str]
    rack: Indexes
    zone: Indexes
    src: Indexes
    dst: Indexes
    tried: Floats
    own: Floats
    lost: Floats
    forward: Masks
    exact: Masks
    kinds: list[tuple[str, str]]
    kind: Indexes
    sizes: list[int]
    size: Indexes
    age: Indexes
    before: tuple[float, ...] = ()
    forgot: tuple[bool, ...] = ()
    ports: Ports

    def __len__(self) -> int:
        return len(self.src)


def evidence(pairs: PairTable, ways: Directions, *, unfit: frozenset[str] = frozenset()) -> Evidence:
    """Packets and requests as evidence: where everything is dropped few segments are sent, but every request fails.

    Lines with an end among the nodes `unfit` say nothing and are left out.
    """
    dst_names, dst_node = pairs.codes("dst_node")
    mesh = np.array([bool(name) for name in dst_names], dtype=bool)[dst_node]
    failed = pairs.outcome_counts((Outcome.timeout, Outcome.unreachable))
    failed += np.where(mesh, pairs.outcome_counts((Outcome.reset,)), 0)
    requests = pairs.counts("n") - pairs.outcome_counts(NOT_LOSS)
    nodes: dict[str, int] = {}
    src, peer, place = (_numbered(pairs, name, nodes) for name in ("src_node", "dst_node", "dst"))
    dst = np.where(mesh, peer, place)
    proto_names, proto = pairs.codes("proto")
    layer_names, layer = pairs.codes("layer")
    kind = proto * len(layer_names) + layer
    sizes, size = np.unique(pairs.counts("size"), return_inverse=True)
    tcp = np.array([name in TCP for name in proto_names], dtype=bool)[proto]
    # A failed request that came lost its answer; of one whose connection never came about nobody knows.
    returning = np.minimum(ways.unanswered, failed)
    unopened = np.where(ways.known, np.minimum(pairs.counts("unopened"), failed - returning), 0)
    there, back, either = (
        _packets(ways.forward_sent, ways.forward_lost, failed - returning - unopened, requests - unopened),
        _packets(ways.reverse_sent, ways.reverse_lost, returning, returning),
        _packets(ways.open_sent, ways.open_lost, unopened, unopened),
    )
    first = np.arange(len(src))
    both, never = np.nonzero(ways.known & (back[0] > 0))[0], np.nonzero(either[0] > 0)[0]
    lines = np.concatenate([first, both, never])
    tried = np.concatenate([there[0], back[0][both], either[0][never]])
    racks, rack = _places(pairs, "rack", src, peer, mesh, len(nodes))
    zones, zone = _places(pairs, "zone", src, peer, mesh, len(nodes))
    seen = Evidence(
        nodes=list(nodes),
        racks=racks,
        zones=zones,
        rack=rack,
        zone=zone,
        src=np.concatenate([src, dst[both], src[never]]),
        dst=np.concatenate([dst, src[both], dst[never]]),
        tried=tried,
        own=tried,
        lost=np.concatenate([there[1], back[1][both], either[1][never]]),
        forward=np.concatenate([tcp | ways.known, ways.known[both], np.zeros(len(never), dtype=bool)]),
        exact=np.concatenate([ways.known, ways.known[both], np.zeros(len(never), dtype=bool)]),
        kinds=[(p, way) for p in proto_names for way in layer_names],
        kind=kind[lines],
        sizes=[int(s) for s in sizes],
        size=size.reshape(-1)[lines],
        age=np.zeros(len(lines), dtype=np.int64),
        ports=_ports(pairs),
    )
    return fit_only(seen, unfit)


def evidence_of(pairs: PairTable, *, tried: Ints, lost: Ints) -> Evidence:
    """Any count of the pair table's lines as evidence, each line as it stands: not of packets and of no way back."""
    nodes: dict[str, int] = {}
    dst_names, dst_node = pairs.codes("dst_node")
    mesh = np.array([bool(name) for name in dst_names], dtype=bool)[dst_node]
    src, peer, place = (_numbered(pairs, name, nodes) for name in ("src_node", "dst_node", "dst"))
    proto_names, proto = pairs.codes("proto")
    layer_names, layer = pairs.codes("layer")
    count, trials = len(pairs), tried.astype(np.float64)
    nowhere = np.full(len(nodes), NOWHERE, dtype=np.int64)
    return Evidence(
        nodes=list(nodes),
        racks=[],
        zones=[],
        rack=nowhere,
        zone=nowhere,
        src=src,
        dst=np.where(mesh, peer, place),
        tried=trials,
        own=trials,
        lost=lost.astype(np.float64),
        forward=np.ones(count, dtype=bool),
        exact=np.ones(count, dtype=bool),
        kinds=[(p, way) for p in proto_names for way in layer_names],
        kind=proto * len(layer_names) + layer,
        sizes=[0],
        size=np.zeros(count, dtype=np.int64),
        age=np.zeros(count, dtype=np.int64),
        ports=no_ports(),
    )


def _packets(sent: Ints, lost: Ints, failed: Ints, requests: Ints) -> tuple[Floats, Floats]:
    """(tried, lost) as the worse of packets and requests."""
    tried = np.maximum(sent, requests)
    return tried.astype(np.float64), np.clip(np.maximum(lost, failed), 0, tried).astype(np.float64)


def _numbered(pairs: PairTable, column: str, nodes: dict[str, int]) -> Indexes:
    names, codes = pairs.codes(column)
    return np.array([nodes.setdefault(name, len(nodes)) for name in names], dtype=np.int64)[codes]


def _places(
    pairs: PairTable, what: str, src: Indexes, peer: Indexes, mesh: Masks, count: int
) -> tuple[list[str], Indexes]:
    """(names, place of each node) of racks or zones; a node without one is NOWHERE."""
    names: dict[str, int] = {}
    of_node = np.full(count, NOWHERE, dtype=np.int64)
    for column, node, which in ((f"dst_{what}", peer, mesh), (f"src_{what}", src, slice(None))):
        texts, codes = pairs.codes(column)
        place = np.array([names.setdefault(t, len(names)) if t else NOWHERE for t in texts], dtype=np.int64)
        of_node[node[which]] = place[codes][which]
    return list(names), of_node


def _ports(pairs: PairTable) -> Ports:
    """Ports belong to requests, hence to the lines of their way there, which stand first."""
    used = np.maximum(pairs.counts("ports"), 1).astype(np.float64)
    line, lost = pairs.bad_ports
    return Ports(used=used, each=pairs.counts("n") / used, bad_line=line, bad_lost=lost.astype(np.float64))


def fit_only(seen: Evidence, unfit: frozenset[str]) -> Evidence:
    """The same without the lines that have an end among the nodes `unfit`: they say nothing certain."""
    if not unfit:
        return seen
    fit = np.array([name not in unfit for name in seen.nodes], dtype=bool)
    kept = fit[seen.src] & fit[seen.dst]
    columns = ("src", "dst", "tried", "own", "lost", "forward", "exact", "kind", "size", "age")
    place = np.where(kept, np.cumsum(kept) - 1, NOWHERE)
    ports, mine = seen.ports, kept[: len(seen.ports.used)]
    bad = place[ports.bad_line]
    changed = Ports(
        used=ports.used[mine], each=ports.each[mine], bad_line=bad[bad >= 0], bad_lost=ports.bad_lost[bad >= 0]
    )
    return replace(seen, **{name: getattr(seen, name)[kept] for name in columns}, ports=changed)
