"""Tells on the lab's terminal what the controller says of its task files: why it refuses them, that they are mended.

The controller writes its answer beside the statuses; a lab that stays up is fed by hand, and nobody looks there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from controller.source_files import PROBLEMS_FILE
from controller.tasks.problems import Problem

POLL_S = 0.5


class Problems(msgspec.Struct, frozen=True, kw_only=True):
    """What the controller wrote; none: all files are good."""

    problems: tuple[Problem, ...] = ()


def read_problems(state: Path) -> Problems | None:
    """The controller's newest answer; None while there is none."""
    try:
        return msgspec.json.decode((state / PROBLEMS_FILE).read_bytes(), type=Problems)
    except (OSError, msgspec.MsgspecError):
        return None


def words(before: Problems, now: Problems) -> str:
    """What to say of a change; empty when there is none."""
    if now == before:
        return ""
    if not now.problems:
        return "task files: all good again"
    count = len(now.problems)
    listed = "\n".join(f"  {problem}" for problem in now.problems)
    return (
        f"task files refused ({count} {'problem' if count == 1 else 'problems'}); the last good set goes on:\n{listed}"
    )


async def follow_problems(state: Path, *, say: Callable[[str], None]) -> None:
    """Say every change once, until cancelled."""
    told = Problems()
    while True:
        now = await asyncio.to_thread(read_problems, state)
        if now is not None:
            text = words(told, now)
            if text:
                say(text)
            told = now
        await asyncio.sleep(POLL_S)
