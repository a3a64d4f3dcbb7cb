"""When each request of a share is due, and what becomes of it when we are late. Pure: time comes in as a number.

Open model: request i of stream s is due at `(i + phase_s) / rate` from the round's start, whatever the replies do.
Phases are spread evenly over the streams, so several targets interleave and no burst arises; `offset` shifts an agent's
whole comb within one gap, so that agents do not all send in the same microsecond. What could not be sent in time is
sent late and its lateness recorded; past the limit it is counted unsent, never skipped in silence.
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from typing import TypeAlias

Due: TypeAlias = tuple[int, int, int]  # seq, stream, planned_us

_SAMPLE = 1 << 17


def agent_offset(agent: str) -> float:
    """A fixed fraction in [0, 1) of an agent's name."""
    digest = hashlib.blake2b(agent.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") / (1 << 32)


def gap_us(*, streams: int, rate: float, duration_s: float) -> float:
    """The time between two due requests of a share, all streams taken together."""
    return min(1e6 / rate, duration_s * 1e6) / max(1, streams)


def due_order(
    *,
    requests: Sequence[int],
    rate: float,
    duration_s: float,
    offset: float = 0.0,
    together: Sequence[bool] = (),
) -> Iterator[Due]:
    """Every request of the share in the order it is due; seq counts from 0 in that order.

    A stream that is `together` is due at the very moments of the one before it.

    `requests[s]` is the number due in stream s, `rate` in requests/s of each stream. Where less than one request fits
    into the duration, the streams are spread over the duration instead of over one period.
    """
    period_us = 1e6 / rate
    step_us = gap_us(streams=len(requests), rate=rate, duration_s=duration_s)
    phases = [step_us * (stream + offset) for stream in range(len(requests))]
    for stream, joined in enumerate(together):
        if joined and stream:
            phases[stream] = phases[stream - 1]
    seq = 0
    for number in range(max(requests, default=0)):
        base_us = number * period_us
        for stream, phase_us in enumerate(phases):
            if number < requests[stream]:
                yield seq, stream, int(base_us + phase_us)
                seq += 1


def late_limit_us(*, limit_us: int, timeout_us: int) -> int:
    """How late a request may still be sent: past a timeout's length it would measure another moment."""
    return min(limit_us, timeout_us)


class Lateness:
    """Lateness of the requests sent: greatest value, and quantiles from an even sample of bounded size.

    When the sample is full every second value goes and from then on every second one is taken, and so on: 512 KiB
    at most, however long the round.
    """

    def __init__(self) -> None:
        self.max_us = 0
        self._values = array("I")
        self._stride = 1
        self._skip = 0

    def add(self, lateness_us: int) -> None:
        """Take the lateness of one request."""
        if lateness_us > self.max_us:  # noqa: PLR1730 - a call here would be a twentieth of a request
            self.max_us = lateness_us
        if self._skip:
            self._skip -= 1
            return
        self._skip = self._stride - 1
        self._values.append(lateness_us if lateness_us < 0xFFFFFFFF else 0xFFFFFFFF)
        if len(self._values) >= _SAMPLE:
            self._values = self._values[::2]
            self._stride *= 2

    def quantiles(self, *fractions: float) -> tuple[int, ...]:
        """The values at these fractions (nearest rank), 0 where nothing was sent."""
        ordered = sorted(self._values)
        if not ordered:
            return (0,) * len(fractions)
        return tuple(ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] for fraction in fractions)
