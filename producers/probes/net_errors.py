"""What the network answered instead of the target: ICMP errors with the packet they are about (ip(7), IP_RECVERR).

Reading them also names the very request; without the queue a socket tells the error only, and of some none at all.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

_EXTENDED = struct.Struct("=IBBBxII")
_RECVERR = {(socket.IPPROTO_IP, 11), (socket.IPPROTO_IPV6, 25)}
_QUOTE_BYTES = 2048
_ANCILLARY_BYTES = 512
LOCAL, ICMP, ICMP6 = 1, 2, 3

HOP_LIMIT_EXCEEDED = "hop_limit_exceeded"

# By origin, type and code, where errno alone says less.
_TEXTS = {
    (ICMP, 3, 9): "prohibited",
    (ICMP, 3, 10): "prohibited",
    (ICMP, 3, 13): "prohibited",
    (ICMP6, 1, 1): "prohibited",
    (ICMP, 11, 0): HOP_LIMIT_EXCEEDED,
    (ICMP6, 3, 0): HOP_LIMIT_EXCEEDED,
}


class NetError(NamedTuple):
    """One error: `origin` LOCAL is our own kernel's; `mtu` is what would fit, 0 where that is not the matter; `quote`
    is the beginning of the packet, from the socket's own protocol on (UDP payload, ICMP header); `offender` is the
    address of who told it."""

    error: int
    origin: int
    mtu: int
    text: str
    quote: bytes
    offender: str = ""


def pending(sock: socket.socket) -> Iterator[NetError]:
    """Take every error that waits at the socket."""
    while True:
        try:
            quote, ancillary, _, _ = sock.recvmsg(_QUOTE_BYTES, _ANCILLARY_BYTES, socket.MSG_ERRQUEUE)
        except OSError:
            return
        for level, kind, data in ancillary:
            if (level, kind) in _RECVERR and len(data) >= _EXTENDED.size:
                yield parse(data, quote)


def parse(data: bytes, quote: bytes) -> NetError:
    """An error from struct sock_extended_err."""
    number, origin, kind, code, info, _ = _EXTENDED.unpack_from(data)
    mtu = info if number == errno.EMSGSIZE else 0
    text = _TEXTS.get((origin, kind, code), "")
    return NetError(number, origin, mtu, text, quote, _address(origin, data[_EXTENDED.size :]))


def _address(origin: int, data: bytes) -> str:
    """Of the struct sockaddr_in or sockaddr_in6 behind the error; empty where our own kernel told it."""
    if origin == ICMP and len(data) >= 8:
        return socket.inet_ntop(socket.AF_INET, data[4:8])
    if origin == ICMP6 and len(data) >= 24:
        return socket.inet_ntop(socket.AF_INET6, data[8:24])
    return ""
