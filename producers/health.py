"""/livez, /readyz and /metrics: three answers over plain asyncio, so that the agent carries no web framework."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_PATIENCE_S = 5.0
_LIMIT_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and text of a page."""

    status: str
    text: str


Pages = Mapping[str, Callable[[], Answer]]


def respond(request_line: bytes, pages: Pages) -> bytes:
    """The whole reply to a request, from its first line."""
    method, _, rest = request_line.decode("latin-1").strip().partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if method not in ("GET", "HEAD"):
        answer = Answer("405 Method Not Allowed", "only GET\n")
    elif path not in pages:
        answer = Answer("404 Not Found", f"known: {' '.join(pages)}\n")
    else:
        answer = pages[path]()
    body = answer.text.encode()
    head = (
        f"HTTP/1.1 {answer.status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == "HEAD" else body)


async def serve_health(*, host: str, port: int, pages: Pages) -> asyncio.Server:
    """Answer on host:port (an empty host is every address) until closed."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A caller that says nothing, too much, or goes away gets no answer; it is not our trouble.
        with contextlib.suppress(TimeoutError, OSError, ValueError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_PATIENCE_S):
                request_line = await reader.readline()
                while (await reader.readline()).strip():
                    pass
                writer.write(respond(request_line, pages))
                await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, host or None, port, limit=_LIMIT_BYTES)
