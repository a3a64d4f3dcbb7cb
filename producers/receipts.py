"""What the serving side received, per round, source agent, protocol and target: counts, and a bitmap of numbers.

One row stands for a run of requests, so the volume grows with the number of sources. A run is told when its source has
fallen silent at a round's end, when it is long, or when it is old: the fewer rows the better, but what a kill -9 takes
must stay small. Memory is bounded: so many sources, so long a bitmap; what does not fit is counted in `overflow`, never
guessed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa

from topics.outcome import Proto
from topics.probe_receipts import SCHEMA, UNKNOWN_TARGET

# A bitmap covers this many sequence numbers (8 KiB); one further away begins a new run.
SPAN = 1 << 16
MAX_SOURCES = 20_000
MAX_ROWS = 20_000
# A source that was silent this long is forgotten, its total with it.
FORGET_US = 600_000_000

# A run is told after so many requests, when it is so old, and earlier where it has a handful.
LONG = 500
OLD_US = 30_000_000
OLD_HANDFUL_US = 10_000_000
HANDFUL = 16

Source = tuple[int, str, int, int]  # round_id, source agent, protocol, its target


class Growth(NamedTuple):
    """What a connection's kernel counters have grown by; the meaning is that of topics.probe_receipts."""

    accepted: int
    sent: int
    lost: int
    synack_lost: int
    segs_in: int
    segs_out: int
    retrans: int


_NO_GROWTH = Growth(0, 0, 0, 0, 0, 0, 0)


class Run:
    """Requests of one source since the last row about it; `total` is of the whole round."""

    __slots__ = (
        "bits",
        "duplicates",
        "first_seq",
        "first_us",
        "growth",
        "highest",
        "last_seq",
        "last_us",
        "received",
        "reordered",
        "total",
    )

    def __init__(self) -> None:
        self.total = 0
        self.highest = -1
        self.last_seq = 0
        self.last_us = 0
        self.clear()

    def clear(self) -> None:
        """Begin a new row."""
        self.bits = bytearray()
        self.first_seq = 0
        self.received = self.duplicates = self.reordered = 0
        self.growth = _NO_GROWTH
        self.first_us = 0

    def fits(self, seq: int) -> bool:
        """Whether the run's bitmap can hold this number, too."""
        if not self.received:
            return True
        lowest = min(self.first_seq, seq & ~7)
        highest = max(self.first_seq + len(self.bits) * 8, seq + 1)
        return highest - lowest <= SPAN

    def mark(self, seq: int, now_us: int) -> None:
        """One request has come."""
        self.total += 1
        self.last_us = now_us
        self.last_seq = seq
        if not self.received:
            self.first_us = now_us
            self.first_seq = seq & ~7
        elif seq < self.first_seq:
            first = seq & ~7
            self.bits[:0] = bytes((self.first_seq - first) // 8)
            self.first_seq = first
        self.received += 1
        index, bit = (seq - self.first_seq) >> 3, 1 << (seq & 7)
        if index >= len(self.bits):
            self.bits.extend(bytes(index + 1 - len(self.bits)))
        if self.bits[index] & bit:
            self.duplicates += 1
        elif seq < self.highest:
            self.reordered += 1
        self.bits[index] |= bit
        self.highest = max(self.highest, seq)

    def empty(self) -> bool:
        """Whether there is nothing to tell; acknowledgements alone are no news, they wait for the next row."""
        told = self.growth
        return not (self.received or told.accepted or told.sent or told.lost or told.retrans)

    def ripe(self, *, now_us: int, silent_us: int) -> bool:
        """Whether it is time for a row: silent for `silent_us`, long, or old. Growth alone waits for nothing."""
        age_us = now_us - self.first_us
        return (
            not self.received
            or self.received >= LONG
            or now_us - self.last_us >= silent_us
            or age_us >= OLD_US
            or (age_us >= OLD_HANDFUL_US and self.received >= HANDFUL)
        )


class Receipts:
    """Collects what the responder received; `take` hands it over as rows of topics.probe_receipts."""

    def __init__(self) -> None:
        self.overflow = 0
        self._runs: dict[Source, Run] = {}
        self._rows: list[dict[str, Any]] = []
        self._collectors: list[Callable[[], None]] = []
        self._latest_us = 0

    def add_collector(self, collect: Callable[[], None]) -> None:
        """Have `collect` called before each `take`: it brings in what is only counted now and then."""
        self._collectors.append(collect)

    def remove_collector(self, collect: Callable[[], None]) -> None:
        """Call it no more."""
        self._collectors.remove(collect)

    def received(
        self, *, round_id: int, src_agent: str, proto: Proto, seq: int, now_us: int, target: int = UNKNOWN_TARGET
    ) -> int:
        """One request has come at `now_us` (µs since the epoch); how many of its source by now, 0 where unknown.

        A source is a round's agent, protocol and `target` (its place in the agent's list).
        """
        source = (round_id, src_agent, proto, target)
        run = self._run(source)
        if run is None:
            return 0
        if not run.fits(seq):
            self._close(source, run)
        run.mark(seq, now_us)
        self._latest_us = now_us
        return run.total

    def segments(self, source: Source, growth: Growth) -> None:
        """What a connection that served this source has cost since the last time."""
        run = self._run(source)
        if run is not None:
            run.growth = Growth(*(map(sum, zip(run.growth, growth, strict=True))))

    def take(self, now_us: int | None = None) -> "pa.RecordBatch | None":
        """Everything collected since the last time, or None. Sources silent for long by `now_us` are forgotten."""
        return self._taken(self._latest_us if now_us is None else now_us, silent_us=None)

    def take_ripe(self, *, now_us: int, silent_us: int = OLD_US) -> "pa.RecordBatch | None":
        """Like `take`, only the runs that are long, old, or of a source silent for `silent_us` by `now_us`."""
        return self._taken(now_us, silent_us=silent_us)

    def _taken(self, now_us: int, *, silent_us: int | None) -> "pa.RecordBatch | None":
        for collect in self._collectors:
            collect()
        for source, run in self._runs.items():
            if not run.empty() and (silent_us is None or run.ripe(now_us=now_us, silent_us=silent_us)):
                self._close(source, run)
        before_us = now_us - FORGET_US
        for source in [s for s, run in self._runs.items() if run.last_us < before_us]:
            del self._runs[source]
        rows, self._rows = self._rows, []
        return pa.RecordBatch.from_pylist(rows, schema=SCHEMA) if rows else None

    def _run(self, source: Source) -> Run | None:
        run = self._runs.get(source)
        if run is None:
            if len(self._runs) >= MAX_SOURCES:
                self.overflow += 1
                return None
            run = self._runs[source] = Run()
            run.last_us = self._latest_us
        return run

    def _close(self, source: Source, run: Run) -> None:
        if len(self._rows) < MAX_ROWS:
            self._rows.append(_row(source, run))
        else:
            self.overflow += run.received
        run.clear()


def _row(source: Source, run: Run) -> dict[str, Any]:
    round_id, src_agent, proto, target = source
    return {
        "round_id": round_id,
        "src_agent": src_agent,
        "proto": int(proto),
        "target": target,
        # Without a bitmap it stands for no request; it is still part of the row's identity.
        "first_seq": run.first_seq if run.received else run.last_seq,
        "last_seq": run.last_seq,
        "received": run.received,
        "duplicates": run.duplicates,
        "reordered": run.reordered,
        "first_us": run.first_us or run.last_us,
        "last_us": run.last_us,
        "bitmap": bytes(run.bits),
        **run.growth._asdict(),
    }
