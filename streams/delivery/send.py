"""Delivering one transition to every hook it is for: retried with growing waits, given up after a time."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from streams.delivery.base import Doors, Hook, TryAgain, Undeliverable, idempotency_key
from streams.delivery.read import Route
from topics.alarms import AlarmRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a transition is tried, and how long is waited between: doubling, with up to a half of jitter."""

    total_s: float = 300.0
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0

    def wait_s(self, attempt: int, *, asked_s: float, jitter: float) -> float:
        """Before attempt number `attempt` (from 1); not shorter than the receiver asked. `jitter` from 0 to 1."""
        own = min(self.first_wait_s * 2.0 ** (attempt - 1), self.longest_wait_s) * (1 + jitter / 2)
        return max(own, min(asked_s, self.longest_wait_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp:
    """A delivery that did not happen."""

    hook: str
    reason: str
    attempts: int


async def deliver(
    record: AlarmRecord,
    routes: Sequence[Route],
    *,
    doors: Doors,
    patience: Patience,
    counted: Callable[[str], None] = lambda outcome: None,
) -> list[GivenUp]:
    """To all hooks it is for, side by side; returns what was given up. `counted` gets `ok`, `retry`, `given_up`."""
    hooks = [route.hook for route in routes if route.takes(record)]
    tries = (_persist(hook, record, doors=doors, patience=patience, counted=counted) for hook in hooks)
    return [end for end in await asyncio.gather(*tries) if end is not None]


async def _persist(
    hook: Hook,
    record: AlarmRecord,
    *,
    doors: Doors,
    patience: Patience,
    counted: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> GivenUp | None:
    end, attempt = clock() + patience.total_s, 0
    while True:
        attempt += 1
        try:
            await hook.deliver(record, doors)
            counted("ok")
            return None
        except Undeliverable as error:
            reason = str(error)
            break
        except TryAgain as error:
            wait_s = patience.wait_s(attempt, asked_s=error.after_s, jitter=random.random())
            reason = str(error)
            if clock() + wait_s > end:
                break
            counted("retry")
            log.warning("%s: %s: %s; again in %.1f s", hook.name, idempotency_key(record), reason, wait_s)
        await sleep(wait_s)
    counted("given_up")
    log.error("%s: %s: given up after %d attempts: %s", hook.name, idempotency_key(record), attempt, reason)
    return GivenUp(hook=hook.name, reason=reason, attempts=attempt)
