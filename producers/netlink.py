"""Questions to the kernel over rtnetlink: the one place that knows its framing (RFC 3549, rtnetlink(7)).

Reading a reply is a pure function over bytes; one socket is opened for a question and closed.
"""

import socket
import struct
from collections.abc import Iterator

_DONE = 3
_ERROR = 2
_REQUEST_DUMP = 0x301
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_REPLY_BYTES = 1 << 16
_TIMEOUT_S = 1.0


def dump(*, ask: int, told: int, body: bytes) -> Iterator[bytes]:
    """Every message of type `told` in the answer to the dump request `ask`, without its header. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(_TIMEOUT_S)
        netlink.send(_HEADER.pack(_HEADER.size + len(body), ask, _REQUEST_DUMP, 1, 0) + body)
        over = False
        while not over:
            found, over = messages(netlink.recv(_REPLY_BYTES), told=told)
            yield from found


def messages(reply: bytes, *, told: int) -> tuple[list[bytes], bool]:
    """(the bodies of the messages of type `told` in one reply, whether the dump is over)."""
    found: list[bytes] = []
    offset = 0
    while offset + _HEADER.size <= len(reply):
        length, kind, _, _, _ = _HEADER.unpack_from(reply, offset)
        if kind in (_DONE, _ERROR) or length < _HEADER.size:
            return found, True
        if kind == told:
            found.append(reply[offset + _HEADER.size : offset + length])
        offset += _aligned(length)
    return found, False


def attributes(body: bytes, *, after: int) -> dict[int, bytes]:
    """The attributes that follow a message's fixed part of `after` bytes, up to the first that makes no sense."""
    values: dict[int, bytes] = {}
    offset = after
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            break
        values[kind] = body[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)
    return values


def _aligned(length: int) -> int:
    return (length + 3) & ~3
