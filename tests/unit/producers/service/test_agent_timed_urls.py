"""Timed URLs of the report, against real servers on loopback."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from producers.config import Config
from producers.timed_urls import time_url, time_urls
from topics.agent_reports import TimedUrl
from topics.connection import BadConfiguration

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def served(answer: Answer, *, path: str = "/api/v1/ping", patience_s: float = 30.0) -> TimedUrl:
    async def scene() -> TimedUrl:
        over = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # Who has hung up before the answer is one way to end, too.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await answer(reader, writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            over.set()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            timed = await time_url(f"http://127.0.0.1:{port}{path}", patience_s=patience_s)
            async with asyncio.timeout(30):
                await over.wait()
            return timed

    return asyncio.run(scene())


def test_every_phase_is_timed_and_adds_up() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /api/v1/ping HTTP/1.1\r\n")
        await asyncio.sleep(0.03)
        writer.write(b"HTTP/1.1 503 Away\r\nConnection: close\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(b"rest")

    timed = served(slow)
    assert (timed.connected, timed.status, timed.error) == (True, 503, "")
    assert timed.server_us >= 29_000
    assert timed.transfer_us >= 19_000
    assert timed.total_us >= timed.connect_us + timed.server_us + timed.transfer_us - 1000
    assert timed.connect_us >= timed.tcp_us


def test_a_server_that_hangs_is_connected_and_without_status() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.4)

    timed = served(mute, patience_s=0.3)
    assert (timed.connected, timed.status, timed.error) == (True, 0, "timeout")
    assert timed.total_us >= 300_000


def test_nonsense_and_silence_are_told_apart() -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-x\r\n")

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    assert served(nonsense).error == "the reply is not HTTP"
    assert served(closing).error == "closed without a reply"


def test_names_and_ports_that_answer_nobody() -> None:
    async def scene() -> tuple[TimedUrl, ...]:
        return await time_urls(("http://name.invalid/", "http://127.0.0.1:1/"), patience_s=30)

    name, port = asyncio.run(scene())
    assert (name.connected, name.error) == (False, "dns_error")
    assert (port.connected, port.status) == (False, 0)
    assert "refused" in port.error.lower()


def test_probe_urls_are_checked() -> None:
    env = {"KPATROL_IPV4": "10.0.0.1", "KPATROL_SPOOL_DIR": "/x", "KPATROL_KAFKA_BOOTSTRAP": "k:9092"}
    urls = "http://a/1; https://b:8443/2,"
    assert Config.from_env(env | {"KPATROL_PROBE_URLS": urls}).probe_urls == ("http://a/1", "https://b:8443/2")
    with pytest.raises(BadConfiguration, match="KPATROL_PROBE_URLS: found 'a/b', allowed"):
        Config.from_env(env | {"KPATROL_PROBE_URLS": "a/b"})
