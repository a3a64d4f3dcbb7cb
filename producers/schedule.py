"""When a round runs: which rounds are taken, when they start, whom they wait for.

Decisions are pure and take the time as an argument. Rules:

- A round is run once per agent, by whichever incarnation began it. Rounds of another group, rounds past their deadline
  and rounds that the journal knows are not run.
- A round that is heard past its deadline is accounted for all the same (Kafka was away, or the agent was), or it would
  stay open for ever: unless an earlier incarnation may have run it without this journal's knowing.
- A round heard after its start begins at once with the start it should have had: requests already overdue are
  counted as unsent by the load engine's own limit on lateness, so a late agent shows as unsent, never as a gap.
- Loads have classes. `exclusive`: runs alone. `normal`: beside all but an exclusive one. `background`: as normal, and
  gives way to an exclusive one that waits, so that a standing patrol cannot keep it out for ever. A round waits for its
  turn no longer than its slack (what is left of the deadline after its duration and its timeout); one that has not got
  it by then is not run, and all of it is unsent: two loads that must not meet never do. What was waited is added to
  the rows' planned times, so `ts` stays true.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from typing import Literal

from topics.task_rounds import RoundScheduled

Refusal = Literal["", "other group", "deadline passed", "known"]
EXCLUSIVE = "exclusive"
BACKGROUND = "background"


def refusal(*, round_: RoundScheduled, group: str, known: Callable[[int], bool], now_us: int) -> Refusal:
    """Why this round is not to be run; empty when it is."""
    if round_.members.group != group:
        return "other group"
    if round_.deadline_us <= now_us:
        return "deadline passed"
    return "known" if known(round_.round_id) else ""


def owes_account(*, round_: RoundScheduled, live: bool, journal_since_us: int, now_us: int, keep_us: int) -> bool:
    """Whether a round that is past its deadline and that the journal does not know is surely one that nobody ran.

    `live`: published since this agent has read its topic to the end. Otherwise the journal must be older than the
    round, and must not have forgotten it: it keeps a round for `keep_us` after its deadline.
    """
    return live or (journal_since_us < round_.start_us and now_us < round_.deadline_us + keep_us)


def start_monotonic_us(*, start_us: int, wall_us: int, monotonic_us: int) -> int:
    """The round's start on the monotonic clock, from one reading of both clocks. Lies in the past for a late agent."""
    return monotonic_us + (start_us - wall_us)


def slack_us(round_: RoundScheduled) -> int:
    """How long a round may be held back without passing its deadline."""
    needed_us = int(round_.duration_s * 1e6) + round_.timeout_ms * 1000
    return max(0, round_.deadline_us - round_.start_us - needed_us)


def may_start(*, load_class: str, running: Collection[str], waiting: Collection[str] = ()) -> bool:
    """Whether a round of that load class may run beside those that run now and before those that wait."""
    if load_class == EXCLUSIVE:
        return not running
    if load_class == BACKGROUND and EXCLUSIVE in waiting:
        return False
    return EXCLUSIVE not in running


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
        self._waiting: dict[int, str] = {}
        self._changed = asyncio.Event()

    @property
    def running(self) -> int:
        """Number of rounds under load now."""
        return len(self._running)

    async def take(self, *, round_id: int, load_class: str, patience_s: float, give_up: Callable[[], bool]) -> bool:
        """Wait for the turn, at most `patience_s` or until `give_up`; false when it did not come."""
        self._waiting[round_id] = load_class
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    while not self._free(round_id) and not give_up():
                        self._changed.clear()
                        await self._changed.wait()
            in_turn = self._free(round_id)
        finally:
            del self._waiting[round_id]
        if in_turn:
            self._running[round_id] = load_class
        self.look_again()
        return in_turn

    def leave(self, round_id: int) -> None:
        """The round no longer runs."""
        self._running.pop(round_id, None)
        self.look_again()

    def look_again(self) -> None:
        """Something that the waiting ones ask about has changed."""
        self._changed.set()

    def _free(self, round_id: int) -> bool:
        others = [other for key, other in self._waiting.items() if key != round_id]
        return may_start(load_class=self._waiting[round_id], running=set(self._running.values()), waiting=others)
