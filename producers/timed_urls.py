"""Timed HTTP requests to a few URLs, for the agent's report: how long name lookup, handshake, server and transfer took.

One GET on a new connection each, redirects not followed; https is checked against the system's authorities.
"""

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from topics.agent_reports import TimedUrl

_READ_MOST_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16


async def time_urls(urls: Iterable[str], *, patience_s: float) -> tuple[TimedUrl, ...]:
    """All of them at once, in their order; one that takes longer than `patience_s` is reported as far as it came."""
    return tuple(await asyncio.gather(*(time_url(url, patience_s=patience_s) for url in urls)))


@dataclass(slots=True)
class _Watch:
    """What was measured so far. Seconds on the monotonic clock."""

    began_s: float
    looked_up_s: float = 0.0
    reached_s: float = 0.0
    asked_s: float = 0.0
    first_byte_s: float = 0.0
    connected: bool = False
    status: int = 0


async def time_url(url: str, *, patience_s: float) -> TimedUrl:
    """One request. Never raises: what failed stands in `error`."""
    watch, error = _Watch(time.monotonic()), ""
    try:
        async with asyncio.timeout(patience_s):
            await _ask(urlsplit(url), watch)
    except TimeoutError:
        error = "timeout"
    except socket.gaierror:
        error = "dns_error"
    except ssl.SSLError as problem:
        error = f"tls_error: {problem.reason or 'handshake'}"
    except (OSError, ValueError, EOFError) as problem:
        # asyncio puts an address in place of the kernel's words.
        told = os.strerror(problem.errno) if isinstance(problem, OSError) and problem.errno else str(problem)
        error = told or type(problem).__name__
    return _timed(url, watch, ended_s=time.monotonic(), error=error)


async def _ask(parts: SplitResult, watch: _Watch) -> None:
    loop = asyncio.get_running_loop()
    host, tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    watch.looked_up_s = time.monotonic()
    family, kind, proto, _, address = infos[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        watch.reached_s = time.monotonic()
        context = ssl.create_default_context() if tls else None
        reader, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=host if tls else None)
    except BaseException:
        sock.close()
        raise
    watch.connected = True
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        whose = parts.netloc.rpartition("@")[2]
        head = (
            f"GET {path} HTTP/1.1\r\nHost: {whose}\r\nUser-Agent: kpatrol\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode("ascii", "replace"))
        await writer.drain()
        watch.asked_s = time.monotonic()
        await _read(reader, watch)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _read(reader: asyncio.StreamReader, watch: _Watch) -> None:
    first = await reader.read(_CHUNK_BYTES)
    watch.first_byte_s = time.monotonic()
    line = first
    while line and b"\n" not in line and len(line) < _CHUNK_BYTES:
        line += (more := await reader.read(_CHUNK_BYTES))
        if not more:
            break
    words = line.split(b"\r\n", 1)[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise ValueError("the reply is not HTTP" if line else "closed without a reply")
    watch.status = int(words[1])
    read_bytes = len(line)
    while read_bytes < _READ_MOST_BYTES and (chunk := await reader.read(_CHUNK_BYTES)):
        read_bytes += len(chunk)


def _timed(url: str, watch: _Watch, *, ended_s: float, error: str) -> TimedUrl:
    return TimedUrl(
        url=url,
        connected=watch.connected,
        status=watch.status,
        dns_us=_us(watch.began_s, watch.looked_up_s),
        tcp_us=_us(watch.looked_up_s, watch.reached_s),
        connect_us=_us(watch.began_s, watch.reached_s),
        server_us=_us(watch.asked_s, watch.first_byte_s),
        transfer_us=_us(watch.first_byte_s, ended_s) if watch.first_byte_s else 0,
        total_us=_us(watch.began_s, ended_s),
        error=error,
    )


def _us(from_s: float, to_s: float) -> int:
    return max(0, round((to_s - from_s) * 1e6)) if from_s and to_s else 0
