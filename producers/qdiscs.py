"""Packets dropped by the queueing disciplines of our network namespace, asked of the kernel over rtnetlink.

The wire format is a pure function over bytes; one socket is opened for the question and closed.
"""

import socket
import struct

_RTM_NEWQDISC = 36
_RTM_GETQDISC = 38
_NLMSG_DONE = 3
_NLMSG_ERROR = 2
_REQUEST_DUMP = 0x301
_HEADER = struct.Struct("=IHHII")
# struct tcmsg: family, padding, interface, handle, parent, info.
_TCMSG = struct.Struct("=BBHiIII")
_ATTRIBUTE = struct.Struct("=HH")
_TCA_STATS = 3
# struct tc_stats begins: bytes (64 bits), packets, drops.
_STATS = struct.Struct("=QII")
_TC_H_ROOT = 0xFFFFFFFF
_TC_H_INGRESS = 0xFFFFFFF1


def dropped(reply: bytes) -> tuple[int, bool]:
    """(packets dropped by the disciplines in a reply, whether the dump is over).

    Only the disciplines at a device's root (or its ingress) count: they include what their children drop.
    """
    total = 0
    offset = 0
    while offset + _HEADER.size <= len(reply):
        length, kind, _, _, _ = _HEADER.unpack_from(reply, offset)
        if kind in (_NLMSG_DONE, _NLMSG_ERROR) or length < _HEADER.size:
            return total, True
        if kind == _RTM_NEWQDISC:
            total += _drops(reply[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3
    return total, False


def _drops(body: bytes) -> int:
    if len(body) < _TCMSG.size or _TCMSG.unpack_from(body)[5] not in (_TC_H_ROOT, _TC_H_INGRESS):
        return 0
    offset = _TCMSG.size
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            return 0
        if kind == _TCA_STATS and length >= _ATTRIBUTE.size + _STATS.size:
            return int(_STATS.unpack_from(body, offset + _ATTRIBUTE.size)[2])
        offset += (length + 3) & ~3
    return 0


def qdisc_drops() -> int:
    """Packets dropped so far; 0 where the kernel does not tell."""
    total = 0
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
            netlink.settimeout(1.0)
            body = bytes(_TCMSG.size)
            netlink.send(_HEADER.pack(_HEADER.size + len(body), _RTM_GETQDISC, _REQUEST_DUMP, 1, 0) + body)
            over = False
            while not over:
                part, over = dropped(netlink.recv(1 << 16))
                total += part
    except OSError:
        return 0
    return total
