"""The agent's UDP reflector: answers each probe with who it is and how many of that round and source have come."""

import asyncio
import socket
import time

from producers.probes import udp_packet
from producers.receipts import Receipts
from topics.outcome import Proto

# Datagrams answered in one turn of the loop.
_BURST = 64
_RECEIVE_BYTES = 4 << 20


class Reflector:
    """One bound UDP socket. Raises OSError when it cannot be bound."""

    def __init__(self, *, agent: str, address: str, port: int, receipts: Receipts) -> None:
        self._agent = agent
        self._receipts = receipts
        self._loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            # A burst must wait in the socket, not be lost there: that loss would be ours. The kernel may give less.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
            if family == socket.AF_INET6:
                self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
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

    def _ready(self) -> None:
        for _ in range(_BURST):
            try:
                data, source = self._sock.recvfrom(udp_packet.MAX_BYTES)
            except OSError:
                # Nothing more, or an ICMP error about an answer of ours: the next datagram wakes us again.
                return
            answer = self._answer(data)
            if answer:
                try:
                    self._sock.sendto(answer, source)
                except OSError:
                    # The asker sees a loss, and that is what it is.
                    continue

    def _answer(self, data: bytes) -> bytes:
        packet = udp_packet.parse(data)
        if packet is None or packet.kind != udp_packet.REQUEST or not packet.name:
            return b""
        received = self._receipts.received(
            round_id=packet.round_id,
            src_agent=packet.name,
            proto=Proto.udp,
            seq=packet.seq,
            now_us=time.time_ns() // 1000,
        )
        return udp_packet.reply(to=packet, size=len(data), name=self._agent, received=received)
