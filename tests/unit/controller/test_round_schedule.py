"""Schedule arithmetic: slots, lateness, skipping, scaling."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.schedule import FOR_EVER, Due, Timing, due, next_cron, timing
from controller.tasks import Task, load_tasks

S = 1_000_000
MINUTE = 60 * S


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)


def task(schedule: str, *, request: str = "{}", kind: str = "NetReach") -> Task:
    head = f"apiVersion: kdoctor.io/v1beta1\nkind: {kind}\nmetadata: {{name: a}}\n"
    return load_tasks(f"{head}spec: {{schedule: {schedule}, request: {request}}}")[0]


def simple(*, delay: int = 0, interval: int = 1, timeout: int = 1) -> Timing:
    return Timing(
        delay_us=delay * MINUTE, interval_us=interval * MINUTE, cron="", timeout_us=timeout * MINUTE, rounds=FOR_EVER
    )


def cron(expression: str, *, timeout: int = 60) -> Timing:
    return Timing(delay_us=0, interval_us=0, cron=expression, timeout_us=timeout * MINUTE, rounds=FOR_EVER)


def test_the_first_round_starts_the_delay_after_the_task_was_seen() -> None:
    seen = at("2026-01-01 10:00:30")
    assert due(timing=simple(delay=5, interval=10), first_seen_us=seen, previous_start_us=None, now_us=seen) == Due(
        at_us=at("2026-01-01 10:05:30"), skipped=0
    )


def test_the_next_round_starts_the_interval_after_the_start_before() -> None:
    start = at("2026-01-01 10:05:30")
    found = due(
        timing=simple(delay=5, interval=10), first_seen_us=0, previous_start_us=start, now_us=start + 7 * MINUTE
    )
    assert found == Due(at_us=at("2026-01-01 10:15:30"), skipped=0)


def test_a_round_still_within_its_time_starts_late() -> None:
    found = due(timing=simple(interval=10, timeout=10), first_seen_us=0, previous_start_us=0, now_us=15 * MINUTE)
    assert found == Due(at_us=10 * MINUTE, skipped=0)


def test_a_round_whose_time_is_over_is_skipped_and_counted() -> None:
    found = due(timing=simple(interval=10, timeout=2), first_seen_us=0, previous_start_us=0, now_us=35 * MINUTE)
    assert found == Due(at_us=40 * MINUTE, skipped=3)


def test_a_year_of_absence_does_not_stall_the_schedule() -> None:
    now = 365 * 24 * 60 * MINUTE + 30 * S
    found = due(timing=simple(), first_seen_us=0, previous_start_us=0, now_us=now)
    assert found.at_us <= now < found.at_us + MINUTE
    assert found.skipped == 365 * 24 * 60 - 1


@given(
    st.integers(1, 10_000),
    st.integers(1, 10_000),
    st.integers(0, 10_000),
    st.integers(0, 10**15),
    st.one_of(st.none(), st.integers(0, 10**15)),
    st.integers(0, 10**16),
)
def test_a_slot_is_on_the_grid_never_stale_and_every_slot_is_run_or_counted(
    interval: int, timeout: int, delay: int, seen_us: int, previous_us: int | None, now_us: int
) -> None:
    timeout = min(timeout, interval)
    found = due(
        timing=simple(delay=delay, interval=interval, timeout=timeout),
        first_seen_us=seen_us,
        previous_start_us=previous_us,
        now_us=now_us,
    )
    base_us = seen_us + delay * MINUTE if previous_us is None else previous_us + interval * MINUTE
    assert found.at_us == base_us + found.skipped * interval * MINUTE
    assert found.skipped >= 0
    assert now_us < found.at_us + timeout * MINUTE
    assert found.at_us <= max(base_us, now_us + interval * MINUTE)


def test_cron_starts_at_the_next_instant_after_the_task_was_seen() -> None:
    seen = at("2026-01-01 10:00:00")
    found = due(timing=cron("*/15 * * * *"), first_seen_us=seen, previous_start_us=None, now_us=seen)
    assert found == Due(at_us=at("2026-01-01 10:15:00"), skipped=0)


def test_cron_goes_on_from_the_start_before() -> None:
    start = at("2026-01-01 10:15:02")
    found = due(timing=cron("*/15 * * * *"), first_seen_us=0, previous_start_us=start, now_us=start + MINUTE)
    assert found == Due(at_us=at("2026-01-01 10:30:00"), skipped=0)


def test_cron_after_an_absence_runs_the_newest_slot_and_counts_the_others() -> None:
    found = due(
        timing=cron("*/15 * * * *"),
        first_seen_us=0,
        previous_start_us=at("2026-01-01 10:15:00"),
        now_us=at("2026-01-01 11:20:00"),
    )
    assert found == Due(at_us=at("2026-01-01 11:15:00"), skipped=3)


def test_cron_skips_a_slot_whose_time_is_over() -> None:
    found = due(
        timing=cron("0 * * * *", timeout=5),
        first_seen_us=0,
        previous_start_us=at("2026-01-01 10:00:00"),
        now_us=at("2026-01-01 12:30:00"),
    )
    assert found == Due(at_us=at("2026-01-01 13:00:00"), skipped=2)


@given(st.sampled_from(["*/5 * * * *", "0 3 * * MON", "30 6 1 * *", "0 0 29 2 *"]), st.integers(0, 2 * 10**15))
def test_cron_slots_lie_after_the_instant_asked_and_on_a_minute(expression: str, after_us: int) -> None:
    found = next_cron(expression, after_us)
    assert found > after_us
    assert found % MINUTE == 0
    assert next_cron(expression, found - 1) == found


@given(st.integers(0, 10**15), st.integers(0, 3 * 24 * 60))
def test_a_cron_slot_is_never_stale(previous_us: int, minutes: int) -> None:
    now_us = previous_us + minutes * MINUTE
    found = due(timing=cron("*/20 * * * *", timeout=7), first_seen_us=0, previous_start_us=previous_us, now_us=now_us)
    assert now_us < found.at_us + 7 * MINUTE
    assert found.at_us > previous_us


def test_timing_is_read_from_the_task() -> None:
    times = timing(task('{schedule: "5 10", roundNumber: -1}'))
    assert times == Timing(
        delay_us=5 * MINUTE, interval_us=10 * MINUTE, cron="", timeout_us=10 * MINUTE, rounds=FOR_EVER
    )


@pytest.mark.parametrize(
    ("request_", "timeout_s"),
    [("{durationInSecond: 1, perRequestTimeoutInMS: 500}", 10), ("{durationInSecond: 20}", 25.5)],
)
def test_a_short_minute_shortens_everything_but_never_the_load(request_: str, timeout_s: float) -> None:
    times = timing(task('{schedule: "1 2"}', request=request_), minute_s=5)
    assert (times.delay_us, times.interval_us) == (5 * S, 10 * S)
    assert times.timeout_us == round(timeout_s * S)


def test_a_patrol_goes_on_for_ever_at_its_interval() -> None:
    text = "apiVersion: kpatrol.io/v1beta1\nkind: NetPatrol\nmetadata: {name: a}\nspec: {intervalSecond: 10}"
    times = timing(load_tasks(text)[0], minute_s=5)
    assert (times.interval_us, times.rounds) == (10 * S, FOR_EVER)
