"""What the lines of a wide fault still say of other suspects, and what is everywhere."""

from dataclasses import replace

import numpy as np
import pytest

from streams.judging.beside import beside, gained
from streams.judging.cover import cover
from streams.judging.directions import directions
from streams.judging.elements import families
from streams.judging.evidence import Evidence, evidence
from tests.unit.streams.judging.test_places import mesh, zone_of


def lossy_pair_of_zones(more: float) -> Evidence:
    """What zone z0 sends to zone z2 loses 2 %; what node-1 of z0 sends loses `more` on top."""

    def lose(src: str, dst: str, size: int) -> float:
        zones = 0.02 if (zone_of(src), zone_of(dst)) == (0, 2) else 1e-5
        return 1 - (1 - zones) * (1 - (more if src == "node-1" else 0.0))

    pairs = mesh(lose, each=200)
    return evidence(pairs, directions(pairs))


def nats_beside(seen: Evidence) -> dict[str, float]:
    """For each node of zone z0, losing 3 % of all it sends, told by its lines to zone z2 alone."""
    every = families(seen)
    between = next(f for f in every if f.what == "zone_pair")
    number = next(i for i, f in enumerate(every) if (f.what, f.direction) == ("node", "egress"))
    lines = np.nonzero(between.group(np.arange(len(seen))) == between.named("zone z0>zone z2"))[0]
    parts = list(beside(seen, every, lines))
    groups = np.array([i for i, name in enumerate(seen.nodes) if zone_of(name) == 0])
    rate = np.full(len(groups), 0.03)
    more, packets = gained(seen, parts, number=number, family=every[number], groups=groups, rate=rate, rounds=1)
    assert packets.min() > 0
    return dict(zip([seen.nodes[i] for i in groups], more.tolist(), strict=True))


def test_lines_that_something_else_accounts_for_still_tell_who_loses_more_on_them() -> None:
    told = nats_beside(lossy_pair_of_zones(0.03))
    assert told.pop("node-1") > 3.0
    assert max(told.values()) < 0.0


def test_they_speak_for_nobody_where_nobody_loses_more() -> None:
    assert max(nats_beside(lossy_pair_of_zones(0.0)).values()) < 0.0


def test_a_round_whose_losses_were_not_all_kept_says_nothing_beside() -> None:
    seen = lossy_pair_of_zones(0.0)
    every, lines = families(seen), np.arange(len(seen))
    known = replace(seen, before=(1.0, 1.0), forgot=(False, True))
    assert {part.age for part in beside(known, every, lines)} == {0, 1}


@pytest.mark.parametrize("more", [0.0, 0.03])
def test_both_faults_are_named_and_nobody_else(more: float) -> None:
    named, _, along = cover(lossy_pair_of_zones(more))
    assert [s.family.what for s in named] == ["zone_pair", "node"][: 1 + bool(more)]
    assert len(along) == len(named)
