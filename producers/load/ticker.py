"""A timer that fires to some ten microseconds inside an event loop.

Event loops round their timers up to whole milliseconds (epoll's unit), which is ten times the lateness we allow
ourselves. On Linux a timerfd wakes the loop instead; elsewhere the loop's own timer has to do.
"""

import asyncio
import ctypes
import math
import os
import sys
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_TFD_TIMER_ABSTIME = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


def now_us() -> int:
    """Microseconds of the monotonic clock: the one clock of the load."""
    return time.monotonic_ns() // 1000


class LoopTicker:
    """The loop's own timer: whole milliseconds on most loops."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fire: Callable[[], None]) -> None:
        self._loop = loop
        self._fire = fire
        self._handle: asyncio.TimerHandle | None = None
        self._next_us = self._every_us = 0.0

    def start(self, at_us: int, every_us: float) -> None:
        """Fire at `at_us` and every `every_us` from then on; replaces what was set before."""
        self.close()
        self._next_us, self._every_us = at_us, every_us
        self._handle = self._loop.call_later(max(0.0, self._next_us - now_us()) / 1e6, self._ready)

    def close(self) -> None:
        """Fire no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ready(self) -> None:
        self._next_us += self._every_us
        self._handle = self._loop.call_later(max(0.0, self._next_us - now_us()) / 1e6, self._ready)
        self._fire()


class TimerfdTicker:
    """A timerfd on the monotonic clock, watched by the loop. Raises OSError where the kernel gives none.

    Periodic: setting the timer anew for each request would cost 8 µs of a virtual machine's time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, fire: Callable[[], None]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._settime = libc.timerfd_settime
        self._settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self._fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop = loop
        self._fire = fire
        loop.add_reader(self._fd, self._ready)

    def start(self, at_us: int, every_us: float) -> None:
        """Fire at `at_us` and every `every_us` from then on; replaces what was set before."""
        spec = _Itimerspec()
        # Rounded up, so that no tick comes before what is due; a value of 0 would stop the timer.
        spec.interval.sec, spec.interval.nsec = divmod(math.ceil(every_us * 1000), 1_000_000_000)
        spec.value.sec, micros = divmod(at_us, 1_000_000)
        spec.value.nsec = micros * 1000 + 1
        self._settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.addressof(spec), None)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            # Whom it told most likely refers to it, and would wait for the garbage collector.
            self._fire = _nothing

    def _ready(self) -> None:
        try:
            # Reading clears the readiness; a timer set anew meanwhile has nothing to read and must not fire.
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self._fire()


def _nothing() -> None:
    """Said by nobody."""


def ticker(loop: asyncio.AbstractEventLoop, fire: Callable[[], None]) -> LoopTicker | TimerfdTicker:
    """The finest timer this machine has."""
    if sys.platform == "linux":
        try:
            return TimerfdTicker(loop, fire)
        except (OSError, AttributeError):
            pass
    return LoopTicker(loop, fire)
