"""The serving side's TCP_INFO of one connection, as growth that belongs to the source of its requests.

A kept connection may serve several rounds and sources one after the other: what its counters have grown by is added to
the source so far before the next one begins. No look at the kernel per request.

Lost on the way back is what was sent again and not reported as a duplicate (DSACK), and what is still unacknowledged
when the client ends the connection; not our own FIN, which is sent again when its acknowledgement was lost. A lost
SYN-ACK is sent again twice, by our own timer and in answer to the client's SYN sent again, and one of the two came;
whether the other did nobody can say.
"""

import socket

from producers.probes import tcp_info
from producers.receipts import Growth, Receipts, Source

# After a retransmission the peer's report of a duplicate may come late: so many more looks.
_LOOKS_AFTER_RETRANS = 2


class Segments:
    """One accepted connection's counters; make it when the connection is there, before anything is sent on it."""

    __slots__ = (
        "_again_bytes",
        "_before",
        "_ending",
        "_last_bytes",
        "_looks",
        "_lost",
        "_opened",
        "_receipts",
        "_sock",
        "_synacks_again",
        "source",
    )

    def __init__(self, *, sock: socket.socket, receipts: Receipts) -> None:
        self.source: Source | None = None
        self._sock = sock
        self._receipts = receipts
        self._synacks_again = tcp_info.synacks_sent_again(sock)
        self._before = tcp_info.NOTHING
        self._opened = True
        self._looks = 0
        self._ending = False
        self._again_bytes = 0
        self._last_bytes = 0
        self._lost = 0

    def begin(self, source: Source) -> None:
        """A request of this source has come; growth from now on is its own."""
        if source != self.source:
            self.collect()
            self.source = source
        self._looks = self._looks or 1

    @property
    def awaits_report(self) -> bool:
        """Whether something was sent again of late, so that the peer may still say it had it."""
        return self._looks > 0 and self._before[tcp_info.RETRANS] > 0

    def ending(self, *, last_bytes: int) -> None:
        """Our FIN is about to go out after an answer of `last_bytes`; whether it arrives is nobody's request."""
        self._ending = True
        self._last_bytes = last_bytes

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
        synack_lost = max(1, again - 1) if again else 0
        spurious = now[tcp_info.DSACK_DUPS] - before[tcp_info.DSACK_DUPS]
        unacked = max(0, now[tcp_info.UNACKED] - self._ending) if ended else 0
        # A report of a FIN sent again, or of anything else not counted, takes nothing back.
        lost = max(-self._lost, self._with_data(retrans - again) - spurious) + unacked
        self._lost += lost
        growth = Growth(
            accepted=int(self._opened),
            sent=now[tcp_info.DATA_SEGS_OUT] - before[tcp_info.DATA_SEGS_OUT] + (1 + again if self._opened else 0),
            lost=synack_lost + lost,
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

    def _with_data(self, retrans: int) -> int:
        """Of so many segments sent again since the last time, those that were no FIN."""
        if not retrans or not self._ending:
            return retrans
        again = tcp_info.sent_again(self._sock)
        size_bytes = again.size_bytes - self._again_bytes
        self._again_bytes = again.size_bytes
        return min(retrans, -(-size_bytes // max(1, min(again.mss, self._last_bytes))))
