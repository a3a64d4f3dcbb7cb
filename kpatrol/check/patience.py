"""Calls to a cluster that may be away for a moment (its API server starts anew), and calls that must not be left half
way when the check is told to stop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from kpatrol.check.cluster import ClusterTrouble

R = TypeVar("R")
AGAIN_S = 1.0
PATIENCE_S = 60.0


async def patient(call: Callable[[], R], *, patience_s: float = PATIENCE_S) -> R:
    """What the blocking call returns, tried again for so long while its trouble is one that passes."""
    until = time.monotonic() + patience_s
    while True:
        try:
            return await asyncio.to_thread(call)
        except ClusterTrouble as trouble:
            if not trouble.passing or time.monotonic() > until:
                raise
        await asyncio.sleep(AGAIN_S)


async def whole(call: Callable[[], R], *, patience_s: float = PATIENCE_S) -> R:
    """The same for a call that changes something: who is cancelled meanwhile still waits for its answer, so that what
    it made is there to be removed."""
    work = asyncio.ensure_future(patient(call, patience_s=patience_s))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work}, timeout=patience_s)
        raise
