"""What the kernel says of this machine's clock: whether something disciplines it, its offset and how wrong it may be.

`adjtimex` needs no network and no privilege. The offset is what the discipline still has to correct by its own
estimate; the error is its own bound. Both are the word of whoever disciplines the clock (NTP, PTP), not a measurement.
"""

import ctypes
import sys
from dataclasses import dataclass

_STA_UNSYNC = 0x0040
_STA_NANO = 0x2000
_TIME_ERROR = 5


class _Timex(ctypes.Structure):
    """struct timex of <sys/timex.h>: we only read, so `modes` stays 0."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockState:
    """`offset_us` and `error_us` are None where nothing disciplines the clock: then nobody knows them."""

    synchronised: bool
    offset_us: int | None
    error_us: int | None


def clock_state() -> ClockState | None:
    """The clock's state now; None where the kernel does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    timex = _Timex()
    try:
        state = int(ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)))
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    return judged(state=state, status=timex.status, offset=timex.offset, max_error_us=timex.maxerror)


def judged(*, state: int, status: int, offset: int, max_error_us: int) -> ClockState:
    """The state that adjtimex's answer means; its offset is in ns with STA_NANO, else in µs. Pure."""
    if state == _TIME_ERROR or status & _STA_UNSYNC:
        return ClockState(synchronised=False, offset_us=None, error_us=None)
    offset_us = round(offset / 1000) if status & _STA_NANO else offset
    return ClockState(synchronised=True, offset_us=offset_us, error_us=max_error_us)
