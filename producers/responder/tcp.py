"""The agent's TCP echo server: accepts, so a connect probe has somebody to meet, and sends back what comes.

A connect probe of another agent sends one line that says whose it is (see mark) and gets one that says who we are; then
it ends the connection. Any other bytes are sent back.
"""

import asyncio
import time
from typing import cast

from producers import mark
from producers.receipts import Receipts
from producers.responder.borrowed import BorrowedSocket
from producers.responder.segments import Segments
from topics.outcome import Proto

# How long a probe that has its answer may keep the connection.
LINGER_S = 5.0


class EchoService:
    """What the connections of the TCP listeners share."""

    def __init__(self, *, agent: str, incarnation: int, receipts: Receipts) -> None:
        self.greeting = mark.greeting(agent=agent, incarnation=incarnation)
        self.receipts = receipts
        self.connections: set[EchoConnection] = set()
        receipts.add_collector(self.collect)

    def collect(self) -> None:
        """Bring every connection's segment counters up to date."""
        for connection in self.connections:
            connection.segments.collect()

    def close(self) -> None:
        """Close every connection."""
        self.collect()
        self.receipts.remove_collector(self.collect)
        for connection in list(self.connections):
            connection.abort()


class EchoConnection(asyncio.Protocol):
    """One connection; reading stops while the other side does not take its bytes back."""

    def __init__(self, service: EchoService) -> None:
        self._service = service
        self._began = b""
        self._unknown = True
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has connected."""
        self._transport = cast("asyncio.Transport", transport)
        shared = transport.get_extra_info("socket")
        # A socket object of our own on the transport's descriptor: the transport's stands in for few calls only.
        self._sock = BorrowedSocket.of(shared)
        self.segments = Segments(sock=self._sock, receipts=self._service.receipts)
        self._service.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        if self._timer is not None:
            self._timer.cancel()
        self._service.connections.discard(self)
        self.segments.collect()
        self._sock.give_back()

    def eof_received(self) -> None:
        """The client has ended: the last look at the counters."""
        self.segments.collect(ended=True)

    def data_received(self, data: bytes) -> None:
        """A probe's line, or bytes to send back."""
        if self._unknown:
            data = self._began + data
            if mark.may_be_line(data):
                self._began = data
                return
            self._unknown = False
            self._began = b""
            match = mark.LINE.match(data)
            told = mark.of(match) if match is not None else None
            if match is not None and told is not None:
                self._came(told)
                data = data[match.end() :]
        if data:
            self._transport.write(data)

    def _came(self, told: mark.Mark) -> None:
        self.segments.begin((told.round_id, told.agent, Proto.tcp, told.target))
        self._service.receipts.received(
            round_id=told.round_id,
            src_agent=told.agent,
            proto=Proto.tcp,
            target=told.target,
            seq=told.seq,
            now_us=time.time_ns() // 1000,
        )
        self._transport.write(self._service.greeting)
        if self._timer is None:
            # The probe ends with a reset, and a reset that is lost is not sent again.
            self._timer = asyncio.get_running_loop().call_later(LINGER_S, self.abort)

    def pause_writing(self) -> None:
        """Too much is waiting to be taken."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It was taken."""
        self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()
