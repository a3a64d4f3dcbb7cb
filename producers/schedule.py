"""When a round runs: which rounds are taken, when they start, whom they wait for.

Decisions are pure and take the time as an argument. Rules:

- A round is run once per agent, by whichever incarnation began it. Rounds of another group, rounds past their deadline
  and rounds that the journal knows are left alone.
- A round heard after its start begins at once with the start it should have had: requests already overdue are
  counted as unsent by the load engine's own limit on lateness, so a late agent shows as unsent, never as a gap.
- An `exclusive` round waits until no other runs, and while it runs the others wait; nobody waits longer than the
  round's slack (what is left of the deadline after its duration and its timeout). What was waited is added to the
  rows' planned times, so `ts` stays true.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from typing import Literal

from topics.task_rounds import RoundScheduled

Refusal = Literal["", "other group", "deadline passed", "known"]
EXCLUSIVE = "exclusive"


def refusal(*, round_: RoundScheduled, group: str, known: Callable[[int], bool], now_us: int) -> Refusal:
    """Why this round is not to be run; empty when it is."""
    if round_.members.group != group:
        return "other group"
    if round_.deadline_us <= now_us:
        return "deadline passed"
    return "known" if known(round_.round_id) else ""


def start_monotonic_us(*, start_us: int, wall_us: int, monotonic_us: int) -> int:
    """The round's start on the monotonic clock, from one reading of both clocks. Lies in the past for a late agent."""
    return monotonic_us + (start_us - wall_us)


def slack_us(round_: RoundScheduled) -> int:
    """How long a round may be held back without passing its deadline."""
    needed_us = int(round_.duration_s * 1e6) + round_.timeout_ms * 1000
    return max(0, round_.deadline_us - round_.start_us - needed_us)


def may_start(*, load_class: str, running: Collection[str]) -> bool:
    """Whether a round of that load class may run beside those of the classes that run now."""
    return not running if load_class == EXCLUSIVE else EXCLUSIVE not in running


def shift_us(*, start_us: int, asked_us: int, got_us: int) -> int:
    """How much later than it could have, a round begins because it waited for its turn; all on the monotonic clock.

    Less than a millisecond is no waiting.
    """
    waited_us = got_us - max(start_us, asked_us)
    return waited_us if waited_us >= 1000 else 0


class Clock:
    """The two clocks of this machine, in microseconds."""

    def wall_us(self) -> int:
        """Since the epoch."""
        return time.time_ns() // 1000

    def monotonic_us(self) -> int:
        """Of `time.monotonic_ns`."""
        return time.monotonic_ns() // 1000


class Turns:
    """Who runs now, by round; rounds wait here for their turn."""

    def __init__(self) -> None:
        self._running: dict[int, str] = {}
        self._changed = asyncio.Event()

    @property
    def running(self) -> int:
        """Number of rounds under load now."""
        return len(self._running)

    async def take(self, *, round_id: int, load_class: str, patience_s: float, give_up: Callable[[], bool]) -> bool:
        """Wait for the turn, at most `patience_s` or until `give_up`, then run in any case; false when out of turn."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while not self._free(load_class) and not give_up():
                    self._changed.clear()
                    await self._changed.wait()
        in_turn = self._free(load_class)
        self._running[round_id] = load_class
        return in_turn

    def leave(self, round_id: int) -> None:
        """The round no longer runs."""
        self._running.pop(round_id, None)
        self.look_again()

    def look_again(self) -> None:
        """Something that the waiting ones ask about has changed."""
        self._changed.set()

    def _free(self, load_class: str) -> bool:
        return may_start(load_class=load_class, running=set(self._running.values()))
