"""Packets that the kernel dropped in this process's own sockets, for want of room or of attention.

The kernel keeps one number a socket (what SO_RXQ_OVFL shows with each datagram); SO_MEMINFO asks for it at any time, so
reading datagrams costs nothing more. Datagram sockets and listening ones count: on a connected TCP socket the same
number also rises for segments that came twice, which is the network's doing.
"""

import ctypes
import functools
import os
import socket
import stat
from pathlib import Path
from typing import Any

_SO_MEMINFO = 55
_MEMINFO_WORDS = 9
_DROPS = 8


def drops_of(fd: int) -> int:
    """Packets dropped in the socket of that descriptor so far; 0 where the kernel does not tell."""
    words = (ctypes.c_uint32 * _MEMINFO_WORDS)()
    return int(words[_DROPS]) if _asked(fd, _SO_MEMINFO, words) else 0


def drops_by_socket(*, descriptors: Path = Path("/proc/self/fd")) -> dict[int, int]:
    """Drops so far in every datagram or listening socket of this process that lives now, by inode."""
    found = {}
    for name in os.listdir(descriptors):  # noqa: PTH208 (names, not paths: there may be thousands)
        fd = int(name)
        try:
            about = os.fstat(fd)
        except OSError:
            continue  # the descriptor of the listing itself
        if stat.S_ISSOCK(about.st_mode) and _is_telling(fd):
            found[about.st_ino] = drops_of(fd)
    return found


def since(*, now: dict[int, int], before: dict[int, int]) -> int:
    """Drops between two readings; a socket not there before began with none. 32-bit counters may wrap."""
    return sum((drops - before.get(inode, 0)) & 0xFFFFFFFF for inode, drops in now.items())


def _is_telling(fd: int) -> bool:
    value = (ctypes.c_uint32 * 1)()
    if not _asked(fd, socket.SO_TYPE, value):
        return False
    if value[0] != socket.SOCK_STREAM:
        return True
    return _asked(fd, socket.SO_ACCEPTCONN, value) and value[0] == 1


def _asked(fd: int, option: int, into: "ctypes.Array[ctypes.c_uint32]") -> bool:
    getsockopt = _getsockopt()
    size = ctypes.c_uint32(ctypes.sizeof(into))
    return getsockopt is not None and getsockopt(fd, socket.SOL_SOCKET, option, into, ctypes.byref(size)) == 0


@functools.cache
def _getsockopt() -> Any:
    """The C function: Python's own wants a socket object, and the responder's sockets belong to the event loop."""
    try:
        return ctypes.CDLL(None).getsockopt
    except (OSError, AttributeError):
        return None
