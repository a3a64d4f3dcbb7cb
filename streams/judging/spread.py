"""How losses lie within an element: on all of it, as its own fault would lay them, or on one line or place. Pure.

Losses come in bursts, and a burst on one pair is no fault of all that the pair touches. So a line counts for a wider
suspect with no more than it would lose by that suspect's own rate, twice its deviation above. What is everywhere (a
layer, a packet size) has no place of its own: a pair counts there as a line does elsewhere, and it must be seen still
when the places that lose most, one that sends and one that receives, are left out.
"""

import numpy as np

from streams.judging.elements import Family, sums
from streams.judging.evidence import Evidence, Floats, Indexes
from streams.judging.likelihood import at_most, gains

# Elements that are in all places alike.
EVERYWHERE = ("layer", "size")
# Packets that all which a line lost beyond its share counts for. Three bursts at a node in one round must not name it.
BEYOND = 0.25


def counted(seen: Evidence, family: Family, idx: Indexes, member: Indexes, lost: Floats, tried: Floats) -> Floats:
    """Losses of lines `idx` as they count for their element (`member`), whose counts are `lost` of `tried`.

    What is beyond counts for BEYOND: two of ten may well be chance, four of ten are no more certain than two.
    """
    if family.what in EVERYWHERE:
        return _by_pair(seen, idx, member, lost, tried)
    return _winsorised(seen.lost[idx], seen.own[idx], member, lost, tried)


def _winsorised(mine: Floats, own: Floats, member: Indexes, lost: Floats, tried: Floats) -> Floats:
    told, most = lost, mine
    for _ in range(3):
        most = at_most(own * (told / tried)[member])
        told = sums(member, np.minimum(mine, most), len(lost))
    return np.asarray(np.minimum(mine, most) + BEYOND * (mine > most), dtype=np.float64)


def _by_pair(seen: Evidence, idx: Indexes, member: Indexes, lost: Floats, tried: Floats) -> Floats:
    """The same with all lines between two nodes in one round as one; each has its part of what counts."""
    width = len(seen.nodes)
    low, high = np.minimum(seen.src[idx], seen.dst[idx]), np.maximum(seen.src[idx], seen.dst[idx])
    rounds = 1 + int(seen.age.max())
    codes = ((member * rounds + seen.age[idx]) * width + low) * width + high
    pairs, pair = np.unique(codes, return_inverse=True)
    mine, own = sums(pair, seen.lost[idx], len(pairs)), sums(pair, seen.own[idx], len(pairs))
    told = _winsorised(mine, own, pairs // (rounds * width * width), lost, tried)
    return np.asarray(seen.lost[idx] * (told / np.maximum(mine, 1.0))[pair], dtype=np.float64)


def elsewhere(
    seen: Evidence, family: Family, *, lossy: Indexes, told: Floats, element: int, tried: float, rest: float
) -> float:
    """What an element gains without the node that sends and the one that receives most of its losses, in nats.

    `told` are the losses of lines `lossy` as they count. An end where only one node is measured is not left out:
    nothing could be seen without it.
    """
    lines = np.nonzero(family.group(np.arange(len(seen))) == element)[0]
    left, share = float(told.sum()), 1.0
    for ends in (seen.src, seen.dst):
        places = len(np.unique(ends[lines]))
        if places > 1:
            left -= float(np.bincount(ends[lossy], weights=told).max())
            share -= 1 / places
    tried_there = np.array([max(tried * share, 1.0)])
    return float(gains(np.array([max(left, 0.0)]), tried_there, np.array([rest]))[0])


def distinct(member: Indexes, ends: Indexes, count: int) -> Indexes:
    """How many different ends the lines of each element have."""
    width = int(ends.max()) + 1
    return np.bincount(np.unique(member * width + ends) // width, minlength=count)
