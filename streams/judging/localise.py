"""Where packets are lost: the fewest elements of the network that explain a round's losses. First version.

Method (Flock, Harsh et al. 2023): every element is a suspect over a set of pairs. Suspecting it of losing a share p1
of the T packets of which L were lost, instead of the background p0, gains L·ln(p1/p0) + (T-L)·ln((1-p1)/(1-p0)). The
suspect that gains most is named, its pairs count as explained, and so on while the gain is above the price.

Elements: what a node receives, what it sends, a single pair, a protocol or layer. Where two suspects cover the same
pairs, only the narrower is named (one source alone cannot tell a node's ingress from a pair).

Where both ends have counted (`directions`), a line of the pair table is two of evidence: its requests on the way there
and its answers on the way back, each lost on its own way. So what a node receives is the requests to it and the
answers to its own. Where only the client has, a lost reply is charged to the way there: a node's ingress fault also
shows in what it sends. There, once one direction of a node is named, the other is taken as its echo; where both lose
alike, the direction is left open.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streams.judging import stats
from streams.judging.directions import TCP, Directions, directions
from streams.judging.pair_table import Ints, PairTable
from topics.outcome import NOT_LOSS, Outcome
from topics.round_verdicts import Finding

Floats = npt.NDArray[np.float64]
Masks = npt.NDArray[np.bool_]
Indexes = npt.NDArray[np.int64]

# What a sound network may lose without being suspected.
FLOOR = 1e-4
# Gain in nats below which nothing is named, besides the logarithm of the number of suspects.
PRICE = 8.0
LEAST_LOST = 3
# A named element's lower bound must be this many times the loss of the rest.
ABOVE_REST = 2.0
MAX_FINDINGS = 5
# Counts of both ends mix the two ways up by less than this: what the other way loses beyond it is a fault of its own.
ECHO_SHARE = 0.1
# Gain in nats that two directions which lose alike exceed once in twenty times (half of chi-square's 95 % point).
DIRECTION_GAIN = 1.92


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Lines of the pair table as packets tried and lost, with both ends numbered in `nodes`.

    `dst` is the node of a mesh peer, else the target's short name. `forward` marks lines whose loss is mostly the way
    there (TCP's retransmissions); datagrams are lost on either way. `exact` marks those whose loss is the way from
    `src` to `dst` and no other. `kinds` are (protocol, layer), numbered in `kind`.
    """

    nodes: list[str]
    src: Indexes
    dst: Indexes
    tried: Floats
    lost: Floats
    forward: Masks
    exact: Masks
    kinds: list[tuple[str, str]]
    kind: Indexes


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """An element with the lines it covers and what suspecting it gains."""

    direction: str
    name: str
    lines: Indexes
    tried: float
    lost: float
    gain: float
    rest: float


def evidence(pairs: PairTable, ways: Directions) -> Evidence:
    """Packets and requests as evidence: where everything is dropped few segments are sent, but every request fails."""
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
    tcp = np.array([name in TCP for name in proto_names], dtype=bool)[proto]
    # A failed request that came lost its answer; of one whose connection never came about nobody knows.
    returning = np.minimum(ways.unanswered, failed)
    unopened = np.where(ways.known, np.minimum(pairs.counts("unopened"), failed - returning), 0)
    there, back, either = (
        _packets(ways.forward_sent, ways.forward_lost, failed - returning - unopened, requests - unopened),
        _packets(ways.reverse_sent, ways.reverse_lost, returning, returning),
        _packets(ways.open_sent, ways.open_lost, unopened, unopened),
    )
    both, never = np.nonzero(ways.known & (back[0] > 0))[0], np.nonzero(either[0] > 0)[0]
    return Evidence(
        nodes=list(nodes),
        src=np.concatenate([src, dst[both], src[never]]),
        dst=np.concatenate([dst, src[both], dst[never]]),
        tried=np.concatenate([there[0], back[0][both], either[0][never]]),
        lost=np.concatenate([there[1], back[1][both], either[1][never]]),
        forward=np.concatenate([tcp | ways.known, ways.known[both], np.zeros(len(never), dtype=bool)]),
        exact=np.concatenate([ways.known, ways.known[both], np.zeros(len(never), dtype=bool)]),
        kinds=[(p, way) for p in proto_names for way in layer_names],
        kind=np.concatenate([kind, kind[both], kind[never]]),
    )


def _packets(sent: Ints, lost: Ints, failed: Ints, requests: Ints) -> tuple[Floats, Floats]:
    """(tried, lost) as the worse of packets and requests."""
    tried = np.maximum(sent, requests)
    return tried.astype(np.float64), np.clip(np.maximum(lost, failed), 0, tried).astype(np.float64)


def _numbered(pairs: PairTable, column: str, nodes: dict[str, int]) -> Indexes:
    names, codes = pairs.codes(column)
    return np.array([nodes.setdefault(name, len(nodes)) for name in names], dtype=np.int64)[codes]


def localise(*, pairs: PairTable, ways: Directions | None = None, round_id: int, start_us: int) -> tuple[Finding, ...]:
    """The elements that explain the round's losses, worst first; empty where none stands out. Pure."""
    if len(pairs) == 0:
        return ()
    seen = evidence(pairs, ways or directions(pairs))
    open_ = np.ones(len(seen.tried), dtype=bool)
    findings: list[Finding] = []
    while len(findings) < MAX_FINDINGS:
        best = _best(seen, open_)
        if best is None:
            break
        both_ends = bool(seen.exact[best.lines].any())
        query = evidence_sql(round_id=round_id, start_us=start_us, suspect=best, both_ends=both_ends)
        findings.append(_finding(seen, best, query))
        open_[best.lines] = False
        open_[_echo(seen, best)] = False
    return tuple(findings)


def background(seen: Evidence, open_: Masks) -> float:
    """The loss of the unsuspected: the lesser of the median over sources and the median over destinations."""
    medians = []
    for ends in (seen.src, seen.dst):
        tried, lost = _sums(seen, ends, open_)
        rates = (lost / np.maximum(tried, 1.0))[tried > 0]
        if len(rates):
            medians.append(float(np.quantile(rates, 0.5, method="lower")))
    return max(FLOOR, min(medians, default=0.0))


def gains(lost: Floats, tried: Floats, p0: Floats) -> Floats:
    """Log-likelihood gained by giving each element its own loss rate instead of `p0`; 0 where that is not above."""
    p1 = np.clip(lost / np.maximum(tried, 1.0), 1e-12, 1 - 1e-9)
    gain = lost * np.log(p1 / p0) + (tried - lost) * np.log((1 - p1) / (1 - p0))
    return np.where((p1 > p0) & (tried > 0), gain, 0.0)


def _sums(seen: Evidence, ends: Indexes, where: Masks) -> tuple[Floats, Floats]:
    count = len(seen.nodes)
    return _sum(ends[where], seen.tried[where], count), _sum(ends[where], seen.lost[where], count)


def _sum(index: Indexes, weights: Floats, count: int) -> Floats:
    return np.asarray(np.bincount(index, weights=weights, minlength=count), dtype=np.float64)


def _best(seen: Evidence, open_: Masks) -> Suspect | None:
    p0 = background(seen, open_)
    suspects = [s for s in _suspects(seen, open_, p0) if s is not None]
    price = PRICE + math.log(max(1, 2 * len(seen.nodes) + int(open_.sum())))
    convincing = [s for s in suspects if s.lost >= LEAST_LOST and s.gain > price and _stands_out(s)]
    return max(convincing, key=lambda s: s.gain, default=None)


def _stands_out(suspect: Suspect) -> bool:
    low, _ = stats.wilson(hits=int(suspect.lost), trials=int(suspect.tried))
    return low > ABOVE_REST * max(FLOOR, suspect.rest)


def _suspects(seen: Evidence, open_: Masks, p0: float) -> Iterable[Suspect | None]:
    """The best of each kind, the narrower first: of equals the first is taken."""
    code = seen.src * len(seen.nodes) + seen.dst
    yield _strongest(seen, open_, code, p0, "pair")
    beside = _beside_nodes(seen, open_, p0)
    for direction, ends, others in (("ingress", seen.dst, seen.src), ("egress", seen.src, seen.dst)):
        yield _strongest(seen, open_, ends, beside, direction, others)
    if len(np.unique(seen.kind)) > 1:
        yield _strongest(seen, open_, seen.kind, p0, "layer", seen.dst)


def _beside_nodes(seen: Evidence, open_: Masks, p0: float) -> Floats:
    """By node, the loss of what does not touch it (a fault shows in both its directions), `p0` at most."""
    (tried_in, lost_in), (tried_out, lost_out) = (_sums(seen, ends, open_) for ends in (seen.dst, seen.src))
    return _rest(tried_in.sum() - tried_in - tried_out, lost_in.sum() - lost_in - lost_out, p0)


def _rest(tried: Floats, lost: Floats, p0: float) -> Floats:
    return np.clip(np.where(tried > 0, lost / np.maximum(tried, 1.0), p0), FLOOR, p0)


def _strongest(
    seen: Evidence,
    open_: Masks,
    group: Indexes,
    p0: float | Floats,
    direction: str,
    others: Indexes | None = None,
) -> Suspect | None:
    """The group of lines that gains most; with `others`, only groups whose loss is seen from two ends or more."""
    where = np.nonzero(open_)[0]
    if not len(where):
        return None
    groups, index = np.unique(group[where], return_inverse=True)
    tried, lost = (_sum(index, of[where], len(groups)) for of in (seen.tried, seen.lost))
    rest = p0[groups] if isinstance(p0, np.ndarray) else _rest(tried.sum() - tried, lost.sum() - lost, p0)
    gain = gains(lost, tried, rest)
    if others is not None:
        lossy = where[seen.lost[where] > 0]
        ends = np.unique(np.stack([np.searchsorted(groups, group[lossy]), others[lossy]]), axis=1)
        gain = np.where(np.bincount(ends[0], minlength=len(groups)) >= 2, gain, 0.0)
    best = int(np.argmax(gain))
    if gain[best] <= 0:
        return None
    lines = where[index == best]
    return Suspect(
        direction=direction,
        name=_name(seen, direction, int(lines[0])),
        lines=lines,
        tried=float(tried[best]),
        lost=float(lost[best]),
        gain=float(gain[best]),
        rest=float(rest[best]),
    )


def _name(seen: Evidence, direction: str, line: int) -> str:
    if direction == "layer":
        return "/".join(seen.kinds[int(seen.kind[line])])
    src, dst = seen.nodes[int(seen.src[line])], seen.nodes[int(seen.dst[line])]
    if direction == "pair":
        return f"{src}>{dst}"
    return dst if direction == "ingress" else src


def _reverse(seen: Evidence, suspect: Suspect) -> Indexes:
    """Lines of the same element the other way round: what a node sends for what it receives, b → a for a → b."""
    first = int(suspect.lines[0])
    src, dst = seen.src[first], seen.dst[first]
    if suspect.direction == "pair":
        return np.nonzero((seen.src == dst) & (seen.dst == src))[0]
    return np.nonzero(seen.src == dst if suspect.direction == "ingress" else seen.dst == src)[0]


def _echo(seen: Evidence, suspect: Suspect) -> Indexes:
    """What is explained along with a suspect: the other way, where it may show the same fault."""
    if suspect.direction == "layer":
        return suspect.lines[:0]
    back = _reverse(seen, suspect)
    if not direction_is_clear(seen, suspect):
        return back
    tried, lost = _rate(seen, back[seen.exact[back]])
    counted_apart = lost / max(tried, 1.0) >= ECHO_SHARE * suspect.lost / suspect.tried
    return back[~seen.exact[back]] if counted_apart else back


def _rate(seen: Evidence, lines: Indexes) -> tuple[float, float]:
    return float(seen.tried[lines].sum()), float(seen.lost[lines].sum())


def direction_is_clear(seen: Evidence, suspect: Suspect) -> bool:
    """Whether it is this way that loses: counted at its both ends, or more than the way back by what can tell (TCP)."""
    here, back = suspect.lines, _reverse(seen, suspect)
    exact = here[seen.exact[here]]
    if seen.exact[back].any() and 2 * float(seen.lost[exact].sum()) >= suspect.lost:
        return True
    here, back = here[seen.forward[here]], back[seen.forward[back]]
    tried, lost = _rate(seen, here)
    tried_back, lost_back = _rate(seen, back)
    if not tried or not tried_back or lost / tried <= lost_back / tried_back:
        return False
    pooled = (lost + lost_back) / (tried + tried_back)
    gain = _likelihood(lost, tried, lost / tried) + _likelihood(lost_back, tried_back, lost_back / tried_back)
    gain -= _likelihood(lost + lost_back, tried + tried_back, pooled)
    return gain > DIRECTION_GAIN


def _likelihood(lost: float, tried: float, rate: float) -> float:
    kept = (tried - lost) * math.log1p(-rate) if rate < 1 else 0.0
    return kept + (lost * math.log(rate) if rate > 0 else 0.0)


def _finding(seen: Evidence, suspect: Suspect, query: str) -> Finding:
    clear = suspect.direction == "layer" or direction_is_clear(seen, suspect) or not len(_reverse(seen, suspect))
    loss = stats.loss(sent=int(suspect.tried), lost=int(suspect.lost))
    shown = f"{loss.rate * 100:.1f} % [{loss.low * 100:.1f}–{loss.high * 100:.1f}]"
    # Named beyond doubt when the gain is far above the price; the number is the posterior odds as a share.
    confidence = 1.0 - math.exp(-min(suspect.gain - PRICE, 30.0))
    direction = suspect.direction if clear else "both"
    return Finding(
        element=suspect.name if clear else "<>".join(sorted(suspect.name.split(">"))),
        direction=direction,
        kind="loss",
        sentence=f"{_sentence(suspect, direction, shown)}: {_seen_by(seen, suspect)}{_way_back(seen, suspect, clear)}",
        loss=loss,
        confidence=round(confidence, 4),
        evidence_sql=query,
    )


def _sentence(suspect: Suspect, direction: str, shown: str) -> str:
    src, _, dst = suspect.name.partition(">")
    if direction == "pair":
        return f"{src} → {dst} loses {shown}"
    if suspect.direction == "pair":
        return f"between {' and '.join(sorted((src, dst)))}, {shown} is lost"
    what = {
        "ingress": f"{suspect.name} loses {shown} of what it receives",
        "egress": f"{suspect.name} loses {shown} of what it sends",
        "both": f"{suspect.name} loses {shown} of what it exchanges",
    }
    return what.get(direction, f"{suspect.name} loses {shown} everywhere")


def _seen_by(seen: Evidence, suspect: Suspect) -> str:
    protocols = ", ".join(sorted({seen.kinds[k][0].upper() for k in np.unique(seen.kind[suspect.lines])}))
    if suspect.direction == "pair":
        return f"{protocols}, one pair only"
    ends = seen.src if suspect.direction in ("ingress", "layer") else seen.dst
    lossy = suspect.lines[seen.lost[suspect.lines] > 0]
    return f"{len(np.unique(ends[lossy]))} of {len(np.unique(ends[suspect.lines]))} peers, {protocols}"


def _way_back(seen: Evidence, suspect: Suspect, clear: bool) -> str:
    if suspect.direction == "layer":
        return ""
    back = _reverse(seen, suspect)
    if not len(back):
        return "; nothing measured the other way"
    tried, lost = _rate(seen, back)
    other = {"ingress": "what it sends", "egress": "what it receives"}.get(suspect.direction, "the other way")
    if not clear:
        return f"; {other}: {_percent(lost, tried)}, too close to tell the direction"
    if lost == 0:
        return f"; not {other}"
    return f"; {other} only {_percent(lost, tried)}" + ("" if seen.exact[back].all() else ", as lost answers do")


def _percent(lost: float, tried: float) -> str:
    return f"{lost / tried * 100 if tried else 0:.1f} %"


def evidence_sql(*, round_id: int, start_us: int, suspect: Suspect, both_ends: bool) -> str:
    """A query over the views that shows what a finding rests on, worst first.

    Where both ends have counted, what a node receives is also the answers to its own requests.
    """
    quoted = [part.replace("\\", "\\\\").replace("'", "\\'") for part in suspect.name.split(">")]
    place = "if(dst_node = '', dst, dst_node)"
    proto, _, layer = quoted[0].partition("/")
    node = f"'{quoted[0]}' IN (src_node, {place})"
    there = f"src_node = '{quoted[0]}' AND {place} = '{quoted[-1]}'"
    back = f"src_node = '{quoted[-1]}' AND {place} = '{quoted[0]}'"
    where = {
        "ingress": node if both_ends else f"{place} = '{quoted[0]}'",
        "egress": node if both_ends else f"src_node = '{quoted[0]}'",
        "pair": f"({there} OR {back})" if both_ends else there,
        "layer": f"proto = '{proto}' AND layer = '{layer}'",
    }[suspect.direction]
    table = "v_loss_direction" if both_ends else "v_pair_round"
    columns = (
        "layer, sum(requests) AS requests, sum(requests) - sum(ok) AS failed, sum(forward_sent) AS there, "
        "sum(forward_lost) AS lost_there, sum(reverse_sent) AS back, sum(reverse_lost) AS lost_back, "
        "sum(open_lost) AS lost_either_way"
        if both_ends
        else "sum(n) AS requests, sum(n) - sum(ok) AS failed, sum(packets_sent) AS sent, sum(packets_lost) AS lost"
    )
    last = ", layer ORDER BY lost_there + lost_back DESC" if both_ends else " ORDER BY lost DESC"
    return (
        f"SELECT src_node, {place} AS destination, proto, {columns} FROM {table} "
        f"WHERE round_at = fromUnixTimestamp64Milli({start_us // 1000}, 'UTC') AND round_id = {round_id} AND {where} "
        f"GROUP BY src_node, destination, proto{last}, failed DESC, src_node, destination"
    )
