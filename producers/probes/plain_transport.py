"""A TCP connection without TLS as an event loop's transport would have it, but on a poller and a bare socket.

It tells a protocol `data_received`, `eof_received` and `connection_lost`, at once and not in the loop's next turn.
After the end of the other side, or an error, the socket stays open until `abort`: its counters can still be read.
"""

import asyncio
import socket

from producers.probes.poller import READABLE, WRITABLE, Poller

_READ_BYTES = 65_536
# Told when the connection is closed, so that it and its protocol no longer refer to each other.
_NOBODY = asyncio.Protocol()


class PlainTransport:
    """The part of asyncio.Transport that a connection needs."""

    __slots__ = ("_buffer", "_closed", "_descriptor", "_over", "_poller", "_protocol", "_recv", "_sock")

    def __init__(self, *, poller: Poller, sock: socket.socket, protocol: asyncio.Protocol) -> None:
        """Read from a connected socket."""
        self._poller = poller
        self._sock = sock
        self._protocol = protocol
        self._descriptor = sock.fileno()
        self._recv = sock.recv
        self._buffer = b""
        self._over = self._closed = False
        poller.watch(self._descriptor, READABLE, self._ready)

    def write(self, data: bytes) -> None:
        """Send when there is room: for what a direct send has left."""
        if not self._over:
            self._buffer += data
            self._poller.watch(self._descriptor, READABLE | WRITABLE, self._ready)

    def get_write_buffer_size(self) -> int:
        """Bytes that are not yet sent."""
        return len(self._buffer)

    def is_closing(self) -> bool:
        """Whether the connection has ended, from either side."""
        return self._over

    def abort(self) -> None:
        """Close now."""
        self._over = True
        if not self._closed:
            self._closed = True
            self._protocol = _NOBODY
            self._poller.closing(self._descriptor)
            self._sock.close()

    def _ready(self, events: int) -> None:
        if events & WRITABLE:
            self._flush()
            if events == WRITABLE or self._over:
                return
        try:
            data = self._recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error)
            return
        if data:
            self._protocol.data_received(data)
            return
        self._end()
        if not self._protocol.eof_received():
            self.abort()

    def _flush(self) -> None:
        if not self._buffer:
            return
        try:
            self._buffer = self._buffer[self._sock.send(self._buffer) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error)
            return
        if not self._buffer:
            self._poller.watch(self._descriptor, READABLE, self._ready)

    def _lost(self, error: OSError) -> None:
        self._end()
        self._protocol.connection_lost(error)

    def _end(self) -> None:
        # Not closed, but no longer watched: an end is said again and again to whoever listens.
        self._over = True
        self._poller.forget(self._descriptor)
