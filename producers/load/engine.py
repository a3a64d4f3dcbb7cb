"""The load of one round: starts every due request, waits until each has ended, and accounts for all of them.

One timer walks the merged order of all streams; no task and no timer per request. All requests of a round have the same
timeout, so those under way stay sorted by their start and one timer watches the oldest. A request that finds its
target at the cap waits in line and goes out late as soon as another ends.

When a request counts as unsent (never as a row): it could not be sent within the late limit; the round was cancelled
before it was sent; our own machine had no port, descriptor or buffer for it; its request cannot be written at all; it
was over a cap on the rate (producers.load.caps).
"""

import asyncio
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic_ns
from typing import Any

from producers.load import pacing
from producers.load.caps import OVER_THE_CAP, Governor, Limits
from producers.load.ticker import now_us, ticker
from producers.probes import PROBES
from producers.probes.base import ATTEMPT, MAX_ATTEMPTS, Attempt, Channel, Setup
from producers.probes.poller import poller
from producers.rows import Row, Rows
from topics.outcome import Outcome
from topics.share import Stream
from topics.task_rounds import RoundScheduled

log = logging.getLogger(__name__)

# Requests started in one turn of the loop: replies must be read in between, or their times would be ours.
_BURST = 32
# Two ticks are never closer: beyond 5,000 requests/s one wake-up starts several. Sleeping and waking up is a third of
# what a request costs; at 20,000/s this tick takes 21 µs of CPU a request where one of 50 µs takes 36 µs.
_TICK_US = 200
# The timer is set anew after this many ticks, before its drift is worth a microsecond.
_ALIGN_TICKS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadAccount:
    """What became of a share: planned = sent + unsent, always; rates in requests/s over all streams, times in µs.

    `sent` requests have a row each. `unsent` were given up before they were sent; `unsent_causes` says why, most
    frequent first. `cancelled` counts the requests, sent or not, that a cancellation ended. `loop_lag_max_us` is the
    longest that our own event loop let the timer wait. `socket_drops` are replies that the load's own datagram sockets
    had no room for. `further` are attempts that probes added to the requests due; `planned` has them in it.
    """

    planned: int
    sent: int
    unsent: int
    cancelled: int
    asked_rate: float
    achieved_rate: float
    lateness_p50_us: int
    lateness_p99_us: int
    lateness_max_us: int
    loop_lag_max_us: int
    unsent_causes: tuple[tuple[str, int], ...] = ()
    socket_drops: int = 0
    further: int = 0


async def run_load(  # noqa: PLR0913 - the one entry; every argument is a different part of the share
    *,
    round_: RoundScheduled,
    streams: tuple[Stream, ...],
    agent: str,
    incarnation: int,
    trace_id: bytes,
    source_address: str,
    start_monotonic_us: int,
    rows: Rows,
    cancel: asyncio.Event,
    limits: Limits | None = None,
    governor: Governor | None = None,
) -> LoadAccount:
    """Run the share and return its account once every request has ended.

    `start_monotonic_us` is the round's start on the clock of `time.monotonic_ns`. `source_address` is the local data
    address to send from ('' = any). Returns at the latest one late limit and one timeout after the last request was
    due; at once after `cancel`. When the caller's task is cancelled, the requests under way still get their rows.
    `incarnation` is part of a row's identity in the batch's head; no probe says it.
    """
    share = _Share(
        round_=round_,
        streams=streams,
        agent=agent,
        trace_id=trace_id,
        source_address=source_address,
        start_us=start_monotonic_us,
        governor=governor or Governor(limits or Limits()),
    )
    load = _Load(share, rows)
    stop: asyncio.Future[Any] = asyncio.ensure_future(cancel.wait())
    ends: set[asyncio.Future[Any]] = {load.done, stop}
    try:
        if not cancel.is_set():
            load.start()
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
        load.stop()
        # Connections tell their protocols in the loop's next turns that they are gone.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return load.account()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Share:
    round_: RoundScheduled
    streams: tuple[Stream, ...]
    agent: str
    trace_id: bytes
    source_address: str
    start_us: int
    governor: Governor


class _Load:
    def __init__(self, share: _Share, rows: Rows) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._share = share
        self._rows = rows
        self._before = rows.count
        self._start_us = share.start_us
        self._timeout_us = share.round_.timeout_ms * 1000
        self._late_us = pacing.late_limit_us(limit_us=share.governor.limits.late_limit_us, timeout_us=self._timeout_us)
        self._requests = [stream.requests for stream in share.streams]
        self._planned = sum(self._requests)
        self._further = 0
        self._shared: dict[object, Any] = {}
        self._order: Iterator[pacing.Due] = pacing.due_order(
            requests=self._requests,
            rate=share.round_.rate,
            duration_s=share.round_.duration_s,
            offset=pacing.agent_offset(share.agent),
            together=[stream.target.together for stream in share.streams],
        )
        self._next: pacing.Due | None = next(self._order, None)
        self._pending: OrderedDict[Attempt, None] = OrderedDict()
        self._passage = share.governor.enter([stream.target for stream in share.streams])
        self._flying = [0] * len(share.streams)
        self._total = 0
        self._waiting: list[deque[tuple[int, int]]] = [deque() for _ in share.streams]
        self._crowded: set[int] = set()
        self._draining = False
        self._unsent: Counter[str] = Counter()
        self._unsent_total = 0
        self._socket_drops = 0
        self._cancelled = 0
        self._lateness = pacing.Lateness()
        self._lag_max_us = 0
        self._last_sent_us = 0
        self._stopped = False
        self._behind = False
        self._ticks = 0
        self._begun_us = now_us()
        self._every_us = max(
            _TICK_US,
            pacing.gap_us(streams=len(share.streams), rate=share.round_.rate, duration_s=share.round_.duration_s),
        )
        self._ticker = ticker(self._loop, self._tick)
        self._poller = poller(self._loop)
        self._watch: asyncio.TimerHandle | None = None
        self._channels: list[Channel | None] = [None] * len(share.streams)

    # --- life ---

    def start(self) -> None:
        self._channels = [self._channel(index, stream) for index, stream in enumerate(self._share.streams)]
        self._align()
        self._watch_oldest()
        self._finish_if_over()

    def stop(self) -> None:
        """End all that has not ended: what is under way as cancelled, what waits or is not yet due as unsent."""
        if self._stopped:
            return
        self._stopped = True
        self._share.governor.leave(self._passage)
        self._ticker.close()
        if self._watch is not None:
            self._watch.cancel()
        for attempt in list(self._pending):
            self._cancelled += 1
            attempt.end(Outcome.cancelled, "cancelled")
        # Closing also settles requests that have their reply and wait for the last counters.
        for channel in self._channels:
            if channel is not None:
                channel.close()
        # They refer back to this load; without that they are freed now, not when the garbage collector comes by.
        self._channels.clear()
        self._poller.close()
        never = self._planned - (self._rows.count - self._before) - self._unsent_total
        if never:
            self._cancelled += never
            self._count_unsent("cancelled", never)

    def account(self) -> LoadAccount:
        sent = self._rows.count - self._before
        p50_us, p99_us = self._lateness.quantiles(0.5, 0.99)
        took_s = max(self._share.round_.duration_s, self._last_sent_us / 1e6)
        return LoadAccount(
            planned=self._planned,
            further=self._further,
            sent=sent,
            unsent=self._unsent_total,
            cancelled=self._cancelled,
            asked_rate=self._share.round_.rate * len(self._requests),
            achieved_rate=sent / took_s if took_s else 0.0,
            lateness_p50_us=p50_us,
            lateness_p99_us=p99_us,
            lateness_max_us=self._lateness.max_us,
            loop_lag_max_us=self._lag_max_us,
            unsent_causes=tuple(self._unsent.most_common()),
            socket_drops=self._socket_drops,
        )

    def _channel(self, index: int, stream: Stream) -> Channel | None:
        setup = Setup(
            round_=self._share.round_,
            target=stream.target,
            index=index,
            agent=self._share.agent,
            trace_id=self._share.trace_id,
            source_address=self._share.source_address,
            start_us=self._start_us,
            pending=self._pending,
            report=self._report,
            give_up=self._give_up,
            clock=now_us,
            poller=self._poller,
            dropped=self._dropped,
            another=self._another,
            shared=self._shared,
        )
        probe = PROBES.get(stream.target.proto)
        if probe is None:
            log.error("no probe for protocol %s of target %s", stream.target.proto.name, stream.target.name)
            return None
        try:
            return probe(setup)
        except ValueError as error:
            log.error("target %s cannot be probed: %s", stream.target.name, error)
            return None

    # --- sending ---

    def _align(self) -> None:
        """Set the timer to the next due time and the gap between two; ticks drift by less than 1 ns each."""
        self._ticks = 0
        if self._next is not None:
            self._ticker.start(max(1, self._start_us + self._next[2]), self._every_us)

    def _tick(self) -> None:
        """The timer has fired: something is due."""
        if self._behind:
            return
        now = now_us()
        if self._next is not None:
            # With nothing left over from before, what is due now became due when the timer should have fired.
            self._lag_max_us = max(self._lag_max_us, now - max(self._begun_us, self._start_us + self._next[2]))
        self._work(now)
        self._ticks += 1
        if self._ticks >= _ALIGN_TICKS:
            self._align()

    def _catch_up(self) -> None:
        self._behind = False
        if not self._stopped:
            self._work(now_us())

    def _work(self, now: int) -> None:
        """Start what is due, a burst of it at most; the rest after the loop has read the replies that are there."""
        if self._crowded:
            self._drop_late(now)
        start_us, order, offer = self._start_us, self._order, self._offer
        for _ in range(_BURST):
            due = self._next
            if due is None:
                self._ticker.close()
                break
            seq, stream, planned_us = due
            if start_us + planned_us > now:
                break
            self._next = next(order, None)
            offer(seq, stream, planned_us, now)
            now = monotonic_ns() // 1000
        else:
            self._behind = True
            self._loop.call_soon(self._catch_up)
        if self._next is None:
            self._finish_if_over()

    def _offer(self, seq: int, stream: int, planned_us: int, now: int) -> None:
        """Send a due request, or put it in line where its target has as many under way as it may."""
        passage = self._passage
        if not passage.admits(stream, self._start_us + planned_us):
            self._count_unsent(OVER_THE_CAP, 1)
        elif (
            self._flying[stream] < passage.room_to[stream] and self._total < passage.room and not self._waiting[stream]
        ):
            self._send(seq, stream, planned_us, now)
        else:
            self._waiting[stream].append((seq, planned_us))
            self._crowded.add(stream)

    def _has_room(self, stream: int) -> bool:
        return self._flying[stream] < self._passage.room_to[stream] and self._total < self._passage.room

    def _send(self, seq: int, stream: int, planned_us: int, sent_us: int) -> None:
        channel = self._channels[stream]
        since_us = sent_us - self._start_us
        lateness_us = since_us - planned_us
        if channel is None:
            self._count_unsent("invalid_request", 1)
            return
        if lateness_us > self._late_us:
            self._count_unsent("late", 1)
            return
        self._flying[stream] += 1
        self._total += 1
        self._lateness.add(lateness_us)
        self._last_sent_us = since_us
        channel.send(seq, planned_us, sent_us)

    def _drop_late(self, now: int) -> None:
        oldest_us = now - self._start_us - self._late_us
        for stream in list(self._crowded):
            line = self._waiting[stream]
            while line and line[0][1] < oldest_us:
                line.popleft()
                self._count_unsent("in_flight_cap", 1)
            if not line:
                self._crowded.discard(stream)

    # --- ends ---

    def _report(self, row: Row) -> None:
        self._rows.add(row)
        self._flying[row[1]] -= 1
        self._total -= 1
        if self._crowded or not self._total:
            self._freed(row[1])

    def _give_up(self, index: int, cause: str) -> None:
        self._count_unsent(cause, 1)
        self._flying[index] -= 1
        self._total -= 1
        self._freed(index)

    def _freed(self, index: int) -> None:
        """A place is free: looked at where a request waits for one, and when it was the last."""
        if self._stopped:
            return
        if self._crowded and not self._draining:
            self._send_waiting(index)
        if self._next is None and not self._total:
            self._finish_if_over()

    def _send_waiting(self, index: int) -> None:
        """A place is free: the same target's line first, then the line of any target that has room."""
        # A request that ends while it is being sent frees its place again; the loop sees it, no need to come back here.
        self._draining = True
        for stream in (index, *self._crowded):
            line = self._waiting[stream]
            while line and self._has_room(stream):
                seq, planned_us = line.popleft()
                self._send(seq, stream, planned_us, now_us())
            if not line:
                self._crowded.discard(stream)
        self._draining = False

    def _another(self, index: int, seq: int) -> int | None:
        """One more attempt at a request that is just ending: its row's number; None where there may be none."""
        number = seq + ATTEMPT
        if self._stopped or self._planned - self._further > ATTEMPT or number >= ATTEMPT * MAX_ATTEMPTS:
            return None
        self._further += 1
        self._planned += 1
        self._flying[index] += 1
        self._total += 1
        return number

    def _dropped(self, number: int) -> None:
        self._socket_drops += number

    def _count_unsent(self, cause: str, number: int) -> None:
        self._unsent[cause] += number
        self._unsent_total += number

    def _finish_if_over(self) -> None:
        if self._next is None and not self._total and not self._crowded and not self.done.done():
            self.done.set_result(None)

    # --- timeouts ---

    def _watch_oldest(self) -> None:
        """End all that is past its time, then sleep until the oldest of the rest is."""
        now = now_us()
        limit_us = now - self._timeout_us
        while self._pending:
            oldest = next(iter(self._pending))
            if oldest.sent_us > limit_us:
                break
            oldest.end(Outcome.timeout, "timeout")
        if self._crowded:
            self._drop_late(now)
            self._finish_if_over()
        if self._stopped:
            return
        wait_us = next(iter(self._pending)).sent_us - limit_us if self._pending else self._timeout_us
        if self._crowded:
            wait_us = min(wait_us, self._late_us)
        # A new request ends no earlier than one whole timeout from now, so nothing is missed by sleeping that long.
        self._watch = self._loop.call_later(wait_us / 1e6, self._watch_oldest)
