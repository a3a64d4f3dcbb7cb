"""A suspect as a statement for a person: what loses how much, which way, how far, since when, and what does not."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np

from streams.judging import stats
from streams.judging.cover import Suspect, direction_is_clear, rate_over
from streams.judging.elements import name_of
from streams.judging.evidence import Evidence
from streams.judging.scope import Scope, scope, spared
from topics.round_verdicts import Finding

Since = Mapping[tuple[str, str], tuple[int, int]]


def finding(seen: Evidence, suspect: Suspect, *, round_id: int, start_us: int, since: Since) -> Finding:
    """The statement. `since` has (start, rounds) of those that stood in the round before, by (element, direction)."""
    clear = direction_is_clear(seen, suspect)
    met = scope(seen, suspect)
    loss = stats.loss(sent=max(1, round(met.tried)), lost=round(met.lost))
    name = name_of(seen, suspect.family, int(suspect.lines[0]))
    direction = suspect.family.direction if clear else "both"
    element = name if clear else "<>".join(sorted(name.split(">")))
    began_us, stood = since.get((element, direction), (start_us, 0))
    since_us = min(began_us, start_us)
    untouched = spared(seen, suspect, met)
    what = _what(suspect, name, direction, shown(loss.rate, loss.low, loss.high), met)
    sentence = (
        f"{what}: {_reach(seen, suspect, met)}, since {clock(since_us)}{_not_met(seen, suspect, met, untouched, clear)}"
    )
    return Finding(
        element=element,
        direction=direction,
        kind="loss",
        sentence=sentence,
        loss=loss,
        confidence=round(confidence(suspect), 4),
        evidence_sql=evidence_query(
            suspect=suspect,
            name=name,
            both_ends=bool(seen.exact[suspect.lines].any()),
            round_id=round_id,
            start_us=start_us,
        ),
        since_us=since_us,
        scope=met.name,
        rounds=suspect.rounds,
        spared=tuple(p.removeprefix("not ") for p in (_way_back(seen, suspect, clear),) if p.startswith("not "))
        + untouched,
        seen_rounds=stood + 1,
    )


def confidence(suspect: Suspect) -> float:
    """Posterior odds as a share: against chance (the gain above the logarithm of the suspects), and a rival's."""
    chance = 1.0 - math.exp(-min(max(suspect.gain - suspect.price + 8.0, 0.0), 30.0))
    rival = math.exp(min(suspect.rival.gain - suspect.gain, 0.0)) if suspect.rival is not None else 0.0
    return chance / (1.0 + rival)


def shown(rate: float, low: float, high: float) -> str:
    """ "2.0 % [1.2–3.2]"; rates below 1 % with two digits."""
    return f"{share(rate)} % [{share(low)}–{share(high)}]"


def share(rate: float) -> str:
    """A share in percent, without the sign."""
    return f"{rate * 100:.1f}" if rate == 0 or rate >= 0.01 else f"{rate * 100:.2g}"


def clock(us: int) -> str:
    """Time of day in UTC."""
    return f"{datetime.fromtimestamp(us / 1e6, UTC):%H:%M} UTC"


def _what(suspect: Suspect, name: str, direction: str, rate: str, met: Scope) -> str:
    of = f" ({met.only} only)" if met.only else ""
    src, _, dst = name.partition(">")
    if suspect.family.direction == "pair":
        if direction == "pair":
            return f"{src} → {dst} loses {rate}{of}"
        return f"between {' and '.join(sorted((src, dst)))}, {rate} is lost{of}"
    own = suspect.family.what in ("rack", "zone")
    verbs = {
        "ingress": "of what comes into it" if own else "of what it receives",
        "egress": "of what goes out of it" if own else "of what it sends",
        "both": "of what it exchanges",
    }
    if suspect.family.what == "size":
        return f"packets of {name.removeprefix('size ')} size lose {rate} everywhere"
    return f"{name} loses {rate} {verbs.get(direction, 'everywhere')}{of}"


def _reach(seen: Evidence, suspect: Suspect, met: Scope) -> str:
    lines = suspect.lines[seen.age[suspect.lines] == 0]
    lossy = lines[seen.lost[lines] > 0]
    protocols = ", ".join(sorted({seen.kinds[int(k)][0].upper() for k in np.unique(seen.kind[lossy])})) or "nothing now"
    pooled = f", taken over {suspect.rounds} rounds" if suspect.rounds > 1 else ""
    tuples = (
        f", always the same source ports (about {met.share * 100:.0f} %) and no others: it depends on the 5-tuple"
        if met.tuples
        else ""
    )
    if suspect.family.what == "pair":
        return f"{protocols}, one pair only{tuples}{pooled}"
    ends = seen.dst if suspect.family.direction == "egress" else seen.src
    count = f"{len(np.unique(ends[lossy]))} of {len(np.unique(ends[lines]))} peers"
    return f"{count}, {protocols}{tuples}{pooled}"


def _not_met(seen: Evidence, suspect: Suspect, met: Scope, untouched: Sequence[str], clear: bool) -> str:
    parts = [p for p in (_way_back(seen, suspect, clear), *(f"not {words}" for words in untouched)) if p]
    if suspect.rival is not None:
        rival = name_of(seen, suspect.rival.family, int(suspect.rival.lines[0]))
        parts.append(f"not told apart yet from {rival} ({suspect.rival.family.direction})")
    return "".join(f"; {part}" for part in parts)


def _way_back(seen: Evidence, suspect: Suspect, clear: bool) -> str:
    if suspect.family.back is None:
        return ""
    back = suspect.back[seen.age[suspect.back] < suspect.rounds]
    tried, lost = rate_over(seen, back, suspect.rounds)
    if not tried:
        return "nothing measured the other way"
    place = suspect.family.what in ("rack", "zone")
    other = {
        "ingress": "what goes out of it" if place else "what it sends",
        "egress": "what comes into it" if place else "what it receives",
    }.get(suspect.family.direction, "the other way")
    rate = f"{share(lost / tried if tried else 0.0)} %"
    if not clear:
        return f"{other}: {rate}, too close to tell the direction"
    if lost == 0:
        return f"not {other}"
    return f"{other} only {rate}" + ("" if seen.exact[back].all() else ", as lost answers do")


def evidence_query(*, suspect: Suspect, name: str, both_ends: bool, round_id: int, start_us: int) -> str:
    """A query over the views that shows what a finding rests on, worst first.

    Where both ends have counted, what a node receives is also the answers to its own requests.
    """
    where = _where(suspect, name, both_ends)
    table = (
        "v_loss_direction" if both_ends and suspect.family.what not in ("rack", "zone", "zone_pair") else "v_pair_round"
    )
    columns = (
        "layer, size, sum(requests) AS asked, sum(requests) - sum(ok) AS failed, sum(forward_sent) AS there, "
        "sum(forward_lost) AS lost_there, sum(reverse_sent) AS back, sum(reverse_lost) AS lost_back, "
        "sum(open_lost) AS lost_either_way"
        if table == "v_loss_direction"
        else "sum(n) AS requests, sum(n) - sum(ok) AS failed, sum(packets_sent) AS sent, sum(packets_lost) AS lost"
    )
    last = (
        ", layer, size ORDER BY lost_there + lost_back DESC" if table == "v_loss_direction" else " ORDER BY lost DESC"
    )
    return (
        f"SELECT src_node, {_PLACE} AS destination, proto, {columns} FROM {table} "
        f"WHERE round_at = fromUnixTimestamp64Milli({start_us // 1000}, 'UTC') AND round_id = {round_id} AND {where} "
        f"GROUP BY src_node, destination, proto{last}, failed DESC, src_node, destination"
    )


def evidence_where(*, node: str, round_id: int, start_us: int) -> str:
    """A query for what everybody got from a node in a round."""
    return (
        f"SELECT src_node, proto, layer, sum(n) AS requests, sum(ok) AS answered FROM v_pair_round WHERE round_at = "
        f"fromUnixTimestamp64Milli({start_us // 1000}, 'UTC') AND round_id = {round_id} AND dst_node = {_text(node)} "
        "GROUP BY src_node, proto, layer ORDER BY src_node, proto, layer"
    )


_PLACE = "if(dst_node = '', dst, dst_node)"


def _where(suspect: Suspect, name: str, both_ends: bool) -> str:
    what, direction = suspect.family.what, suspect.family.direction
    if what == "layer":
        proto, _, layer = name.partition("/")
        return f"proto = {_text(proto)} AND layer = {_text(layer)}"
    if what == "size":
        word = name.removeprefix("size ").removesuffix(" bytes")
        return f"size = {({'full': '65535', 'smallest': '0'}).get(word, word)}"
    ends = [_text(part.removeprefix(f"{what.removesuffix('_pair')} ")) for part in name.split(">")]
    src, dst = ("src_node", _PLACE) if what in ("node", "pair") else (f"src_{_kind(what)}", f"dst_{_kind(what)}")
    if len(ends) == 2:
        there, back = (f"{src} = {a} AND {dst} = {b}" for a, b in (ends, ends[::-1]))
        return f"({there} OR {back})" if both_ends else there
    if both_ends:
        return f"{ends[0]} IN ({src}, {dst})" + ("" if what == "node" else f" AND {src} != {dst}")
    return f"{dst if direction == 'ingress' else src} = {ends[0]}"


def _kind(what: str) -> str:
    return what.removesuffix("_pair")


def _text(value: str) -> str:
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"
