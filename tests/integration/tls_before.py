"""TLS in front of a plain port: what terminates it where ClickHouse has https."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from kpatrol.lab.tls import Authority


@contextmanager
def tls_before(port: int, authority: Authority, folder: Path) -> Iterator[tuple[int, Path]]:
    """(port that speaks TLS and hands on to `port`, file of the authority that it is known to)."""
    ca_file, own = folder / "ca.pem", folder / "server.pem"
    ca_file.write_text(authority.certificate_pem)
    made = authority.server_certificate(name="clickhouse", addresses=["127.0.0.1"])
    own.write_text(made.key_pem + made.certificate_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    ready: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(context, port, ready)))
    thread.start()
    listening, loop, stop = ready.result(30)
    try:
        yield listening, ca_file
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)


async def _serve(
    context: ssl.SSLContext, port: int, ready: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]]
) -> None:
    async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_copy(reader, server_writer), _copy(server_reader, writer))

    stop = asyncio.Event()
    server = await asyncio.start_server(hand_on, "127.0.0.1", 0, ssl=context)
    ready.set_result((server.sockets[0].getsockname()[1], asyncio.get_running_loop(), stop))
    await stop.wait()
    server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
