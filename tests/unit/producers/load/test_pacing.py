"""What is due when: exact counts, even spread, one order; and the account of lateness."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.load.pacing import Lateness, agent_offset, due_order, gap_us, late_limit_us

REQUESTS = st.lists(st.integers(min_value=0, max_value=30), min_size=1, max_size=12)


@given(requests=REQUESTS, rate=st.floats(min_value=0.01, max_value=50_000), offset=st.floats(0, 0.999))
def test_every_request_is_due_once_in_order_of_time(requests: list[int], rate: float, offset: float) -> None:
    due = list(due_order(requests=requests, rate=rate, duration_s=10, offset=offset))
    assert [seq for seq, _, _ in due] == list(range(sum(requests)))
    times = [planned_us for _, _, planned_us in due]
    assert times == sorted(times)
    for stream, count in enumerate(requests):
        assert sum(1 for _, s, _ in due if s == stream) == count


@given(streams=st.integers(1, 50), rate=st.floats(min_value=0.1, max_value=10_000))
def test_streams_interleave_evenly(streams: int, rate: float) -> None:
    times = [t for _, _, t in due_order(requests=[4] * streams, rate=rate, duration_s=1000)]
    expected_us = gap_us(streams=streams, rate=rate, duration_s=1000)
    gaps = [b - a for a, b in pairwise(times)]
    assert all(abs(gap - expected_us) <= 1.01 for gap in gaps)


def test_a_stream_keeps_its_rate_without_drift() -> None:
    times = [t for _, s, t in due_order(requests=[30_000, 30_000], rate=3000, duration_s=10) if s == 0]
    assert times[0] == 0
    assert times[3000] == 1_000_000
    assert times[29_997] == 9_999_000


def test_one_request_in_a_short_round_is_spread_over_the_round() -> None:
    times = [t for _, _, t in due_order(requests=[1] * 10, rate=0.1, duration_s=1)]
    assert times == [100_000 * i for i in range(10)]


def test_agents_send_at_different_moments_of_the_gap() -> None:
    offsets = {agent_offset(f"node-{i}") for i in range(100)}
    assert len(offsets) == 100
    assert all(0 <= offset < 1 for offset in offsets)
    assert agent_offset("node-1") == agent_offset("node-1")


def test_lateness_never_outlasts_a_timeout() -> None:
    assert late_limit_us(limit_us=1_000_000, timeout_us=200_000) == 200_000
    assert late_limit_us(limit_us=1_000_000, timeout_us=5_000_000) == 1_000_000


def test_lateness_keeps_its_quantiles_when_the_sample_is_thinned() -> None:
    lateness = Lateness()
    values = [int(random.Random(1).expovariate(1 / 1000)) + i % 7 for i in range(1000)] * 400
    for value in values:
        lateness.add(value)
    p50, p99 = lateness.quantiles(0.5, 0.99)
    ordered = sorted(values)
    assert lateness.max_us == ordered[-1]
    assert p50 == pytest.approx(ordered[len(ordered) // 2], rel=0.05)
    assert p99 == pytest.approx(ordered[int(len(ordered) * 0.99)], rel=0.05)


def test_nothing_sent_has_no_lateness() -> None:
    assert Lateness().quantiles(0.5, 0.99) == (0, 0)
