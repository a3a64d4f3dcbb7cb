"""Where a check shows its progress, and where it keeps it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from kpatrol.check.mesh import Pair
from kpatrol.check.result import Result


class Told(Protocol):
    """Where progress is shown."""

    def step(self, text: str) -> None:
        """A line of what happens now."""
        ...

    def progress(self, *, done: int, of: int, left_s: float) -> None:
        """Requests recorded, and the time left."""
        ...


class Saves(Protocol):
    """Where progress is kept, so that a check that was ended can be taken up again."""

    def __call__(self, so_far: Result, left: Collection[Pair]) -> None:
        """What was found, and the pairs that are still to be asked."""
        ...
