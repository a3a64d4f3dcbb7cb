"""How far the lab's rounds are: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

PLAIN_EVERY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What there is to show: rounds judged finally, rows stored, packets lost, requests failed."""

    rounds: int
    rounds_expected: int
    requests: int
    requests_planned: int
    packets_lost: int
    requests_failed: int

    def words(self) -> str:
        """One line."""
        total = self.rounds_expected if self.rounds_expected >= 0 else "∞"
        return (
            f"rounds {self.rounds}/{total}  requests {self.requests}"
            f"  lost packets {self.packets_lost}  failed requests {self.requests_failed}"
        )


class Shown(Protocol):
    """Where progress goes."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def update(self, state: State) -> None:
        """The newest state."""

    def close(self) -> None:
        """No more."""


class Bar:
    """A progress bar on standard error."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=None)
        self._progress.start()

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(text, highlight=False, markup=False)

    def update(self, state: State) -> None:
        """Redraw; the share is of the requests planned by the rounds known so far and to come."""
        known = max(1, state.requests_planned)
        total = known if state.rounds_expected >= 0 else None
        self._progress.update(self._task, description=state.words(), total=total, completed=state.requests)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


class Lines:
    """Plain lines on standard error, at most one every few seconds."""

    def __init__(self) -> None:
        self._last_s = 0.0
        self._newest = ""
        self._told = ""

    def say(self, text: str) -> None:
        """A line."""
        print(text, file=sys.stderr, flush=True)

    def update(self, state: State) -> None:
        """A line when something has changed and the last one is old enough."""
        self._newest = state.words()
        if time.monotonic() - self._last_s >= PLAIN_EVERY_S:
            self._tell()

    def close(self) -> None:
        """The newest state, when the last line was an older one."""
        self._tell()

    def _tell(self) -> None:
        if self._newest != self._told:
            self._last_s, self._told = time.monotonic(), self._newest
            self.say(self._newest)


def shown() -> Shown:
    """A bar where a person looks, lines elsewhere."""
    return Bar() if sys.stderr.isatty() else Lines()
