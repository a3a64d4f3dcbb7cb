"""Requests over TCP and TLS connections to one target: connections are kept, and opened when all are busy.

One request in flight per connection. A finished connection goes back to its channel; when all are busy a new one is
opened, so a slow target never holds back the requests that are due (the load caps how many).
"""

import asyncio

from producers.probes.base import Setup, is_literal, socket_family
from producers.probes.codec import Wire
from producers.probes.connection import StreamConnection


class StreamChannel:
    """Connections to one target."""

    def __init__(self, setup: Setup, wire: Wire) -> None:
        self.setup = setup
        self.wire = wire
        self.loop = asyncio.get_running_loop()
        # At hand for every request.
        self.clock, self.report, self.pending = setup.clock, setup.report, setup.pending
        self.poller = setup.poller
        self.index, self.start_us = setup.index, setup.start_us
        self.keep, self.req_bytes = wire.keep, wire.req_bytes
        self.family = socket_family(setup.target)
        self.literal = is_literal(setup.target.address)
        self.idle: list[StreamConnection] = []
        self.open: set[StreamConnection] = set()

    def send(self, seq: int, planned_us: int, sent_us: int) -> None:
        """Start one request on the connection used last, or on a new one."""
        idle = self.idle
        connection = idle.pop() if idle else StreamConnection(self)
        connection.begin(seq, planned_us, sent_us, 0)

    def close(self) -> None:
        """Close every connection; one that waits for a DSACK reports now."""
        for connection in list(self.open):
            connection.shut()
