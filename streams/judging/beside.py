"""What lines that something named accounts for still say of another suspect: its loss on top of the other's. Pure.

A node in a zone that loses half its ways to one other zone is still seen on these ways: where the pair of zones loses
q and the node p, 1-(1-p)(1-q) is lost. So the lines of a named element are kept with the rate they were found to have
as their background. Only of wide elements (a rack, a zone, a pair of zones), whose own rate does not hang on the
suspect; by protocol, layer and size, and by round, since a fault may not have been there in the round before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from streams.judging.elements import Family, sums
from streams.judging.evidence import Evidence, Floats, Indexes
from streams.judging.likelihood import at_most

WIDE = ("rack", "zone", "zone_pair")
# Suspects that are told by what is beside a named one as well.
TOLD = ("node", "rack", "zone")
LEAST_RATE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Lines accounted for that lose `rate` in the round of an `age`: packets by family and group, and what lost some.

    `scale` makes packets of that round of those of the round at hand.
    """

    rate: float
    age: int
    scale: float
    tried: Sequence[Floats]
    lossy: Indexes


def beside(seen: Evidence, families: Sequence[Family], lines: Indexes) -> Iterator[Beside]:
    """Lines of one element, one way, by kind, size and round; rounds whose lines were not all kept say nothing."""
    cells = seen.kind[lines] * len(seen.sizes) + seen.size[lines]
    for cell in np.unique(cells):
        mine = lines[cells == cell]
        now = mine[seen.age[mine] == 0]
        packets = float(seen.tried[now].sum())
        if not packets:
            continue
        tried = [
            sums(family.group(now), seen.tried[now], len(family.tried)) if family.what in TOLD else np.zeros(0)
            for family in families
        ]
        for age, scale in enumerate((1.0, *seen.before)):
            if age and seen.forgot[age - 1]:
                continue
            lossy = mine[(seen.age[mine] == age) & (seen.lost[mine] > 0)]
            rate = float(seen.lost[lossy].sum()) / max(packets * scale, 1.0)
            yield Beside(
                rate=min(max(rate, LEAST_RATE), 0.99),
                age=age,
                scale=scale,
                tried=tried,
                lossy=lossy,
            )


def gained(
    seen: Evidence, parts: Sequence[Beside], *, number: int, family: Family, groups: Indexes, rate: Floats, rounds: int
) -> tuple[Floats, Floats]:
    """Nats for (or against) each of `groups` of family `number` losing `rate` on top of what lines beside it lose, and
    how many packets of each went there."""
    total, packets = np.zeros(len(groups)), np.zeros(len(groups))
    for part in parts if family.what in TOLD else ():
        if part.age >= rounds:
            continue
        tried = part.tried[number][groups] * part.scale
        group = family.group(part.lossy)
        of_group = np.zeros(len(family.tried))
        of_group[groups] = rate
        mean = seen.own[part.lossy] * (part.rate + np.where(group >= 0, of_group[group], 0.0))
        lost = sums(group, np.minimum(seen.lost[part.lossy], at_most(mean)), len(family.tried))[groups]
        kept = np.maximum(tried - lost, 0.0)
        total += lost * np.log1p(rate * (1 - part.rate) / part.rate) + kept * np.log1p(-rate)
        packets += tried
    return total, packets
