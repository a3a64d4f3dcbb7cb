"""Which hours and days are due, and what the job is told; without a database."""

from datetime import UTC, datetime, timedelta

import pytest

from streams.rollup import Mark, Rolled, RollUpConfig, days_due, every_s, hours_due, is_over, oldest_hour
from topics.connection import BadConfiguration

T = datetime(2026, 11, 20, 9, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def mark(t: datetime = T, rows: int = 10, value: int = 7) -> Mark:
    return Mark(t=t, rows=rows, mark=value)


def rolled(t: datetime = T, *, closed: bool = True, rows: int = 10, value: int = 7, version: int = 1) -> Rolled:
    return Rolled(t=t, closed=closed, rows=rows, mark=value, version=version)


@pytest.mark.parametrize(
    ("found", "known", "due"),
    [
        (mark(), None, True),
        (mark(), rolled(), False),
        (mark(rows=11), rolled(), True),
        (mark(value=8), rolled(), True),
        (mark(), rolled(closed=False), True),
    ],
)
def test_an_hour_is_due_when_new_changed_or_ended(found: Mark, known: Rolled | None, due: bool) -> None:
    assert bool(hours_due([found], {T: known} if known else {}, now=T + 2 * HOUR)) is due


def test_a_running_hour_is_written_again_only_when_it_changed() -> None:
    now = T + HOUR / 2
    assert hours_due([mark()], {T: rolled(closed=False)}, now=now) == []
    assert hours_due([mark(rows=11)], {T: rolled(closed=False)}, now=now) == [mark(rows=11)]


def test_an_hour_is_over_when_its_last_rows_had_time_to_come() -> None:
    assert not is_over(T, HOUR, T + HOUR + timedelta(seconds=119))
    assert is_over(T, HOUR, T + HOUR + timedelta(seconds=120))


def test_a_day_follows_its_ended_hours() -> None:
    day = T.replace(hour=0)
    hours = [rolled(version=5), rolled(T + HOUR, version=9, closed=False)]
    now = T + HOUR + HOUR / 2
    assert [d.t for d in days_due(hours, {}, now=now, first=day)] == [day]
    # The running hour alone is no reason; a newer ended one is; and so is the day's end.
    known = {day: rolled(day, closed=False, value=5)}
    assert days_due(hours, known, now=now, first=day) == []
    assert days_due([*hours, rolled(T + 2 * HOUR, version=10)], known, now=now, first=day)[0].mark == 10
    assert days_due(hours, known, now=day + DAY + HOUR, first=day)
    assert days_due(hours, known, now=day + DAY + HOUR, first=day + DAY) == []


def test_hours_of_which_raw_may_be_gone_are_not_touched() -> None:
    now = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
    assert oldest_hour(now, raw_days=7) == datetime(2026, 11, 14, 13, tzinfo=UTC)
    assert oldest_hour(now, raw_days=1) == datetime(2026, 11, 19, 19, tzinfo=UTC)


def test_the_configuration_is_checked_and_hides_the_password() -> None:
    config = RollUpConfig.from_env({"KPATROL_CLICKHOUSE_URL": "http://writer@c:8123/kpatrol", "KPATROL_RAW_DAYS": "3"})
    assert (config.raw_days, config.every_s) == (3, 300.0)
    assert "***" in repr(config)
    with pytest.raises(BadConfiguration, match="KPATROL_CLICKHOUSE_URL: found ''"):
        RollUpConfig.from_env({})
    for bad in ("0", "x", "4000"):
        with pytest.raises(BadConfiguration, match="KPATROL_ROLLUP_S"):
            every_s(bad)
