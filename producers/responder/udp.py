"""The agent's UDP reflector: a stateful STAMP Session-Reflector (RFC 8762, 4.3.2) for other agents' sessions.

It answers each test packet with who it is, its own sequence number in the session, and which of the session's last
packets have come; what came goes to the receipts, too. A packet without our session TLV is nobody's and gets no answer.
The time a packet came is the kernel's, so the time it waited here is the reflector's, not the network's.
"""

import asyncio
import socket
import struct
import time

from producers.probes import marking, stamp
from producers.probes.hops import NO_ROUND
from producers.probes.stamp_session import UNKNOWN, ReflectorSession
from producers.receipts import Receipts
from producers.responder.canaries import Canaries
from producers.responder.own_drops import OwnDrops
from topics.outcome import Proto

# Datagrams answered in one turn of the loop.
_BURST = 64
_RECEIVE_BYTES = 4 << 20
MAX_SESSIONS = 50_000
_FORGET_US = 120_000_000
# Linux's numbers of options that Python does not name.
_SO_TIMESTAMPNS = 35
_IP_RECVTTL, _IP_RECVTOS, _IP_TTL, _IP_TOS = 12, 13, 2, 1
_IPV6_RECVHOPLIMIT, _IPV6_HOPLIMIT, _IPV6_RECVTCLASS, _IPV6_TCLASS = 51, 52, 66, 67
_ANCILLARY_BYTES = 128
_TIMESPEC = struct.Struct("=qq")
_INT = struct.Struct("=i")

Key = tuple[int, str, int, int]  # round id, source agent, its target, SSID


class Sessions:
    """The sessions of one agent's reflectors; bounded, silent ones are forgotten."""

    def __init__(self, *, limit: int = MAX_SESSIONS) -> None:
        self._limit = limit
        self._known: dict[Key, ReflectorSession] = {}

    def came(self, key: Key, number: int, now_us: int) -> stamp.Seen:
        """One packet of a session has come; what is known of the session now."""
        session = self._known.get(key)
        if session is None:
            if len(self._known) >= self._limit:
                self._forget(now_us - _FORGET_US)
            if len(self._known) >= self._limit:
                return UNKNOWN
            session = self._known[key] = ReflectorSession()
        return session.came(number, now_us)

    def _forget(self, before_us: int) -> None:
        for key in [key for key, session in self._known.items() if session.last_us < before_us]:
            del self._known[key]


class Reflector:
    """One bound UDP socket. Raises OSError when it cannot be bound."""

    def __init__(
        self,
        *,
        agent: str,
        incarnation: int,
        address: str,
        port: int,
        receipts: Receipts,
        sessions: Sessions,
        drops: OwnDrops | None = None,
        canaries: Canaries | None = None,
    ) -> None:
        self._agent = agent
        self._incarnation = incarnation
        self._receipts = receipts
        self._sessions = sessions
        self._drops = drops
        self._canaries = canaries
        self._loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            # A burst must wait in the socket, not be lost there: that loss would be ours. The kernel may give less.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
            self._sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            marking.never_fragment(self._sock)
            self._tell_of_packets(family)
            self._sock.setblocking(False)
            self._sock.bind((address, port))
        except OSError:
            self._sock.close()
            raise
        self._loop.add_reader(self._sock.fileno(), self._ready)

    def close(self) -> None:
        """Give the socket back."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _tell_of_packets(self, family: socket.AddressFamily) -> None:
        """Have each packet's hop limit and traffic class told."""
        if family == socket.AF_INET6:
            self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVHOPLIMIT, 1)
            self._sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVTCLASS, 1)
        else:
            self._sock.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
            self._sock.setsockopt(socket.IPPROTO_IP, _IP_RECVTOS, 1)

    def _ready(self) -> None:
        for _ in range(_BURST):
            try:
                data, ancillary, _, source = self._sock.recvmsg(stamp.MAX_BYTES, _ANCILLARY_BYTES)
            except OSError:
                # Nothing more, or an ICMP error about an answer of ours: the next datagram wakes us again.
                return
            came_us, ttl, marked = told(ancillary)
            answer = self._answer(data, came_us, ttl)
            if answer:
                try:
                    # What was marked is answered with the same mark: both ways are to be treated alike.
                    self._sock.sendmsg([answer], marked, 0, source)
                except OSError:
                    # The asker sees a loss, and that is what it is.
                    continue

    def _answer(self, data: bytes, came_us: int, ttl: int) -> bytes:
        request = stamp.parse_request(data)
        if request is None:
            return b""
        if self._drops is not None and self._drops.takes(request.agent):
            return b""
        if self._canaries is not None and self._canaries.takes(
            round_id=request.round_id, agent=request.agent, seq=request.seq
        ):
            return b""
        now_us = time.time_ns() // 1000
        came_us = came_us or now_us
        seen = self._sessions.came(
            (request.round_id, request.agent, request.target, request.ssid), request.number, now_us
        )
        if request.round_id != NO_ROUND:
            self._receipts.received(
                round_id=request.round_id, src_agent=request.agent, proto=Proto.udp, seq=request.seq, now_us=now_us
            )
        return stamp.reply(
            to=request,
            size=len(data),
            agent=self._agent,
            incarnation=self._incarnation,
            seen=seen,
            received=stamp.ntp(came_us),
            sent=stamp.ntp(max(now_us, came_us)),
            ttl=ttl,
        )


def told(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int, list[tuple[int, int, bytes]]]:
    """When a packet came (µs since the epoch, 0 = not told), its hop limit, and its traffic class for the answer."""
    came_us = ttl = 0
    marked: list[tuple[int, int, bytes]] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanos = _TIMESPEC.unpack_from(data)
            came_us = seconds * 1_000_000 + nanos // 1000
        elif (level, kind) in ((socket.IPPROTO_IP, _IP_TTL), (socket.IPPROTO_IPV6, _IPV6_HOPLIMIT)):
            ttl = _INT.unpack(data)[0] & 0xFF
        elif level == socket.IPPROTO_IP and kind == _IP_TOS and data[0] & 0xFC:
            marked = [(level, kind, _INT.pack(data[0] & 0xFC))]
        elif level == socket.IPPROTO_IPV6 and kind == _IPV6_TCLASS and _INT.unpack(data)[0] & 0xFC:
            marked = [(level, kind, _INT.pack(_INT.unpack(data)[0] & 0xFC))]
    return came_us, ttl, marked
