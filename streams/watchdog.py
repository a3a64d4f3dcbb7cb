"""The guard of a Faust process: sees the ways in which a consumer looks alive and does nothing.

Faust never asks aiokafka for the coordinator's errors, and aiokafka's coordinator waits until somebody does: one
unexpected answer to a JoinGroup parks the consumer for ever. Offsets may stop moving, a recovery may wait for a
record that cannot come, the event loop may hang. `judge_health` decides from samples alone; the thread acts: it sets
the coordinator going again, or ends the process, which is safe because nothing unfinished is acknowledged.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from streams.parts import EXIT_RESTART, Parts

PERIOD_S = 1.0
STUCK_S = 60.0
BUSY_S = 180.0
STALLED_S = 45.0
LOOP_S = 60.0
MEMORY_S = 300.0
MAX_UNPARKS = 10
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One partition: next offset to fetch, next offset by the last commit (None: never), end of the partition."""

    position: int
    committed: int | None
    end: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at the process. `at_s` is monotonic; `beat_s` is when the event loop last answered.

    `error` is what the coordinator waits to tell; `busy` is true during a rebalance or a table's recovery; `holding`
    while the service itself says that it waits for something outside. `restored` is the sum of the offsets that a
    recovery has come to; None while there is no recovery, or the group still agrees on who has what.
    """

    at_s: float
    beat_s: float
    error: str = ""
    coordination_ended: bool = False
    busy: bool = False
    holding: bool = False
    restored: int | None = None
    partitions: Mapping[str, Progress] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do, and why."""

    action: Literal["ok", "unpark", "exit"]
    reason: str = ""


OK = Verdict(action="ok")


def judge_health(samples: Sequence[Sample], now: float) -> Verdict:
    """Decide from the samples (oldest first); `now` is monotonic seconds. Pure."""
    if not samples:
        return OK
    last = samples[-1]
    if last.error:
        return _parked(samples, last.error)
    reason = _broken(last, now) or _stalled(samples, now) or _busy_too_long(samples, now) or _offsets(samples, now)
    return Verdict(action="exit", reason=reason) if reason else OK


def _broken(last: Sample, now: float) -> str:
    if last.coordination_ended:
        return "the group coordination has ended"
    silent_s = now - last.beat_s
    return f"the event loop has not answered for {silent_s:.0f} s" if silent_s > LOOP_S else ""


def _parked(samples: Sequence[Sample], error: str) -> Verdict:
    if sum(1 for s in samples if s.error) > MAX_UNPARKS:
        return Verdict(action="exit", reason=f"the coordinator fails again and again: {error}")
    return Verdict(action="unpark", reason=error)


def _stalled(samples: Sequence[Sample], now: float) -> str:
    window = [s for s in samples if s.at_s >= now - STALLED_S]
    if len(window) < len(samples) and len({s.restored for s in window}) == 1 and window[-1].restored is not None:
        return f"a table's recovery does not get on for more than {STALLED_S:.0f} s"
    return ""


def _busy_too_long(samples: Sequence[Sample], now: float) -> str:
    window = [s for s in samples if s.at_s >= now - BUSY_S]
    if len(window) < len(samples) and all(s.busy for s in window):
        return f"a rebalance or a table's recovery goes on for more than {BUSY_S:.0f} s"
    return ""


def _offsets(samples: Sequence[Sample], now: float) -> str:
    window = [s for s in samples if s.at_s >= now - STUCK_S]
    if len(window) == len(samples) or any(s.busy or s.holding for s in window):
        return ""
    for name in window[-1].partitions:
        seen = [s.partitions[name] for s in window if name in s.partitions]
        first = min(s.partitions[name].position for s in samples if name in s.partitions)
        reason = _stuck(seen, first) if len(seen) == len(window) else ""
        if reason:
            return f"{name}: {reason} for more than {STUCK_S:.0f} s"
    return ""


def _stuck(seen: Sequence[Progress], first: int) -> str:
    committed = seen[-1].committed
    if all(p.committed == committed and p.position > (first if committed is None else committed) for p in seen):
        return f"records up to {seen[-1].position} are fetched, but the committed offset stays at {committed}"
    position = seen[-1].position
    if all(p.position == position and p.end is not None and p.end > position for p in seen):
        return f"nothing is fetched at {position}, though the partition ends at {seen[-1].end}"
    return ""


class Watchdog(threading.Thread):
    """Looks every second. The only place that touches Faust's and aiokafka's private state."""

    def __init__(self, *, app: Any, parts: Parts, end: Callable[[int], Any] = os._exit) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._app = app
        self._parts = parts
        self._end = end
        self._samples: deque[Sample] = deque(maxlen=int(MEMORY_S / PERIOD_S))
        self._beat_s = time.monotonic()
        self._loop: Any = app.loop

    @property
    def ready(self) -> bool:
        """The service is in its group and takes records: neither starting, nor rebalancing, nor recovering."""
        app = self._app
        return app.consumer_generation_id > 0 and not is_busy(app)

    def run(self) -> None:
        """Look, decide, act, until the process ends."""
        while True:
            time.sleep(PERIOD_S)
            try:
                self._loop.call_soon_threadsafe(self._beat, time.monotonic())
            except RuntimeError:
                return  # the loop is closed: the process is ending by itself
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """One turn."""
        try:
            sample = take_sample(self._app, now=now, beat_s=self._beat_s, holding=bool(self._parts.hold.reason))
        except Exception:
            # Private state may be half built or half gone while the app starts or stops; the loop's beat still counts.
            log.debug("no sample", exc_info=True)
            sample = Sample(at_s=now, beat_s=self._beat_s)
        self._samples.append(sample)
        self._measure(sample)
        verdict = judge_health(tuple(self._samples), now)
        if verdict.action == "unpark":
            log.error("the consumer is parked, setting it going again: %s", verdict.reason)
            self._parts.metrics.add("kpatrol_watchdog_unparked_total")
            self._unpark()
        elif verdict.action == "exit":
            log.critical("ending the process: %s", verdict.reason)
            logging.shutdown()
            self._end(EXIT_RESTART)

    def _beat(self, asked_s: float) -> None:
        self._beat_s = time.monotonic()
        self._parts.metrics.set("kpatrol_loop_lag_seconds", self._beat_s - asked_s)

    def _measure(self, sample: Sample) -> None:
        metrics = self._parts.metrics
        metrics.set("kpatrol_held_seconds", self._parts.hold.seconds)
        for name, progress in sample.partitions.items():
            if progress.end is not None and progress.committed is not None:
                topic, _, partition = name.rpartition("/")
                lag = max(0, progress.end - progress.committed)
                metrics.set("kpatrol_consumer_lag_records", lag, topic=topic, partition=partition)

    def _unpark(self) -> None:
        thread = self._app._consumer._thread
        try:
            thread.thread_loop.call_soon_threadsafe(_check_errors, thread._consumer._coordinator)
        except RuntimeError as error:
            # The consumer's thread has crashed and its loop is closed: only a new process can go on, and were this
            # to end the watchdog, nobody would see whether the old one ends.
            log.critical("ending the process: the consumer's thread has ended: %s", error)
            logging.shutdown()
            self._end(EXIT_RESTART)


def _check_errors(coordinator: Any) -> None:
    try:
        coordinator.check_errors()
    except Exception as error:
        log.warning("the coordinator's error was: %r", error)


def is_busy(app: Any) -> bool:
    """Whether a rebalance or a recovery of tables is under way."""
    return bool(app.rebalancing or (app.tables.changelog_topics and not app.tables.actives_ready))


def take_sample(app: Any, *, now: float, beat_s: float, holding: bool) -> Sample:
    """Look at the app's consumer. Before it has one, only the loop's beat is known."""
    consumer = app._consumer
    kafka = getattr(getattr(consumer, "_thread", None), "_consumer", None)
    coordinator = getattr(kafka, "_coordinator", None)
    if coordinator is None:
        return Sample(at_s=now, beat_s=beat_s, holding=holding)
    task = getattr(coordinator, "_coordination_task", None)
    pending = getattr(coordinator, "_pending_exception", None)
    stopping = app.should_stop
    return Sample(
        at_s=now,
        beat_s=beat_s,
        error="" if pending is None else repr(pending),
        coordination_ended=task is not None and task.done() and not stopping,
        busy=is_busy(app) or stopping,
        holding=holding,
        restored=_restored(app, kafka),
        partitions=_partitions(app, consumer, kafka),
    )


def _restored(app: Any, kafka: Any) -> int | None:
    if not app.tables.changelog_topics or not is_busy(app) or app.should_stop:
        return None
    if kafka._subscription.reassignment_in_progress:
        return None
    offsets: dict[Any, int | None] = dict(app.tables.recovery.active_offsets)
    return sum(offset for offset in offsets.values() if offset is not None)


def _partitions(app: Any, consumer: Any, kafka: Any) -> dict[str, Progress]:
    assignment = getattr(kafka._subscription.subscription, "assignment", None)
    if assignment is None:
        return {}
    committed = {(tp.topic, tp.partition): offset for tp, offset in dict(consumer._committed_offset).items()}
    found = {}
    for tp in list(assignment.tps):
        state = assignment.state_value(tp)
        if state is None or not state.has_valid_position or not app.topics.acks_enabled_for(tp.topic):
            continue
        found[f"{tp.topic}/{tp.partition}"] = Progress(
            position=state.position, committed=committed.get((tp.topic, tp.partition)), end=state.highwater
        )
    return found
