"""The agent's TCP echo server: accepts, so a connect probe has somebody to meet, and sends back what comes."""

import asyncio
from typing import cast


class EchoConnection(asyncio.Protocol):
    """One connection; reading stops while the other side does not take its bytes back."""

    def __init__(self, connections: "set[EchoConnection]") -> None:
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Send it back."""
        self._transport.write(data)

    def pause_writing(self) -> None:
        """Too much is waiting to be taken."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It was taken."""
        self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()
