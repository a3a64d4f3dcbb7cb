"""A timer that fires to some ten microseconds inside an event loop.

Event loops round their timers up to whole milliseconds (epoll's unit), which is ten times the lateness we allow
ourselves. On Linux a timerfd wakes the loop instead; elsewhere the loop's own timer has to do.
"""

import asyncio
import ctypes
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

    def arm(self, at_us: int) -> None:
        """Fire once at `at_us`; replaces what was armed before."""
        self.disarm()
        self._handle = self._loop.call_later(max(0, at_us - now_us()) / 1e6, self._fire)

    def disarm(self) -> None:
        """Do not fire."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    close = disarm


class TimerfdTicker:
    """A timerfd on the monotonic clock, watched by the loop. Raises OSError where the kernel gives none."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fire: Callable[[], None]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._settime = libc.timerfd_settime
        self._settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self._fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop = loop
        self._fire = fire
        self._spec = _Itimerspec()
        self._value = self._spec.value
        self._address = ctypes.addressof(self._spec)
        loop.add_reader(self._fd, self._ready)

    def arm(self, at_us: int) -> None:
        """Fire once at `at_us`; replaces what was armed before."""
        value = self._value
        value.sec, micros = divmod(at_us, 1_000_000)
        # Never 0, which would disarm.
        value.nsec = micros * 1000 + 1
        self._settime(self._fd, _TFD_TIMER_ABSTIME, self._address, None)

    def disarm(self) -> None:
        """Do not fire."""
        self._value.sec = self._value.nsec = 0
        self._settime(self._fd, _TFD_TIMER_ABSTIME, self._address, None)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _ready(self) -> None:
        try:
            # Reading clears the readiness; a timer armed again meanwhile has nothing to read and must not fire.
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self._fire()


def ticker(loop: asyncio.AbstractEventLoop, fire: Callable[[], None]) -> LoopTicker | TimerfdTicker:
    """The finest timer this machine has."""
    if sys.platform == "linux":
        try:
            return TimerfdTicker(loop, fire)
        except (OSError, AttributeError):
            pass
    return LoopTicker(loop, fire)
