"""Packets dropped by the queueing disciplines of our network namespace, asked of the kernel over rtnetlink."""

import struct

from producers.netlink import attributes, dump

_RTM_NEWQDISC = 36
_RTM_GETQDISC = 38
# struct tcmsg: family, padding, interface, handle, parent, info.
_TCMSG = struct.Struct("=BBHiIII")
_TCA_STATS = 3
# struct tc_stats begins: bytes (64 bits), packets, drops.
_STATS = struct.Struct("=QII")
_TC_H_ROOT = 0xFFFFFFFF
_TC_H_INGRESS = 0xFFFFFFF1


def dropped(body: bytes) -> int:
    """Packets dropped by the discipline that one message tells of.

    Only a discipline at a device's root (or its ingress) counts: it includes what its children drop.
    """
    if len(body) < _TCMSG.size or _TCMSG.unpack_from(body)[5] not in (_TC_H_ROOT, _TC_H_INGRESS):
        return 0
    stats = attributes(body, after=_TCMSG.size).get(_TCA_STATS, b"")
    return int(_STATS.unpack_from(stats)[2]) if len(stats) >= _STATS.size else 0


def qdisc_drops() -> int:
    """Packets dropped so far; 0 where the kernel does not tell."""
    try:
        return sum(dropped(body) for body in dump(ask=_RTM_GETQDISC, told=_RTM_NEWQDISC, body=bytes(_TCMSG.size)))
    except OSError:
        return 0
