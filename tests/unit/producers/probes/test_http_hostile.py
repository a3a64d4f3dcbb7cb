"""Servers that misbehave: each way has its outcome, none hangs, none costs memory."""

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from topics.outcome import Outcome
from topics.task_rounds import HttpRequest

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


def says(*pieces: bytes, then: str = "close", pause_s: float = 0.0) -> Script:
    """Read a request's head, send the pieces, then close, stay, or reset."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
        if then == "stay":
            await asyncio.sleep(5)
        if then == "reset":
            await asyncio.sleep(0.01)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return script


async def closes_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    return


async def endless_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-more: " + b"y" * 1000 + b"\r\n")
        await writer.drain()


async def endless_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
    while True:
        writer.write(b"z" * 262144)
        await writer.drain()


CASES: dict[str, tuple[Script, Outcome, str]] = {
    "never answers": (says(then="stay"), Outcome.timeout, "timeout"),
    "closes at once": (closes_at_once, Outcome.reset, "connection_"),
    "closes after the request": (says(), Outcome.reset, "connection_closed"),
    "resets instead of a reply": (says(then="reset"), Outcome.reset, "connection_reset"),
    "resets in the body": (
        says(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab", then="reset"),
        Outcome.reset,
        "connection_reset",
    ),
    "body cut off": (says(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab"), Outcome.bad_reply, "truncated_body"),
    "chunked body cut off": (
        says(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab"),
        Outcome.bad_reply,
        "truncated_body",
    ),
    "head cut off": (says(b"HTTP/1.1 200 OK\r\nconte"), Outcome.bad_reply, "truncated_head"),
    "stalls in the body": (
        says(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab", then="stay"),
        Outcome.timeout,
        "timeout",
    ),
    "garbage": (says(b"\x16\x03\x01 hello there\r\n\r\n", then="stay"), Outcome.bad_reply, "bad_http"),
    "two lengths": (
        says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc", then="stay"),
        Outcome.bad_reply,
        "bad_http",
    ),
    "bad chunk": (
        says(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", then="stay"),
        Outcome.bad_reply,
        "bad_http",
    ),
    "switches protocols": (
        says(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", then="stay"),
        Outcome.bad_reply,
        "unexpected_upgrade",
    ),
    "500": (says(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"), Outcome.http_error, "500"),
    "redirect is not followed": (
        says(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"),
        Outcome.http_error,
        "302",
    ),
    "head in drips": (says(*(bytes([b]) for b in OK), pause_s=0.001), Outcome.ok, ""),
    "head too slow": (says(*(bytes([b]) for b in OK), pause_s=0.1), Outcome.timeout, "timeout"),
    "endless head": (endless_head, Outcome.bad_reply, "head_too_large"),
    "endless body": (endless_body, Outcome.bad_reply, "body_too_large"),
    "chunked": (
        says(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", then="stay"),
        Outcome.ok,
        "",
    ),
    "interim reply first": (says(b"HTTP/1.1 100 Continue\r\n\r\n", OK, pause_s=0.005), Outcome.ok, ""),
    "interim and reply in one": (says(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK), Outcome.ok, ""),
    "body that ends with the connection": (says(b"HTTP/1.1 200 OK\r\n\r\nhi"), Outcome.ok, ""),
    "bytes after the reply": (says(OK + b"HTTP/1.1 200 OK\r\n", then="stay"), Outcome.ok, "extra_bytes"),
    "nonsense after the reply": (says(OK + b"\x00\x01", then="stay"), Outcome.ok, "extra_bytes"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_misbehaviour_has_its_outcome(lab: Any, name: str) -> None:
    script, outcome, error = CASES[name]

    async def scene() -> None:
        async with lab.server(script) as port:
            timeout_ms = 80 if outcome is Outcome.timeout else 5000
            account, rows = await lab.load(lab.target(port=port), timeout_ms=timeout_ms, status_code=200)
        assert account.sent == 1
        (row,) = rows
        assert row.outcome is outcome, (row.outcome, row.error)
        assert row.error.startswith(error)
        assert error in (row.error, "connection_")
        assert row.src_port > 0
        if outcome is Outcome.ok:
            assert (row.status, row.resp_bytes) == (200, 2)
        if outcome is Outcome.timeout:
            assert 80_000 <= row.dur_us < 1_000_000
        assert row.resp_bytes < 100

    lab.run(scene)


def test_a_refused_port_is_refused(lab: Any) -> None:
    async def scene() -> None:
        _, (row,) = await lab.load(lab.target(port=lab.free_port()))
        assert (row.outcome, row.error) == (Outcome.refused, "connection_refused")
        assert (row.sent, row.lost) == (1, 0)

    lab.run(scene)


def test_a_name_that_does_not_exist_is_a_dns_error(lab: Any) -> None:
    async def scene() -> None:
        _, (row,) = await lab.load(lab.target(port=80, address="no-such-name.invalid"), timeout_ms=2000)
        assert row.outcome is Outcome.dns_error
        assert row.error in ("name_not_found", "name_lookup_failed")
        assert row.sent == row.connect_us == 0

    lab.run(scene)


def test_a_name_is_looked_up_and_timed(lab: Any) -> None:
    async def scene() -> None:
        async with lab.server(says(OK)) as port:
            _, (row,) = await lab.load(lab.target(port=port, address="localhost"), timeout_ms=2000)
        assert row.outcome is Outcome.ok
        assert row.dns_us > 0
        assert row.dns_us + row.connect_us + row.ttfb_us <= row.dur_us

    lab.run(scene)


def test_a_full_accept_queue_times_out_in_the_handshake(lab: Any) -> None:
    async def scene() -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            address = listener.getsockname()
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(address)
            _, (row,) = await lab.load(lab.target(port=address[1]), timeout_ms=60)
            for filler in fillers:
                filler.close()
        assert row.outcome is Outcome.timeout
        assert row.connect_us == row.ttfb_us == 0
        assert (row.sent, row.lost) == (1, 1)

    lab.run(scene)


def test_memory_does_not_grow_with_the_replies(lab: Any) -> None:
    """Every reply differs, so none is found again; the memory of replies stays bounded."""

    async def scene() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n" + os.urandom(8).hex().encode())

        async with lab.server(serve) as port:
            _, rows = await lab.load(lab.target(port=port), requests=300, rate=3000, http=HttpRequest())
        assert {row.outcome for row in rows} == {Outcome.ok}
        assert {row.resp_bytes for row in rows} == {16}

    lab.run(scene)
