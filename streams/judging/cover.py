"""The fewest elements of the network that explain the losses: a greedy likelihood-ratio cover. Pure.

Method (Flock, Harsh et al. 2023): every element is a suspect over a set of lines. Suspecting it of losing a share p1
of the T packets of which L were lost, instead of the background p0, gains L·ln(p1/p0) + (T-L)·ln((1-p1)/(1-p0)). The
suspect that gains most is named, its lines count as explained, and so on while the gain is above the price.

Over rounds: a fault may have begun in this round or in one of those remembered, so each suspect is taken over the
window that gains most. One that this round itself speaks against (its losses are likelier without it) is over.

Losses come in bursts, and a burst on one line is no fault of all that the line touches. So a line counts for a wider
suspect with no more than it would lose by that suspect's own rate, twice its deviation above; and a single line brings
BURST nats a round at most, whatever it lost.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from streams.judging import stats
from streams.judging.beside import WIDE, Beside, beside, gained
from streams.judging.elements import Family, families, pairs_of, sums
from streams.judging.evidence import Evidence, Floats, Indexes, Masks
from streams.judging.likelihood import gains, possible, ratio
from streams.judging.spread import EVERYWHERE, counted, distinct, elsewhere

# What a sound network may lose without being suspected.
FLOOR = 1e-4
# Gain in nats below which nothing is named, besides CROWD of the logarithm of how many suspects the family has. Were it
# all of it, the more nodes there were the surer of each one had to be, for the same loss of it.
PRICE = 10.0
CROWD = 0.75
# What it is less for who has so much of its packets beside a rack, a zone or a pair of zones that was named. The price
# keeps some ten thousand sound rounds clean; rounds in which a wide fault is found are few.
FURTHER = 2.5
BESIDE_SHARE = 0.2
# What the choice among windows costs, in nats.
ONSET = 0.5
# What one that stood in the round before is let off: a finding comes hard and goes less easily.
STANDING = 5.0
# Gain in nats by which a round's own rate may beat that of the window, before they are no longer taken together.
UNLIKE = 8.0
# And the factor: what a place tried in rounds before is reckoned from this one's, which may be off by a fifth.
UNLIKE_TIMES = 2.0
LEAST_LOST = 3
# A named element's lower bound must be this many times the loss of the rest.
ABOVE_REST = 2.0
MAX_NAMED = 5
BURST = 15.0
# Counts of both ends mix the two ways up by less than this and the loss itself (what is sent again is lost again, and
# TCP then cannot tell whose it was): what the other way loses beyond it is a fault of its own.
ECHO_SHARE = 0.1
# Gain in nats that two directions which lose alike exceed once in twenty times (half of chi-square's 95 % point).
DIRECTION_GAIN = 1.92
# Odds, in nats, under which a suspect is not told from its rival.
RIVAL = 2.3


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """An element with the round's and earlier lines that it covers, and what suspecting it gains.

    `tried` and `lost` are of the `rounds` it is taken over, this one and those before. `rival` is the element of
    another family that explains nearly as much of the same losses, None where there is none.
    """

    family: Family
    lines: Indexes
    back: Indexes
    tried: float
    lost: float
    gain: float
    price: float
    rest: float
    rounds: int
    rival: "Suspect | None" = None


@dataclass(kw_only=True)
class _State:
    """What is still to be explained: open lines, those of them that lost something, what each group tried."""

    seen: Evidence
    families: tuple[Family, ...]
    tried: list[Floats]
    # By family, the elements that stood in the round before.
    stood: list[Indexes]
    open: Masks
    lossy: Indexes
    # Lines of what was named that still say something of others.
    beside: list[Beside] = field(default_factory=list)


def cover(
    seen: Evidence, *, standing: Collection[tuple[str, str]] = (), most: int = MAX_NAMED
) -> tuple[list[Suspect], Indexes, list[Indexes]]:
    """(suspects named, the one that explains most first; lossy lines that stay unexplained; those explained along with
    each suspect on its way back).

    `standing` are (element, direction) of the round before.
    """
    lossy = np.nonzero(seen.lost > 0)[0]
    if not len(lossy):
        return [], lossy, []
    everything = (pairs_of(seen, lossy), *families(seen))
    state = _State(
        seen=seen,
        families=everything,
        tried=[f.tried for f in everything],
        stood=[_stood(f, standing) for f in everything],
        open=np.ones(len(seen), dtype=bool),
        lossy=lossy,
    )
    named: list[Suspect] = []
    along: list[Indexes] = []
    while len(named) < most and len(state.lossy):
        best = _best(state)
        if best is None:
            break
        named.append(best)
        along.append(_explain(state, best))
    return named, state.lossy, along


def _stood(family: Family, standing: Collection[tuple[str, str]]) -> Indexes:
    numbers = [
        family.named(part)
        for element, direction in standing
        if direction in (family.direction, "both")
        for part in ([element] if "<>" not in element else [element.replace("<>", ">"), _turned(element)])
    ]
    return np.array(sorted(n for n in numbers if n >= 0), dtype=np.int64)


def _turned(element: str) -> str:
    return ">".join(reversed(element.split("<>")))


def _explain(state: _State, best: Suspect) -> Indexes:
    """Close the suspect's lines; returns those of its way back that are explained along with it."""
    back = echo(state.seen, best)
    if best.family.what in WIDE:
        for lines in (best.lines, np.setdiff1d(back, best.lines)):
            state.beside += beside(state.seen, state.families, lines[state.open[lines]])
    closing = np.concatenate([best.lines, back])
    closing = np.unique(closing[state.open[closing]])
    for number, family in enumerate(state.families):
        weights = (state.seen.own if family.single else state.seen.tried)[closing]
        before = state.tried[number]
        state.tried[number] = before - sums(family.group(closing), weights, len(before))
    along = back[state.open[back]]
    state.open[closing] = False
    state.lossy = state.lossy[state.open[state.lossy]]
    return along


def background(seen: Evidence, tried: Sequence[Floats], lossy: Indexes, scale: float) -> float:
    """The loss of the unsuspected: the lesser of the median over sources and the median over destinations.

    `tried` are the packets by destination and by source node, `lossy` the lines that lost something.
    """
    medians = []
    for ends, packets in zip((seen.dst, seen.src), tried, strict=True):
        lost = sums(ends[lossy], seen.lost[lossy], len(seen.nodes))
        rates = np.sort((lost / np.maximum(packets * scale, 1.0))[packets > 0])
        if len(rates):
            medians.append(float(rates[(len(rates) - 1) // 2]))
    return max(FLOOR, min(medians, default=0.0))


def _best(state: _State) -> Suspect | None:
    found: list[Suspect] = []
    seen = state.seen
    pairs = min(int(state.open.sum()), len(seen.nodes) * max(1, len(seen.nodes) - 1))
    for rounds in range(1, 2 + len(seen.before)):
        lossy = state.lossy[seen.age[state.lossy] < rounds]
        if not len(lossy):
            continue
        scale = 1.0 + sum(seen.before[: rounds - 1])
        # What node ingresses tried is what all tried: every line has a destination.
        window = _Window(
            rounds=rounds,
            scale=scale,
            lossy=lossy,
            p0=background(seen, state.tried[1:3], lossy, scale),
            tried=float(state.tried[1].sum()) * scale,
            lost=float(seen.lost[lossy].sum()),
            pairs=pairs,
        )
        found += [
            suspect
            for number in range(len(state.families))
            if (suspect := _strongest(state, number, window)) is not None
        ]
    if not found:
        return None
    # Of equals the first is the narrower.
    order = {id(f): place for place, f in enumerate(state.families)}
    found.sort(key=lambda s: (-round(s.gain, 6), order[id(s.family)], s.rounds))
    return _whole(state, found[0], found[1:])


def _whole(state: _State, best: Suspect, others: Sequence[Suspect]) -> Suspect:
    """The suspect with its lines, and the rival that is hard to tell from it."""
    group, every = int(best.lines[0]), np.arange(len(state.seen))
    lines = np.nonzero(state.open & (best.family.group(every) == group))[0]
    back = best.back if best.family.back is None else np.nonzero(best.family.back(every) == group)[0]
    lost = {int(i) for i in lines[state.seen.lost[lines] > 0]}
    rival = None
    for other in others:
        if other.family is best.family or other.gain < best.gain - RIVAL:
            continue
        theirs = np.nonzero(state.open & (other.family.group(every) == int(other.lines[0])))[0]
        same = {int(i) for i in theirs[state.seen.lost[theirs] > 0]}
        if lost & same and len(theirs) != len(lines):
            rival = replace(other, lines=theirs)
            break
    return replace(best, lines=lines, back=back, rival=rival)


@dataclass(frozen=True, kw_only=True)
class _Window:
    """This round and those before it that a suspect is taken over; what was tried and lost in it in all."""

    rounds: int
    scale: float
    lossy: Indexes
    p0: float
    tried: float
    lost: float
    pairs: int


def _strongest(state: _State, number: int, window: _Window) -> Suspect | None:
    """The element of a family that gains most over a window, if it convinces; `lines` holds only its number."""
    seen, family, tried_by_group = state.seen, state.families[number], state.tried[number]
    group = family.group(window.lossy)
    idx = window.lossy[group >= 0]
    if not len(idx):
        return None
    groups, member = np.unique(group[group >= 0], return_inverse=True)
    count = len(groups)
    lost = sums(member, seen.lost[idx], count)
    tried = np.maximum(tried_by_group[groups] * (1.0 if family.single else window.scale), lost)
    rest = _rest(seen, family, groups, window, tried, lost)
    told = seen.lost[idx] if family.single else counted(seen, family, idx, member, lost, tried)
    gain = gains(sums(member, told, count), tried, rest)
    if family.single:
        most = BURST * distinct(member, seen.age[idx], count)
        # Of two that bring the most, the one that lost more still comes first.
        gain = np.where(gain > most, most + 1e-3 * (gain - most), gain)
    for ends in family.ends:
        gain = np.where(distinct(member, ends[idx], count) >= 2, gain, 0.0)
    if window.rounds > 1 and family.what in EVERYWHERE:
        # What is everywhere shows in two places in each round; else it is what a place has left behind.
        now = seen.age[idx] == 0
        for ends in family.ends if now.any() else ():
            gain = np.where(distinct(member[now], ends[idx[now]], count) >= 2, gain, 0.0)
    if window.rounds > 1:
        goes_on = _goes_on(seen, family, idx, member, tried_by_group[groups], lost / tried, rest)
        gain = np.where(goes_on, gain - ONSET, 0.0)
    suspects = window.pairs if family.single else int((tried_by_group > 0).sum())
    prices = np.full(count, PRICE + CROWD * math.log(max(1, suspects)))
    if state.beside and not family.single:
        rate = possible(lost / tried)
        more, packets = gained(
            seen, state.beside, number=number, family=family, groups=groups, rate=rate, rounds=window.rounds
        )
        prices -= FURTHER * (packets >= BESIDE_SHARE * (packets + tried))
        # What is beside another fault confirms or weakens; it names nobody by itself.
        gain = np.where(gain > prices / 2, gain + more, gain)
    prices -= STANDING * np.isin(groups, state.stood[number])
    best = int(np.argmax(gain - prices))
    price = float(prices[best])
    if gain[best] <= price or lost[best] < LEAST_LOST:
        return None
    low, _ = stats.wilson(hits=int(lost[best]), trials=int(tried[best]))
    if low <= ABOVE_REST * max(FLOOR, float(rest[best])):
        return None
    if family.what in EVERYWHERE:
        mine = member == best
        left = elsewhere(
            seen,
            family,
            lossy=idx[mine],
            told=told[mine],
            element=int(groups[best]),
            tried=float(tried[best]),
            rest=float(rest[best]),
        )
        if left <= price / 2:
            return None
    return Suspect(
        family=family,
        lines=groups[best : best + 1],
        back=groups[:0],
        tried=float(tried[best]),
        lost=float(lost[best]),
        gain=float(gain[best]),
        price=price,
        rest=float(rest[best]),
        rounds=window.rounds,
    )


def _rest(seen: Evidence, family: Family, groups: Indexes, window: _Window, tried: Floats, lost: Floats) -> Floats:
    """By element, the loss of what does not touch it (a fault may show in both its directions), `p0` at most."""
    elsewhere = window.lost - lost
    if family.back is not None:
        elsewhere = elsewhere - sums(family.back(window.lossy), seen.lost[window.lossy], len(family.tried))[groups]
    over = window.tried - tried * (1 if family.back is None else 2)
    rates = np.where(over > 0, elsewhere / np.maximum(over, 1.0), window.p0)
    return np.asarray(np.clip(rates, FLOOR, window.p0), dtype=np.float64)


def _goes_on(
    seen: Evidence, family: Family, idx: Indexes, member: Indexes, tried: Floats, p1: Floats, p0: Floats
) -> Masks:
    """Elements whose loss the round at hand bears out: at the window's rate it is likelier than without, and not much
    likelier still at a rate of its own: rounds that do not lose alike have no rate together."""
    now = seen.age[idx] == 0
    lost = sums(member[now], seen.lost[idx[now]], len(tried))
    p1, most = possible(p1), np.maximum(tried, lost)
    borne_out = (tried > 0) & (ratio(lost, most, p1, p0) > 0)
    if family.single:
        # What a pair tried is not known by round.
        return borne_out
    own = possible(lost / np.maximum(most, 1.0))
    near = (own <= UNLIKE_TIMES * p1) & (own >= p1 / UNLIKE_TIMES)
    return np.asarray(borne_out & (near | (ratio(lost, most, own, p1) < UNLIKE)), dtype=bool)


def echo(seen: Evidence, suspect: Suspect) -> Indexes:
    """What is explained along with a suspect: the other way, where it may show the same fault."""
    back = suspect.back
    if not len(back):
        return back
    if not direction_is_clear(seen, suspect):
        return back
    tried, lost = rate_over(seen, back[seen.exact[back]], suspect.rounds)
    rate = suspect.lost / suspect.tried
    most = (ECHO_SHARE + rate) * rate
    if lost / max(tried, 1.0) >= most:
        return back[~seen.exact[back]]
    return back[~np.isin(back, _own_faults(seen, suspect, most))]


def _own_faults(seen: Evidence, suspect: Suspect, most: float) -> Indexes:
    """Lines of the way back of nodes within a place that lose much more there than an echo of the place's loss."""
    if suspect.family.what not in ("rack", "zone"):
        return suspect.back[:0]
    back = suspect.back[seen.exact[suspect.back]]
    inner = (seen.src if suspect.family.direction == "ingress" else seen.dst)[back]
    mine = seen.age[back] < suspect.rounds
    count, scale = len(seen.nodes), 1.0 + sum(seen.before[: suspect.rounds - 1])
    lost = sums(inner[mine], seen.lost[back[mine]], count)
    tried = np.maximum(sums(inner[mine], seen.tried[back[mine]], count) * scale, lost)
    apart = [
        node
        for node in np.nonzero((lost >= LEAST_LOST) & (lost >= most * tried))[0]
        if stats.wilson(hits=int(lost[node]), trials=int(tried[node]))[0] > most
    ]
    return back[np.isin(inner, apart)]


def rate_over(seen: Evidence, lines: Indexes, rounds: int) -> tuple[float, float]:
    """(tried, lost) of lines over a window of rounds."""
    mine = lines[seen.age[lines] < rounds]
    lost = float(seen.lost[mine].sum())
    return max(float(seen.tried[mine].sum()) * (1.0 + sum(seen.before[: rounds - 1])), lost), lost


def direction_is_clear(seen: Evidence, suspect: Suspect) -> bool:
    """Whether it is this way that loses: counted at its both ends, or more than the way back by what can tell (TCP)."""
    here, back = suspect.lines, suspect.back
    if not len(back):
        return True
    exact = here[seen.exact[here]]
    if seen.exact[back].any() and 2 * float(seen.lost[exact].sum()) >= float(seen.lost[here].sum()):
        return True
    tried, lost = rate_over(seen, here[seen.forward[here]], suspect.rounds)
    tried_back, lost_back = rate_over(seen, back[seen.forward[back]], suspect.rounds)
    if not tried or not tried_back or lost / tried <= lost_back / tried_back:
        return False
    pooled = (lost + lost_back) / (tried + tried_back)
    gain = _likelihood(lost, tried, lost / tried) + _likelihood(lost_back, tried_back, lost_back / tried_back)
    gain -= _likelihood(lost + lost_back, tried + tried_back, pooled)
    return gain > DIRECTION_GAIN


def _likelihood(lost: float, tried: float, rate: float) -> float:
    kept = (tried - lost) * math.log1p(-rate) if rate < 1 else 0.0
    return kept + (lost * math.log(rate) if rate > 0 else 0.0)
