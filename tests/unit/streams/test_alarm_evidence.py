"""The false-alarm rate is kept by arithmetic, not by hope: exact sums and a long row of sound rounds."""

import math
import random

import pytest

from streams.alarm_evidence import (
    BACKGROUND,
    FALSE_ALARM_ROUNDS,
    Evidence,
    found,
    is_enough,
    log_evidence,
    missed,
    threshold,
)


@pytest.mark.parametrize("sent", [20, 200, 1000])
def test_the_mean_over_a_sound_element_is_one(sent: int) -> None:
    """The whole binomial distribution at the background rate, summed up."""
    total = 0.0
    for lost in range(sent + 1):
        log_p = (
            math.lgamma(sent + 1)
            - math.lgamma(lost + 1)
            - math.lgamma(sent - lost + 1)
            + lost * math.log(BACKGROUND)
            + (sent - lost) * math.log1p(-BACKGROUND)
        )
        total += math.exp(log_p + log_evidence(lost=lost, sent=sent))
    assert total == pytest.approx(1.0)


def test_a_rounds_factor_stays_a_fair_bet_whatever_the_judge_shows() -> None:
    """Shown only where something was lost, which is the worst that a choice can do; the mean stays at most one."""
    sent, shown, total = 200, 0.0, 0.0
    for lost in range(30):
        chance = math.comb(sent, lost) * BACKGROUND**lost * (1 - BACKGROUND) ** (sent - lost)
        if lost >= 1:
            shown += chance
            total += chance * math.exp(found(Evidence(), number=1, rounds=1, lost=lost, sent=sent).total)
    total += (1 - shown) * 0.5
    assert total <= 1.0


def test_sound_elements_raise_no_alarm_in_many_rounds() -> None:
    """200 nodes, 2,000 rounds each, ten times the background loss in one of a hundred: nothing passes the bound."""
    random.seed(20261121)
    for _ in range(20):
        evidence = Evidence()
        for number in range(1, 2_001):
            rate = BACKGROUND * (10 if random.random() < 0.01 else 1)
            lost = sum(random.random() < rate for _ in range(2)) if random.random() < 0.1 else 0
            evidence = (
                found(evidence, number=number, rounds=1, lost=lost, sent=200)
                if lost
                else missed(evidence, number=number)
            )
            assert not is_enough(evidence, nodes=200, direction="ingress")


def test_two_rounds_are_enough_for_two_percent_among_five_thousand_nodes() -> None:
    evidence = found(Evidence(), number=1, rounds=1, lost=4, sent=200)
    assert not is_enough(evidence, nodes=5_000, direction="ingress")
    assert is_enough(found(evidence, number=2, rounds=1, lost=4, sent=200), nodes=5_000, direction="ingress")


def test_windows_that_overlap_are_not_counted_twice() -> None:
    first = found(Evidence(), number=3, rounds=3, lost=6, sent=600)
    again = found(first, number=4, rounds=3, lost=6, sent=600)
    assert again.total == pytest.approx(first.total)
    apart = found(first, number=6, rounds=3, lost=6, sent=600)
    assert apart.total == pytest.approx(2 * first.total)


def test_the_bound_grows_with_the_elements_and_the_rounds() -> None:
    assert math.exp(threshold(nodes=10, direction="ingress")) == pytest.approx(90 * FALSE_ALARM_ROUNDS)
    assert threshold(nodes=100, direction="pair") > threshold(nodes=100, direction="ingress")
