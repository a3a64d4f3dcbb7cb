"""The load of one round: starts every due request, waits until each has ended, and accounts for all of them."""

import asyncio
from dataclasses import dataclass

from producers.rows import Rows
from topics.share import Stream
from topics.task_rounds import RoundScheduled


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadAccount:
    """What became of a share: planned = rows + unsent, always; rates in requests/s, times in µs.

    `sent` requests have a row each. `unsent` were given up before they were sent (too late, no room, cancelled);
    `cancelled` counts the requests, sent or not, that a cancellation ended.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Caps that keep a round harmless: requests in flight to one target and in all, and the greatest lateness.

    A request that cannot be sent within `late_limit_us` of its planned time is counted unsent.
    """

    in_flight_per_target: int = 256
    in_flight: int = 4096
    late_limit_us: int = 1_000_000


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
) -> LoadAccount:
    """Run the share and return its account once every request has ended.

    `start_monotonic_us` is the round's start on the clock of `time.monotonic_ns`. `source_address` is the local data
    address to send from ('' = any). Rows and requests counted unsent always add up to the planned ones.
    """
    raise NotImplementedError
