"""Trying again at ClickHouse: the one place where a failing dependency is retried.

While ClickHouse is away the sink waits and takes nothing more; its consumer thread goes on with heartbeats, so the
group stays as it is for minutes. A rebalance or a stop would have to wait for what is unacknowledged, so when one
begins the sink gives up: the process ends, nothing is acknowledged, and its next start waits for ClickHouse before it
joins the group, so that an outage does not become a series of rebalances.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from streams.clickhouse import ClickHouseAway
from streams.metrics import Metrics
from streams.parts import Hold

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 2.0
T = TypeVar("T")
log = logging.getLogger(__name__)


class GaveUp(RuntimeError):
    """Waiting any longer would do harm."""


def delay_s(attempt: int) -> float:
    """Pause after failure number `attempt` (from 0): doubled each time, up to LONGEST_DELAY_S."""
    return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(attempt, 16)))


class Patience:
    """Runs blocking work in a thread until it succeeds or it is time to give up.

    `leaving` says why the process must not wait (a rebalance, a stop), empty when it may.
    """

    def __init__(
        self,
        *,
        hold: Hold,
        metrics: Metrics,
        leaving: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._hold = hold
        self._metrics = metrics
        self._leaving = leaving
        self._clock = clock
        self._sleep = sleep

    async def __call__(self, what: str, work: Callable[[], T]) -> T:
        """The result of `work`, tried again for as long as it raises ClickHouseAway.

        Raises GaveUp; any other error passes through, ClickHouseRefused too.
        """
        try:
            return await asyncio.to_thread(work)
        except ClickHouseAway as error:
            log.warning("%s: %.300s; trying again", what, error)
            first = error
        with self._hold.waiting(what):
            return await self._again(what, work, first)

    async def _again(self, what: str, work: Callable[[], T], error: Exception) -> T:
        began_s = self._clock()
        attempt = 0
        while True:
            leaving = self._leaving()
            if leaving:
                raise GaveUp(f"{what}: {error!s:.300}; {leaving}") from error
            self._metrics.add("kpatrol_clickhouse_retries_total", what=what)
            await self._sleep(delay_s(attempt))
            attempt += 1
            try:
                result = await asyncio.to_thread(work)
            except ClickHouseAway as again:
                error = again
                continue
            log.info("%s: succeeded after %.1f s", what, self._clock() - began_s)
            return result
