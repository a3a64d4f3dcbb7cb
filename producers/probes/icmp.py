"""ICMP echo by ping sockets, which need no privilege; by raw sockets where only those are allowed.

The target's kernel answers, so nobody says who it is, and the direction of a loss stays unknown. Every channel has a
random identifier and a random cookie: behind an address that many share (SNAT), two askers with the same identifier
would take each other's replies.
"""

import os
import random
import socket
from collections.abc import Callable

from producers.probes import icmp_packet
from producers.probes.base import Channel, LocalTrouble, Setup, socket_family
from producers.probes.datagram import Answer, DatagramChannel, Numbered, Wire
from topics.outcome import Outcome

_TRIES = 16
_ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
_PROTOCOLS = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}

Make = Callable[[socket.AddressFamily, str], socket.socket]


def channel(setup: Setup) -> Channel:
    """The channel to an address."""
    messages = IcmpMessages(setup)
    dscp = setup.round_.mesh.dscp if setup.round_.mesh else 0
    return DatagramChannel(setup, messages, Wire(make=messages.open, ports=1, dscp=dscp, whole=True))


class IcmpMessages(Numbered):
    """Echo requests of one channel. `make` are the ways to a socket, tried in turn."""

    def __init__(self, setup: Setup) -> None:
        self._family = 6 if socket_family(setup.target) == socket.AF_INET6 else 4
        self._cookie = os.urandom(8)
        self._ident = 0
        self._raw = False
        self.req_bytes = icmp_packet.payload_size(setup.target.size)

    def open(self, family: socket.AddressFamily, source_address: str) -> socket.socket:
        """A ping socket, else a raw one. Raises OSError; LocalTrouble where neither is allowed."""
        try:
            sock = ping_socket(family, source_address)
        except PermissionError:
            try:
                sock = raw_socket(family, source_address)
            except PermissionError:
                raise LocalTrouble("icmp_not_permitted") from None
        self._raw = sock.type == socket.SOCK_RAW
        self._ident = random.randrange(1, 1 << 16) if self._raw else sock.getsockname()[1]
        return sock

    def request(self, number: int, seq: int, sent_us: int) -> bytes:
        """The echo request; a ping socket sets its own identifier."""
        data = icmp_packet.payload(cookie=self._cookie, seq=seq, size=self.req_bytes)
        by_us = self._raw and self._family == 4
        return icmp_packet.request(family=self._family, ident=self._ident, number=number, data=data, checksum=by_us)

    def number(self, data: bytes) -> int | None:
        """The request that an echo reply answers; others' replies come to a raw socket, too."""
        message = self._reply(data)
        return message[1] if message is not None and message[0] == self._ident else None

    def answer(self, data: bytes, number: int, sent_us: int, now_us: int) -> Answer:
        """Whether it brings back what was sent."""
        message = self._reply(data)
        assert message is not None
        brought = message[2]
        good = len(brought) == self.req_bytes and brought[:8] == self._cookie
        good = good and brought[12:] == icmp_packet.payload(cookie=self._cookie, seq=0, size=self.req_bytes)[12:]
        if not good:
            return Answer(Outcome.bad_reply, "payload_differs", resp_bytes=len(brought))
        return Answer(Outcome.ok, resp_bytes=len(brought))

    def quoted(self, data: bytes) -> int | None:
        """The request that an ICMP error is about."""
        message = icmp_packet.quoted(data, family=self._family)
        return message[1] if message is not None and message[0] == self._ident else None

    def _reply(self, data: bytes) -> tuple[int, int, bytes] | None:
        message = icmp_packet.without_ip(data) if self._raw and self._family == 4 else data
        return icmp_packet.reply(message, family=self._family)


def ping_socket(family: socket.AddressFamily, source_address: str) -> socket.socket:
    """An unprivileged socket with a random identifier that nobody else on this machine has. Raises OSError."""
    sock = socket.socket(family, socket.SOCK_DGRAM, _PROTOCOLS[family])
    try:
        for left in reversed(range(_TRIES)):
            try:
                sock.bind((_source(family, source_address), random.randrange(1, 1 << 16)))
                break
            except OSError:
                if not left:
                    raise
    except OSError:
        sock.close()
        raise
    return sock


def raw_socket(family: socket.AddressFamily, source_address: str) -> socket.socket:
    """A privileged socket that hears every ICMP message of its peer. Raises OSError."""
    sock = socket.socket(family, socket.SOCK_RAW, _PROTOCOLS[family])
    try:
        sock.bind((_source(family, source_address), 0))
    except OSError:
        sock.close()
        raise
    return sock


def _source(family: socket.AddressFamily, source_address: str) -> str:
    fits = source_address and (":" in source_address) == (family == socket.AF_INET6)
    return source_address if fits else _ANY[family]
