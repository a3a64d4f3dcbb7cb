"""Both tickers keep a period without drift; the kernel's does it to a fraction of a millisecond."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from producers.load.ticker import LoopTicker, TimerfdTicker, now_us, ticker


async def _ticks(make: Callable[..., Any], *, every_us: int, count: int) -> list[int]:
    """How late each tick came, in µs."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    late_us: list[int] = []
    start_us = now_us() + 2000

    def fire() -> None:
        late_us.append(now_us() - start_us - len(late_us) * every_us)
        if len(late_us) == count and not done.done():
            done.set_result(None)

    each = make(loop, fire)
    each.start(start_us, every_us)
    await asyncio.wait_for(done, 30)
    each.close()
    seen = len(late_us)
    await asyncio.sleep(0.01)
    assert len(late_us) == seen, "fired after its end"
    return late_us


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
@pytest.mark.parametrize("make", [LoopTicker, TimerfdTicker])
def test_ticks_come_when_they_are_due_and_never_before(run: Any, make: Any) -> None:
    late_us = run(_ticks(make, every_us=5000, count=10))
    # The loop's timer may fire within its own millisecond; the kernel's never early.
    assert min(late_us) >= (0 if make is TimerfdTicker else -1500)
    # A machine that stands still passes ticks over, and each then counts as one period late: ten of them at most here.
    assert sorted(late_us)[len(late_us) // 2] < 50_000


def test_linux_gives_the_fine_one() -> None:
    async def scene() -> None:
        chosen = ticker(asyncio.get_running_loop(), lambda: None)
        assert isinstance(chosen, TimerfdTicker)
        chosen.close()
        chosen.close()

    uvloop.run(scene())


def test_a_new_setting_replaces_the_one_before() -> None:
    async def scene() -> int:
        fired = 0

        def fire() -> None:
            nonlocal fired
            fired += 1

        each = TimerfdTicker(asyncio.get_running_loop(), fire)
        each.start(now_us() + 1000, 1000)
        each.start(now_us() + 60_000_000, 1000)
        await asyncio.sleep(0.02)
        each.close()
        return fired

    assert uvloop.run(scene()) == 0
