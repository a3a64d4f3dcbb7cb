"""When rounds start. Pure: every function takes the time; all times are microseconds since the epoch.

A slot is a moment at which a round ought to start. Slots that passed while nobody was there to publish them are
skipped and counted, never run one after the other and never waited for: the newest slot still runs, late, as long
as its own time has not run out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice

from cronsim import CronSim

from controller.tasks import NetPatrol, Task
from controller.tasks.scheduleform import Cron, Simple

MINUTE_S = 60.0
MARGIN_S = 5.0
FOR_EVER = -1
# Past this many missed cron slots the count stops growing; the schedule itself is never held up by counting.
COUNTED_MAX = 5_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """A task's schedule in microseconds. ``cron`` is empty in the simple form, ``rounds`` is -1 for ever."""

    delay_us: int
    interval_us: int
    cron: str
    timeout_us: int
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The slot to run next, and how many were passed over to get there."""

    at_us: int
    skipped: int


def timing(task: Task, *, minute_s: float = MINUTE_S) -> Timing:
    """The schedule of a task where one of its minutes lasts ``minute_s`` seconds.

    A shortened minute shortens delay, interval and timeout; the timeout never below the load, one request's timeout
    and five seconds. A patrol counts in seconds and is not shortened.
    """
    if isinstance(task, NetPatrol):
        interval_us = task.spec.interval_s * 1_000_000
        rounds = task.spec.round_number
        return Timing(delay_us=0, interval_us=interval_us, cron="", timeout_us=interval_us, rounds=rounds)
    spec = task.spec
    minute_us = round(minute_s * 1_000_000)
    timeout_us = spec.schedule.round_timeout_minute * minute_us
    if minute_s < MINUTE_S:
        least_s = spec.request.duration_s + spec.request.timeout_ms / 1000 + MARGIN_S
        timeout_us = max(timeout_us, round(least_s * 1_000_000))
    match spec.schedule.form:
        case Simple(delay_minute=delay, interval_minute=interval):
            delay_us, interval_us, cron = delay * minute_us, interval * minute_us, ""
        case Cron(expression=cron):
            delay_us, interval_us = 0, 0
    return Timing(
        delay_us=delay_us,
        interval_us=interval_us,
        cron=cron,
        timeout_us=timeout_us,
        rounds=spec.schedule.round_number,
    )


def due(*, timing: Timing, first_seen_us: int, previous_start_us: int | None, now_us: int) -> Due:
    """The slot that the next round belongs to.

    It lies in the future, or is the newest one past whose time has not run out. ``previous_start_us`` is the start of
    the round before, None before the first.
    """
    if timing.cron:
        after_us = first_seen_us if previous_start_us is None else previous_start_us
        return _due_cron(timing, after_us, now_us)
    base_us = first_seen_us + timing.delay_us if previous_start_us is None else previous_start_us + timing.interval_us
    passed = max(0, (now_us - base_us) // timing.interval_us)
    newest_us = base_us + passed * timing.interval_us
    if now_us < newest_us + timing.timeout_us:
        return Due(at_us=newest_us, skipped=passed)
    return Due(at_us=newest_us + timing.interval_us, skipped=passed + 1)


def _due_cron(timing: Timing, after_us: int, now_us: int) -> Due:
    first_us = next_cron(timing.cron, after_us)
    if now_us < first_us + timing.timeout_us and now_us < next_cron(timing.cron, first_us):
        return Due(at_us=first_us, skipped=0)
    newest_us = _newest_cron(timing.cron, now_us)
    at_us = newest_us if now_us < newest_us + timing.timeout_us else next_cron(timing.cron, now_us)
    return Due(at_us=at_us, skipped=_count_cron(timing.cron, first_us, at_us))


@lru_cache(maxsize=4096)
def next_cron(expression: str, after_us: int) -> int:
    """The first instant of the expression that is later than ``after_us``."""
    return _us(next(CronSim(expression, _datetime(after_us))))


@lru_cache(maxsize=4096)
def _newest_cron_at_minute(expression: str, minute: int) -> int:
    # Going back, the simulator excludes its own starting instant: start a second into the minute.
    return _us(next(CronSim(expression, _EPOCH + timedelta(minutes=minute, seconds=1), reverse=True)))


def _newest_cron(expression: str, now_us: int) -> int:
    return _newest_cron_at_minute(expression, now_us // 60_000_000)


@lru_cache(maxsize=4096)
def _count_cron(expression: str, first_us: int, until_us: int) -> int:
    """Slots from ``first_us`` on that are earlier than ``until_us``, counted up to COUNTED_MAX."""
    return sum(1 for _ in islice(_slots(expression, first_us, until_us), COUNTED_MAX))


def _slots(expression: str, first_us: int, until_us: int) -> Iterator[int]:
    simulator = CronSim(expression, _datetime(first_us - 1_000_000))
    for instant in simulator:
        if _us(instant) >= until_us:
            return
        yield _us(instant)


def _datetime(at_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at_us)


def _us(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)
