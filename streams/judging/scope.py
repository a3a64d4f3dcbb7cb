"""How far a fault reaches: all that an element carries, or one protocol, layer or packet size of it, or some 5-tuples.

A place is named first; then its lines are split by each property, and the split is believed where it explains the
losses much better than one rate for all (a likelihood ratio again). Sizes have an order: a hole in the MTU takes all
from some size up.

Tuples: of a fault that drops some 5-tuples, a source port loses all its packets or none; of a random one every port
loses some. Both are written as likelihoods over the ports that lost anything and those that did not. Where tuples are
lost whole, a split counts ports and not packets: three ports that are gone are three observations, not sixty.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from streams.judging import stats
from streams.judging.cover import FLOOR, Suspect
from streams.judging.elements import size_words
from streams.judging.evidence import Evidence, Floats, Indexes, Masks, Ports

# Gain in nats that a split must bring.
SPLIT = 6.0
# The rest must lose less than this share of what the part loses.
CLEAN = 0.2
TUPLE_GAIN = 6.0
# What a dropped tuple loses, allowing for a packet that was on its way before; and packets that a port must have had.
DEAD = 0.98
LEAST_TUPLES = 3
# Layers that people have a word for.
_LAYERS = {"host": "host network"}


@dataclass(frozen=True, kw_only=True)
class Scope:
    """`name` is empty where all is met; `only` and `not_met` are words for a person; counts are of what is met.

    `tuples` says that some 5-tuples lose everything and the others nothing; `share` is how many of them.
    """

    name: str
    only: str
    not_met: str
    tried: float
    lost: float
    tuples: bool = False
    share: float = 0.0


def scope(seen: Evidence, suspect: Suspect) -> Scope:
    """What part of the suspect's traffic is met."""
    lines = suspect.lines[seen.age[suspect.lines] < suspect.rounds]
    scale = 1.0 + sum(seen.before[: suspect.rounds - 1])
    whole = Scope(name="", only="", not_met="", tried=suspect.tried, lost=suspect.lost)
    best, gain, inside = whole, SPLIT, lines
    tuples = tuple_gain(seen, lines)
    if suspect.family.what != "pair" or suspect.rounds == 1:
        for part in _parts(seen, lines, suspect):
            tried, lost = _counts(seen, part.inside, scale)
            rest_tried, rest_lost = _counts(seen, part.outside, scale)
            if tuples[0] > TUPLE_GAIN:
                split = _gain(*_ports_lost(seen, part.inside), *_ports_lost(seen, part.outside))
            else:
                split = _gain(tried, lost, rest_tried, rest_lost)
            cleaner = rest_tried > 0 and rest_lost / rest_tried < CLEAN * lost / max(tried, 1.0)
            if split > gain and cleaner:
                gain, inside = split, part.inside
                best = Scope(name=part.name, only=part.only, not_met=part.not_met, tried=tried, lost=lost)
    return _with_tuples(best, *(tuples if inside is lines else tuple_gain(seen, inside)))


def spared(seen: Evidence, suspect: Suspect, met: Scope) -> tuple[str, ...]:
    """What of the suspect's traffic was measured and is not met: protocols, layers, sizes, the other 5-tuples.

    A part is spared where even the upper bound of its loss is below half of the whole's; too few packets say nothing.
    """
    lines = suspect.lines[seen.age[suspect.lines] < suspect.rounds]
    scale = 1.0 + sum(seen.before[: suspect.rounds - 1])
    rate = met.lost / max(met.tried, 1.0)
    found = [met.not_met] if met.not_met else []
    for index in (0, 1) if suspect.family.what != "layer" else ():
        kinds = {int(k): seen.kinds[int(k)][index] for k in np.unique(seen.kind[lines])}
        for name in sorted(set(kinds.values())) if len(set(kinds.values())) > 1 else ():
            part = lines[np.isin(seen.kind[lines], [k for k, n in kinds.items() if n == name])]
            word = _kind_word(index, name)
            if word not in met.not_met.split(", ") and _is_clear(seen, part, scale, rate):
                found.append(word)
    sizes = sorted({seen.sizes[int(s)] for s in np.unique(seen.size[lines])})
    for size in sizes if len(sizes) > 1 and suspect.family.what != "size" and not met.not_met else ():
        part = lines[np.asarray(seen.sizes, dtype=np.int64)[seen.size[lines]] == size]
        if _is_clear(seen, part, scale, rate):
            found.append(f"packets of {size_words(size)}" + (" size" if size in (0, 0xFFFF) else ""))
    return (*found, *(("the other 5-tuples",) if met.tuples else ()))


def _is_clear(seen: Evidence, lines: Indexes, scale: float, rate: float) -> bool:
    tried, lost = _counts(seen, lines, scale)
    return tried > 0 and stats.wilson(hits=round(lost), trials=max(1, round(tried)))[1] < rate / 2


@dataclass(frozen=True, kw_only=True)
class _Part:
    name: str
    only: str
    not_met: str
    inside: Indexes
    outside: Indexes


def _parts(seen: Evidence, lines: Indexes, suspect: Suspect) -> Iterator[_Part]:
    if suspect.family.what != "size":
        yield from _by_size(seen, lines)
    if suspect.family.what == "layer":
        return
    kinds = np.unique(seen.kind[lines])
    for index in (0, 1):
        of_kind = {int(k): seen.kinds[int(k)][index] for k in kinds}
        names = sorted(set(of_kind.values()))
        for name in names if len(names) > 1 else ():
            mine = np.isin(seen.kind[lines], [k for k, n in of_kind.items() if n == name])
            others = ", ".join(_kind_word(index, n) for n in names if n != name)
            yield _Part(
                name=name, only=_kind_word(index, name), not_met=others, inside=lines[mine], outside=lines[~mine]
            )


def _kind_word(index: int, name: str) -> str:
    return name.upper() if index == 0 else _LAYERS.get(name, f"layer {name}")


def _by_size(seen: Evidence, lines: Indexes) -> Iterator[_Part]:
    bytes_ = np.asarray(seen.sizes, dtype=np.int64)[seen.size[lines]]
    sizes = [int(s) for s in np.unique(bytes_)]
    for size in sizes[1:]:
        mine = bytes_ >= size
        more = "" if size == sizes[-1] else " or more"
        yield _Part(
            name=f"size {size_words(size)}",
            only=f"packets of {size_words(size)} size{more}" if size == 0xFFFF else f"packets of {size} bytes{more}",
            not_met="smaller packets",
            inside=lines[mine],
            outside=lines[~mine],
        )


def _counts(seen: Evidence, lines: Indexes, scale: float) -> tuple[float, float]:
    lost = float(seen.lost[lines].sum())
    return max(float(seen.tried[lines].sum()) * scale, lost), lost


def _ports_lost(seen: Evidence, lines: Indexes) -> tuple[float, float]:
    """(source ports used, those that lost half of their packets or more) on the way there of these lines."""
    now, mine = _ports(seen, lines)
    dead = float(_dead(*_port_packets(seen.ports, mine)).sum())
    return max(float(seen.ports.used[now].sum()), dead), dead


def _ports(seen: Evidence, lines: Indexes) -> tuple[Indexes, Masks]:
    """(those of the lines that have source ports, which of the ports that lost anything are theirs)."""
    ports = seen.ports
    now = lines[lines < len(ports.used)]
    now = now[ports.used[now] > 0]
    return now, np.isin(ports.bad_line, now)


def _port_packets(ports: Ports, mine: Masks) -> tuple[Floats, Floats]:
    """(packets lost, packets tried) of these ports that lost anything."""
    bad_lost = ports.bad_lost[mine]
    return bad_lost, np.maximum(np.maximum(ports.each[ports.bad_line[mine]], 1.0), bad_lost)


def _dead(lost: Floats, tried: Floats) -> Masks:
    return np.asarray(lost >= 0.5 * tried, dtype=bool)


def _gain(tried: float, lost: float, rest_tried: float, rest_lost: float) -> float:
    """Nats by which two rates are likelier than one for all."""
    apart = _likelihood(lost, tried) + _likelihood(rest_lost, rest_tried)
    return apart - _likelihood(lost + rest_lost, tried + rest_tried)


def _likelihood(lost: float, tried: float) -> float:
    """Of the counts at their own rate, no better than FLOOR."""
    if tried <= 0:
        return 0.0
    rate = min(max(lost / tried, FLOOR), 1 - 1e-9)
    return float(lost * np.log(rate) + (tried - lost) * np.log1p(-rate))


def _with_tuples(found: Scope, gain: float, share: float) -> Scope:
    if gain <= TUPLE_GAIN:
        return found
    name = f"{found.name} tuples".strip()
    return Scope(
        name=name,
        only=found.only,
        not_met=found.not_met,
        tried=found.tried,
        lost=found.lost,
        tuples=True,
        share=share,
    )


def tuple_gain(seen: Evidence, lines: Indexes) -> tuple[float, float]:
    """(nats by which "some ports lose all, the others nothing" is likelier than one rate; share of ports that do)."""
    ports = seen.ports
    now, mine = _ports(seen, lines)
    if int(mine.sum()) < LEAST_TUPLES:
        return 0.0, 0.0
    bad_lost, each = _port_packets(ports, mine)
    used = float(ports.used[now].sum())
    tried = float((ports.used[now] * ports.each[now]).sum()) - float((ports.each[ports.bad_line[mine]]).sum())
    tried = max(tried, 0.0) + float(each.sum())
    rate = min(max(float(bad_lost.sum()) / max(tried, 1.0), FLOOR), 1 - 1e-9)
    dead = _dead(bad_lost, each)
    share = float(dead.sum()) / max(used, 1.0)
    if not dead.any() or share > 0.5:
        return 0.0, share
    even = _bernoulli(bad_lost, each, rate).sum() + (tried - each.sum()) * np.log1p(-rate)
    mixed = np.where(dead, np.log(share) + _bernoulli(bad_lost, each, DEAD), _bernoulli(bad_lost, each, FLOOR))
    total = mixed.sum() + (tried - each.sum()) * np.log1p(-FLOOR) + (used - dead.sum()) * np.log1p(-share)
    return float(total - even), share


def _bernoulli(lost: Floats, tried: Floats, rate: float) -> Floats:
    return np.asarray(lost * np.log(rate) + (tried - lost) * np.log1p(-rate), dtype=np.float64)
