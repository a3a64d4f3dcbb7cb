import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.judging import stats


# Newcombe (1998), Statistics in Medicine 17, table I: Wilson without continuity correction.
@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(hits: int, trials: int, low: float, high: float) -> None:
    assert stats.wilson(hits=hits, trials=trials) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_nothing_tried_says_nothing() -> None:
    assert stats.wilson(hits=0, trials=0) == (0.0, 1.0)
    assert stats.loss(sent=0, lost=0).rate == 0.0


def test_no_loss_in_30_000_packets_is_no_proof_of_less_than_one_in_ten_thousand() -> None:
    low, high = stats.wilson(hits=0, trials=30_000)
    assert low == 0.0
    assert 1e-4 < high < 1.4e-4


@given(st.integers(1, 10**9), st.data())
def test_the_interval_holds_the_share_and_stays_within_0_and_1(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    low, high = stats.wilson(hits=hits, trials=trials)
    assert 0.0 <= low <= hits / trials + 1e-12
    assert hits / trials - 1e-12 <= high <= 1.0


def test_more_lost_than_sent_counts_as_all() -> None:
    assert stats.loss(sent=3, lost=5).rate == 1.0


@given(st.integers(1, 2**32 - 1))
def test_a_delay_lies_within_the_bounds_of_its_bucket(us: int) -> None:
    low, high = stats.bounds(stats.bucket(us))
    assert low * (1 - 1e-12) <= us < high * (1 + 1e-12)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 10_000_000), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_is_within_a_bucket_of_the_exact_one(values: list[int], q: float) -> None:
    histogram: dict[int, int] = {}
    for value in values:
        histogram[stats.bucket(value)] = histogram.get(stats.bucket(value), 0) + 1
    found = stats.quantile(histogram, q)
    exact = float(np.quantile(values, q, method="inverted_cdf"))
    assert found is not None
    assert abs(math.log2(found / exact)) <= 1 / stats.PER_OCTAVE + 1e-9


def test_quantiles_of_merged_histograms_are_those_of_all_values() -> None:
    assert stats.merged([{8: 1, 16: 2}, {16: 3, 24: 4}]) == {8: 1, 16: 5, 24: 4}
    assert stats.quantile({}, 0.5) is None
