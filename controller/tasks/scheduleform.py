"""The two forms of a schedule: "M N" in minutes, or five cron fields. Text in, value out; no clock."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cronsim import CronSim, CronSimError

_SIMPLE = re.compile(r"[0-9]{1,6} [0-9]{1,6}")
_ANY_DAY = datetime(2024, 1, 1, tzinfo=UTC)
MINUTES_MAX = 999_999


@dataclass(frozen=True, slots=True, kw_only=True)
class Simple:
    """First round ``delay_minute`` after the task is seen, then one every ``interval_minute``, start to start."""

    delay_minute: int
    interval_minute: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """Five cron fields, in the controller's time zone (UTC). ``?`` has become ``*``."""

    expression: str


@lru_cache(maxsize=4096)
def parse(text: str) -> Simple | Cron | None:
    """The form of ``text``, or None where it is neither of the two."""
    pieces = text.split(" ")
    if len(pieces) == 2:
        return _simple(text)
    return _cron(pieces) if len(pieces) == 5 and len(text) <= 256 else None


def _simple(text: str) -> Simple | None:
    if _SIMPLE.fullmatch(text) is None:
        return None
    delay, interval = (int(piece) for piece in text.split(" "))
    return Simple(delay_minute=delay, interval_minute=interval) if interval >= 1 else None


def _cron(pieces: list[str]) -> Cron | None:
    if "" in pieces:
        return None
    expression = " ".join("*" if piece == "?" else piece for piece in pieces)
    try:
        # A well-formed expression may still name a day that never comes (30 February).
        next(CronSim(expression, _ANY_DAY))
    except (CronSimError, StopIteration, ValueError, AssertionError):
        return None
    return Cron(expression=expression)
