"""The responder: answers the other agents' probes over HTTP, HTTPS, TCP and UDP, and says who it is.

Belongs here: listeners and what they answer. Does not belong here: rounds, Kafka; what was received goes to Receipts.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence

from producers.receipts import Receipts
from producers.responder.canaries import Canaries
from producers.responder.http import HttpConnection, HttpService
from producers.responder.own_drops import Drop, OwnDrops
from producers.responder.tcp import EchoConnection, EchoService
from producers.responder.udp import Reflector, Sessions
from topics.outcome import Proto

log = logging.getLogger(__name__)

# Connections may come from hundreds of agents in the same instant; one dropped here would look like the network's loss.
BACKLOG = 4096


class Responder:
    """The listeners of one agent."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self._services: list[HttpService] = []
        self._reflectors: list[Reflector] = []
        self._echoes: list[EchoService] = []
        self._drops: OwnDrops | None = None

    async def open_http(
        self, *, service: HttpService, addresses: Sequence[str], port: int, tls: ssl.SSLContext | None
    ) -> None:
        """Listen for HTTP, or HTTPS where `tls` is given. Raises OSError."""
        self._services.append(service)
        await self._listen(lambda: HttpConnection(service), addresses, port, tls)

    async def open_tcp(self, *, service: EchoService, addresses: Sequence[str], port: int) -> None:
        """Listen for TCP. Raises OSError."""
        self._echoes.append(service)
        await self._listen(lambda: EchoConnection(service), addresses, port, None)

    def open_udp(
        self,
        *,
        agent: str,
        incarnation: int,
        addresses: Sequence[str],
        port: int,
        receipts: Receipts,
        drops: Sequence[Drop] = (),
        canaries: Canaries | None = None,
    ) -> None:
        """Reflect UDP probes, all but those that `drops` takes. Raises OSError."""
        if drops:
            self._drops = OwnDrops(drops)
            log.warning("event=own_udp_drops asked=%s note=no_packet_is_lost_on_the_network", list(drops))
        sessions = Sessions()
        for address in addresses or _everywhere():
            self._reflectors.append(
                Reflector(
                    agent=agent,
                    incarnation=incarnation,
                    address=address,
                    port=port,
                    receipts=receipts,
                    sessions=sessions,
                    drops=self._drops,
                    canaries=canaries,
                )
            )

    async def close(self) -> None:
        """Stop listening and close every connection."""
        if self._drops is not None:
            log.warning("event=own_udp_drops_ended dropped=%d of=%d", self._drops.dropped, self._drops.examined)
        for server in self._servers:
            server.close()
        for service in self._services:
            service.close()
        for echo in self._echoes:
            echo.close()
        for reflector in self._reflectors:
            reflector.close()
        # The connections hear of it in the loop's next turns.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _listen(
        self,
        factory: Callable[[], asyncio.Protocol],
        addresses: Sequence[str],
        port: int,
        tls: ssl.SSLContext | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(factory, list(addresses) or None, port, backlog=BACKLOG, ssl=tls)
        self._servers.append(server)


def _everywhere() -> tuple[str, ...]:
    """The addresses that stand for all of this machine's."""
    # A kernel started without IPv6 refuses even the socket.
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return ("0.0.0.0",)
    return ("0.0.0.0", "::")


async def serve(  # noqa: PLR0913 - the one entry; each argument is one listener's
    *,
    agent: str,
    incarnation: int,
    address: str | Sequence[str],
    http_port: int,
    https_port: int,
    tcp_port: int,
    udp_port: int,
    tls: ssl.SSLContext | None,
    receipts: Receipts,
    drops: Sequence[Drop] = (),
    canaries: Canaries | None = None,
    stream_addresses: Sequence[str] = (),
) -> Responder:
    """Listen on the data address (or several; '' = all interfaces). HTTP and TCP on `stream_addresses` where given.

    A port of 0 is not served, nor is HTTPS without `tls`. Raises OSError when a port cannot be had; what was opened is
    closed then. `await close()` on the result ends it.
    """
    addresses = tuple(a for a in ((address,) if isinstance(address, str) else address) if a)
    streams = tuple(stream_addresses) or addresses
    responder = Responder()
    try:
        if http_port:
            service = HttpService(agent=agent, incarnation=incarnation, proto=Proto.http, receipts=receipts)
            await responder.open_http(service=service, addresses=streams, port=http_port, tls=None)
        if https_port and tls is not None:
            service = HttpService(agent=agent, incarnation=incarnation, proto=Proto.https, receipts=receipts)
            await responder.open_http(service=service, addresses=streams, port=https_port, tls=tls)
        if tcp_port:
            await responder.open_tcp(
                service=EchoService(agent=agent, incarnation=incarnation, receipts=receipts),
                addresses=streams,
                port=tcp_port,
            )
        if udp_port:
            responder.open_udp(
                agent=agent,
                incarnation=incarnation,
                addresses=addresses,
                port=udp_port,
                receipts=receipts,
                drops=drops,
                canaries=canaries,
            )
    except OSError:
        await responder.close()
        raise
    return responder
