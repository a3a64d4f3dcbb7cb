"""The kernel's own account of a TCP connection (struct tcp_info), and what one request's share of it was.

Read by length: an older kernel gives fewer bytes, the rest counts as 0. `getsockopt` costs 0.6 µs.
"""

import socket
import struct
from typing import NamedTuple, TypeAlias

# unacked, rtt_us, total_retrans, segs_out, segs_in, min_rtt_us, data_segs_out, dsack_dups
Info: TypeAlias = tuple[int, int, int, int, int, int, int, int]

NOTHING: Info = (0, 0, 0, 0, 0, 0, 0, 0)
UNACKED, RTT, RETRANS, SEGS_OUT, SEGS_IN, MIN_RTT, DATA_SEGS_OUT, DSACK_DUPS = range(8)

_FIELDS = struct.Struct("=24xI40xI28xI32xII4xI4xI56xI")
_LENGTH = _FIELDS.size
_unpack = _FIELDS.unpack
# snd_mss, total_retrans, bytes_retrans
_AGAIN = struct.Struct("=16xI80xI104xQ")
_OPTION = getattr(socket, "TCP_INFO", None)
# The kernel reports "no sample yet" of the minimum as all ones.
_NO_RTT = 0xFFFFFFFF


class Packets(NamedTuple):
    """One request's segments: `sent` carry data or open the connection, `lost` of them never arrived."""

    sent: int
    lost: int
    segs_out: int
    segs_in: int
    retrans: int
    min_rtt_us: int


def read(sock: socket.socket) -> Info:
    """The counters of a connection; all 0 where the socket is closed or the system has no TCP_INFO."""
    try:
        data = sock.getsockopt(6, _OPTION, _LENGTH)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return NOTHING
    if len(data) < _LENGTH:
        return parse(data)
    info: Info = _unpack(data)
    return info


def parse(data: bytes) -> Info:
    """The counters in a struct tcp_info of any length."""
    if len(data) < _LENGTH:
        data = data.ljust(_LENGTH, b"\0")
    info: Info = _FIELDS.unpack_from(data)
    return info


class Again(NamedTuple):
    """What a connection has sent again: segments, and the bytes in them (SYN-ACKs and FINs have none)."""

    segments: int
    size_bytes: int
    mss: int


def sent_again(sock: socket.socket) -> Again:
    """What a connection has sent again so far; all 0 as in `read`."""
    try:
        data = sock.getsockopt(6, _OPTION, _AGAIN.size)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return Again(0, 0, 0)
    mss, segments, size_bytes = _AGAIN.unpack_from(data.ljust(_AGAIN.size, b"\0"))
    return Again(segments, size_bytes, mss)


def synacks_sent_again(sock: socket.socket) -> int:
    """How often the SYN-ACK of a connection just accepted was sent again.

    What a TLS handshake had to repeat meanwhile can be told from it by its bytes.
    """
    again = sent_again(sock)
    data_segments = -(-again.size_bytes // again.mss) if again.mss else 0
    return max(0, again.segments - data_segments)


def packets(before: Info, after: Info, *, opened: bool, opening_retrans: int = 0, timed_out: bool = False) -> Packets:
    """What one request cost, from the counters before and after it.

    A connection opened for the request counts its SYN (and the SYNs sent again, `opening_retrans`); `before` is then
    NOTHING. A retransmission stands for a segment lost on the way there, unless the peer says by DSACK that it had
    the segment already: then its answer was lost, not ours. What is unacknowledged at a timeout is lost too.
    """
    retrans = after[RETRANS] - before[RETRANS]
    spurious = after[DSACK_DUPS] - before[DSACK_DUPS]
    sent = after[DATA_SEGS_OUT] - before[DATA_SEGS_OUT] + (1 + opening_retrans if opened else 0)
    lost = retrans - spurious if retrans > spurious else 0
    if timed_out:
        lost += after[UNACKED]
    min_rtt_us = after[MIN_RTT]
    return Packets(
        sent,
        lost if lost < sent else sent,
        after[SEGS_OUT] - before[SEGS_OUT],
        after[SEGS_IN] - before[SEGS_IN],
        retrans,
        0 if min_rtt_us == _NO_RTT else min_rtt_us,
    )


def dsack_wait_s(info: Info) -> float:
    """How long a peer's DSACK may follow its answer: two of the shortest round trips and a little."""
    min_rtt_us = 0 if info[MIN_RTT] == _NO_RTT else info[MIN_RTT]
    return min(0.003 + 2 * min_rtt_us / 1e6, 0.2)
