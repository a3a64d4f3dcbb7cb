"""What each end of a STAMP session remembers, as pure state: no clock, no socket.

The reflector keeps its own sequence number and which of the last 64 packets have come, and says both in every answer.
So the asking side knows of a packet without an answer whether it was lost on the way there or on the way back, as soon
as any later answer comes, and without a synchronised clock. Reordering is RFC 4737's (a packet is reordered when a
later one has come before it), duplicates are packets that have come already.

Delays by direction: receive minus send timestamp is the time of the way there plus the difference of the two clocks.
That difference is taken from the fastest round trip so far, as if both ways took equally long then. So the level may be
wrong by the paths' asymmetry; what RFC 5481 calls PDV, the delay less the least delay, is not.
"""

from collections import deque
from typing import NamedTuple

from producers.probes import stamp

WINDOW = 64
_ALL = (1 << WINDOW) - 1
# A mask is kept for every so many numbers: fewer than a mask covers, so that none is left out.
_STRIDE = 48
_MASKS = 512

REQUEST_LOST, REPLY_LOST = "request_lost", "reply_lost"
# Bits of a row's `status`: what an answered request's two packets went through.
REQUEST_REORDERED, REPLY_REORDERED, REQUEST_DUPLICATED = 1, 2, 4


class ReflectorSession:
    """One session at the reflector."""

    __slots__ = ("count", "highest", "last_us", "mask")

    def __init__(self) -> None:
        self.count = 0
        self.highest = -1
        self.mask = 0
        self.last_us = 0

    def came(self, number: int, now_us: int) -> stamp.Seen:
        """One packet has come; what the answer says."""
        self.last_us = now_us
        order, self.count = self.count, self.count + 1
        ahead = number - self.highest
        flags = 0
        if ahead > 0:
            self.mask = (self.mask << ahead | 1) & _ALL if ahead < WINDOW else 1
            self.highest = number
        elif -ahead < WINDOW and self.mask >> -ahead & 1:
            flags = stamp.DUPLICATE
        else:
            flags = stamp.REORDERED
            self.mask |= 1 << -ahead & _ALL
        return stamp.Seen(order, self.highest, self.mask, flags)


UNKNOWN = stamp.Seen(0, 0, 0, stamp.STATELESS)


class Facts(NamedTuple):
    """What an answer tells of its request: flags for the row, the round trip without the reflector's time and the way
    there, both in µs (0 = unknown)."""

    flags: int
    net_us: int
    there_us: int


class SenderSession:
    """One session at the sender."""

    __slots__ = ("_highest_order", "_incarnation", "_masks", "_offset_us", "_quickest_us", "_since")

    def __init__(self) -> None:
        self._incarnation = 0
        self._since = 0
        self._masks: deque[tuple[int, int]] = deque(maxlen=_MASKS)
        self._highest_order = -1
        self._quickest_us = 0
        self._offset_us = 0

    def answered(self, reply: stamp.Reply, round_trip_us: int) -> Facts:
        """One reply has come, `round_trip_us` after its request was sent."""
        if reply.incarnation != self._incarnation:
            # Another process has begun to count anew; what came before, it does not know.
            self._since = reply.highest if self._incarnation else 0
            self._incarnation = reply.incarnation
            self._masks.clear()
            self._highest_order = -1
        flags = 0
        if not reply.flags & stamp.STATELESS:
            self._remember(reply.highest, reply.mask)
            flags = self._flags(reply)
        net_us = max(1, round_trip_us - max(0, stamp.between_us(reply.sent, reply.received)))
        return Facts(flags, net_us, self._there_us(stamp.between_us(reply.received, reply.stamp), net_us))

    def fate(self, number: int) -> str:
        """What became of a packet without an answer; an empty string while no later answer has told."""
        if number < self._since:
            return ""
        for highest, mask in reversed(self._masks):
            back = highest - number
            if 0 <= back < WINDOW:
                return REPLY_LOST if mask >> back & 1 else REQUEST_LOST
        return ""

    def _remember(self, highest: int, mask: int) -> None:
        masks = self._masks
        if masks and highest < masks[-1][0]:
            # Said before what is known already, or by a packet that has overtaken: an older view.
            return
        if len(masks) >= 2 and highest - masks[-2][0] <= _STRIDE:
            masks[-1] = (highest, mask)
        else:
            masks.append((highest, mask))

    def _flags(self, reply: stamp.Reply) -> int:
        flags = REQUEST_REORDERED if reply.flags & stamp.REORDERED else 0
        if reply.flags & stamp.DUPLICATE:
            flags |= REQUEST_DUPLICATED
        if reply.order < self._highest_order:
            return flags | REPLY_REORDERED
        self._highest_order = reply.order
        return flags

    def _there_us(self, apart_us: int, net_us: int) -> int:
        if not self._quickest_us or net_us < self._quickest_us:
            self._quickest_us = net_us
            self._offset_us = apart_us - net_us // 2
        return min(max(1, apart_us - self._offset_us), net_us)
