"""The socket of a TCP connection that is about to be opened."""

import socket
import struct

from producers.probes.base import bind_source
from producers.probes.codec import Wire
from producers.probes.marking import set_dscp

# struct linger: closing throws away what is unsent and resets.
_NO_LINGER = struct.pack("=ii", 1, 0)
# Spares a call of its own for each connection; elsewhere than on Linux there is none such.
_NONBLOCK = getattr(socket, "SOCK_NONBLOCK", 0)


def tcp_socket(*, family: socket.AddressFamily, wire: Wire, source_address: str) -> socket.socket:
    """A socket that never blocks, sends at once, and is marked and bound as the channel wants. Raises OSError."""
    sock = socket.socket(family, socket.SOCK_STREAM | _NONBLOCK)
    try:
        if not _NONBLOCK:
            sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        set_dscp(sock, wire.dscp)
        if wire.reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        bind_source(sock, source_address)
    except OSError:
        sock.close()
        raise
    return sock
