"""Hop traces: which routers lie on the way to other agents, and where the way ends. No privilege is needed.

To each target packets of one flow (one source port) are sent with hop limits 1, 2, 3, …: the router where a limit ends
answers with ICMP time exceeded (RFC 792, RFC 4443), which the socket's error queue holds with the packet it is about;
the packet that arrives is answered by the other agent's reflector. They are STAMP packets of no round, so receipts do
not count them. A router may keep silent, and answers only so many a second: a hop's silence alone is no loss. What
tells is the last hop that answered while the target did not.

Blocking, bounded in packets and time, for a thread of its own: see `trace`.
"""

import errno
import random
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from producers.probes import marking, net_errors, stamp
from producers.probes.base import bind_source
from topics.outcome import Proto
from topics.round_progress import Hop, HopTrace
from topics.share import Stream

NO_ROUND = 0
TRIES = 3
# Beyond the last hop that answered so many more are asked again.
BEYOND = 3
# Routers answer about one packet a second and asker, after a few at once (Linux: icmp_ratelimit).
BETWEEN_TRIES_S = 1.0
PACE_S = 0.02
_ROOM = 256
_DATAGRAM_BYTES = 65_535
_IP_TTL, _IPV6_UNICAST_HOPS = 2, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Whom a trace is to: the reflector of another agent."""

    agent: str
    node: str
    address: str
    port: int


@dataclass(slots=True, kw_only=True)
class Way:
    """What is known of one way so far; hop limits count from 1."""

    end: End
    sent: dict[int, int] = field(default_factory=dict)
    answered: dict[int, int] = field(default_factory=dict)
    addresses: dict[int, str] = field(default_factory=dict)
    reached: int = 0
    barred: int = 0
    error: str = ""

    def sends(self, limit: int) -> None:
        """A packet with that hop limit leaves."""
        self.sent[limit] = self.sent.get(limit, 0) + 1

    def hears(self, limit: int, address: str, *, arrived: bool) -> None:
        """An answer to a packet with that hop limit; `arrived`: the target's own."""
        if limit not in self.sent:
            return
        self.answered[limit] = min(self.sent[limit], self.answered.get(limit, 0) + 1)
        self.addresses[limit] = address
        if arrived and (not self.reached or limit < self.reached):
            self.reached = limit

    def is_barred(self, limit: int, address: str, error: str) -> None:
        """Somebody on the way said that this packet goes no further, for another reason than its hop limit."""
        if not self.barred or limit <= self.barred:
            self.barred, self.error = limit, error
            self.hears(limit, address, arrived=False)

    @property
    def end_known(self) -> int:
        """The hop behind which nothing needs to be asked; 0 while there is none."""
        return self.reached or self.barred

    def last(self, limit: int, *, again: bool) -> int:
        """The last hop worth asking: the end; else `limit`, when asked again a few beyond the last that answered."""
        beyond = max(self.answered, default=0) + BEYOND
        return self.end_known or (min(limit, beyond) if again else limit)

    def told(self) -> HopTrace:
        """The trace, up to the target or the last hop that answered."""
        last = self.end_known or max(self.answered, default=0)
        hops = tuple(
            Hop(
                limit=limit,
                address=self.addresses.get(limit, ""),
                sent=self.sent.get(limit, 0),
                answered=self.answered.get(limit, 0),
            )
            for limit in range(1, last + 1)
        )
        end = self.end
        return HopTrace(
            agent=end.agent,
            node=end.node,
            address=end.address,
            hops=hops,
            reached=bool(self.reached),
            asked=max(self.sent, default=0),
            error="" if self.reached else self.error,
        )


def ends_of(streams: Sequence[Stream]) -> list[End]:
    """The other agents that a share asks by UDP, each address once."""
    targets = [s.target for s in streams if s.target.proto is Proto.udp and s.target.agent]
    return list(dict.fromkeys(End(agent=t.agent, node=t.dst_node, address=t.address, port=t.port) for t in targets))


def trace(
    ends: Sequence[End], *, agent: str, source_address: str, limit: int, cancelled: Callable[[], bool] = lambda: False
) -> tuple[HopTrace, ...]:
    """Trace the ways to all of them side by side, up to `limit` hops; takes about `TRIES` + `PACE_S` * `limit` seconds.

    An end that cannot be asked from here (no route, no source of its family) has a trace without hops.
    """
    walks: dict[int, Walk] = {}
    ways: list[Way] = []
    poll = select.poll()
    try:
        for end in ends:
            way = Way(end=end)
            ways.append(way)
            try:
                walk = Walk(way, agent=agent, source_address=source_address)
            except OSError:
                continue
            walks[walk.fileno] = walk
            poll.register(walk.fileno, select.POLLIN)
        for number in range(TRIES):
            if number:
                _listen(poll, walks, BETWEEN_TRIES_S, cancelled)
            for hops in range(1, limit + 1):
                asked = [w for w in walks.values() if hops <= w.way.last(limit, again=number > 0)]
                if not asked or cancelled():
                    break
                for walk in asked:
                    walk.send(hops)
                _listen(poll, walks, PACE_S, cancelled)
        _listen(poll, walks, BETWEEN_TRIES_S, cancelled)
        # A machine that stood still for that long has not looked yet.
        for walk in walks.values():
            walk.read()
    finally:
        for walk in walks.values():
            walk.close()
    return tuple(way.told() for way in ways)


class Walk:
    """One flow to one end, its packets numbered by hop limit. Raises OSError when the socket cannot be made."""

    def __init__(self, way: Way, *, agent: str, source_address: str) -> None:
        self.way = way
        self._ssid = random.randrange(1, 1 << 16)
        self._form = stamp.RequestForm(ssid=self._ssid, round_id=NO_ROUND, target=0, agent=agent, size=0)
        family = socket.AF_INET6 if ":" in way.end.address else socket.AF_INET
        self._level, self._option = (
            (socket.IPPROTO_IPV6, _IPV6_UNICAST_HOPS) if family == socket.AF_INET6 else (socket.IPPROTO_IP, _IP_TTL)
        )
        self._sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._sock.setblocking(False)
            bind_source(self._sock, source_address)
            marking.keep_errors(self._sock)
            self._sock.connect((way.end.address, way.end.port))
        except OSError:
            self._sock.close()
            raise
        self.fileno = self._sock.fileno()

    def close(self) -> None:
        """Give the socket back."""
        self._sock.close()

    def send(self, hops: int) -> None:
        """One packet that may pass so many hops, the last of which answers."""
        number = self.way.sent.get(hops, 0) * _ROOM + hops
        now_us = time.time_ns() // 1000
        self._sock.setsockopt(self._level, self._option, hops)
        # The network's answer to an earlier packet is told at the next one's sending, which then has to be repeated.
        for _ in range(2):
            try:
                self._sock.send(self._form.packet(number=number, seq=number, stamp=stamp.ntp(now_us)))
            except OSError:
                self.read()
            else:
                self.way.sends(hops)
                return

    def read(self) -> None:
        """Take what has come: answers, and errors with the packets they are about."""
        for error in net_errors.pending(self._sock):
            quote = stamp.quoted(error.quote)
            if error.origin == net_errors.LOCAL or quote is None or quote[0] != self._ssid:
                continue
            hop, arrived = quote[1] % _ROOM, error.offender == self.way.end.address
            if arrived or error.text == net_errors.HOP_LIMIT_EXCEEDED:
                self.way.hears(hop, error.offender, arrived=arrived)
            else:
                self.way.is_barred(hop, error.offender, error.text or errno.errorcode[error.error].lower())
        while True:
            try:
                data = self._sock.recv(_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError:
                # The error's other trace; its packet was in the queue.
                continue
            reply = stamp.parse_reply(data)
            if reply is not None and reply.ssid == self._ssid:
                self.way.hears(reply.number % _ROOM, self.way.end.address, arrived=True)


def _listen(poll: select.poll, walks: Mapping[int, Walk], seconds: float, cancelled: Callable[[], bool]) -> None:
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0 and not cancelled():
        for fileno, _ in poll.poll(min(left_s, 0.2) * 1000):
            walks[fileno].read()
