"""One question over HTTP, for readiness: does that page answer 200?"""

from __future__ import annotations

import asyncio
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from kpatrol.lab.errors import LabError


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Whether the page answers 200 within a second."""
    try:
        with urllib.request.urlopen(url, timeout=1) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


async def wait_until(ready: Callable[[], bool], *, what: str, timeout_s: float, hint: Callable[[], str]) -> None:
    """Ask every fifth of a second. Raises LabError with the hint when it is not so in time."""
    end = time.monotonic() + timeout_s
    while not await asyncio.to_thread(ready):
        if time.monotonic() > end:
            raise LabError(f"{what}: not ready after {timeout_s:.0f} s\n{hint()}")
        await asyncio.sleep(0.2)
