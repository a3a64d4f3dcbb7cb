"""The serving side's TCP_INFO of one connection, as growth that belongs to the source of its requests.

A kept connection may serve several rounds and sources one after the other: what its counters have grown by is added to
the source so far before the next one begins. No look at the kernel per request.

Lost on the way back is what was sent again and not reported as a duplicate (DSACK), and what is still unacknowledged
when the client ends the connection. A lost SYN-ACK is sent again twice (by our own timer, and in answer to the client's
SYN sent again), so half of them, rounded up, were lost.
"""

import socket

from producers.probes import tcp_info
from producers.receipts import Growth, Receipts, Source

# After a retransmission the peer's report of a duplicate may come late: so many more looks.
_LOOKS_AFTER_RETRANS = 2


class Segments:
    """One accepted connection's counters; make it when the connection is there, before anything is sent on it."""

    __slots__ = ("_before", "_ending", "_looks", "_opened", "_receipts", "_sock", "_synacks_again", "source")

    def __init__(self, *, sock: socket.socket, receipts: Receipts) -> None:
        self.source: Source | None = None
        self._sock = sock
        self._receipts = receipts
        self._synacks_again = tcp_info.synacks_sent_again(sock)
        self._before = tcp_info.NOTHING
        self._opened = True
        self._looks = 0
        self._ending = False

    def begin(self, source: Source) -> None:
        """A request of this source has come; growth from now on is its own."""
        if source != self.source:
            self.collect()
            self.source = source
        self._looks = self._looks or 1

    def ending(self) -> None:
        """Our last segment, the FIN, is about to go out; whether it arrives is nobody's request."""
        self._ending = True

    def collect(self, *, ended: bool = False) -> None:
        """Tell the growth since the last time; `ended`: the client sends nothing more, nor acknowledges."""
        if not self._looks or self.source is None or self._sock.fileno() < 0:
            return
        now = tcp_info.read(self._sock)
        if now is tcp_info.NOTHING:
            return
        before, self._before = self._before, now
        retrans = now[tcp_info.RETRANS] - before[tcp_info.RETRANS]
        again = self._synacks_again if self._opened else 0
        synack_lost = (again + 1) // 2
        spurious = now[tcp_info.DSACK_DUPS] - before[tcp_info.DSACK_DUPS]
        unacked = max(0, now[tcp_info.UNACKED] - self._ending) if ended else 0
        growth = Growth(
            accepted=int(self._opened),
            sent=now[tcp_info.DATA_SEGS_OUT] - before[tcp_info.DATA_SEGS_OUT] + (1 + again if self._opened else 0),
            lost=synack_lost + retrans - again - spurious + unacked,
            synack_lost=synack_lost,
            segs_in=now[tcp_info.SEGS_IN] - before[tcp_info.SEGS_IN],
            segs_out=now[tcp_info.SEGS_OUT] - before[tcp_info.SEGS_OUT],
            retrans=retrans,
        )
        self._opened = False
        unsettled = now[tcp_info.UNACKED] > 0 and not ended
        self._looks = _LOOKS_AFTER_RETRANS if retrans else 1 if unsettled else self._looks - 1
        if any(growth):
            self._receipts.segments(self.source, growth)
