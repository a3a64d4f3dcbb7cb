"""The agent's HTTP server by raw bytes: quick answers equal parsed ones, order holds, nonsense is ended."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from producers import mark
from producers.receipts import Receipts
from producers.responder import http, serve

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\nuser-agent: kpatrol\r\naccept: */*\r\n"


def probe(seq: int, *, agent: str = "node-1") -> bytes:
    """A probe as an agent writes it."""
    whose = mark.prefix(agent=agent, round_id=0xAB, target=3)
    trace = f"traceparent: 00-{'a' * 32}-{seq:016x}-01\r\n{mark.HEADER}: {whose}{seq}\r\n\r\n"
    return HEAD + trace.encode()


def on_server(lab: Any, scene: Callable[[SimpleNamespace], Awaitable[None]]) -> list[dict[str, Any]]:
    """Run a scene against a responder; the receipts it leaves."""

    async def play() -> list[dict[str, Any]]:
        receipts, port = Receipts(), lab.free_port()
        ports = {"https_port": 0, "tcp_port": 0, "udp_port": 0}
        responder = await serve(
            agent="node-2", incarnation=5, address="127.0.0.1", http_port=port, tls=None, receipts=receipts, **ports
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.wait_for(scene(SimpleNamespace(reader=reader, writer=writer, port=port)), 30)
        finally:
            writer.close()
            await responder.close()
        rows = receipts.take()
        return rows.to_pylist() if rows is not None else []

    return lab.run(play)  # type: ignore[no-any-return]


async def reply(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """One reply with a length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split(" ")[1]), fields, await reader.readexactly(int(fields.get("content-length", 0)))


def test_the_quick_answer_is_the_parsed_one_and_every_probe_is_received(lab: Any) -> None:
    async def scene(c: SimpleNamespace) -> None:
        answers = []
        for seq in range(10):
            c.writer.write(probe(seq))
            answers.append(await reply(c.reader))
        assert len({repr(a) for a in answers}) == 1
        status, fields, body = answers[0]
        assert (status, body, fields["kpatrol-agent"]) == (200, b"ok\n", "node-2/5")

    (row,) = on_server(lab, scene)
    assert (row["src_agent"], row["round_id"], row["target"], row["received"]) == ("node-1", 0xAB, 3, 10)
    assert (row["first_seq"], row["bitmap"]) == (0, b"\xff\x03")


def test_probes_in_pieces_and_several_at_once_are_all_answered(lab: Any) -> None:
    async def scene(c: SimpleNamespace) -> None:
        wire = b"".join(probe(seq) for seq in range(12))
        for start in range(0, len(wire), 37):
            c.writer.write(wire[start : start + 37])
            await c.writer.drain()
            await asyncio.sleep(0)
        for _ in range(12):
            assert (await reply(c.reader))[2] == b"ok\n"
        c.writer.write(wire)
        for _ in range(12):
            assert (await reply(c.reader))[2] == b"ok\n"

    (row,) = on_server(lab, scene)
    assert (row["received"], row["duplicates"]) == (24, 12)


def test_the_same_beginning_does_not_make_a_probe(lab: Any) -> None:
    """What follows the known bytes must be a probe's end, or it is parsed like anything else."""

    async def scene(c: SimpleNamespace) -> None:
        for seq in range(2):
            c.writer.write(probe(seq))
            await reply(c.reader)
        with_body = probe(2)[:-2] + b"content-length: 4\r\n\r\nGET "
        c.writer.write(with_body + probe(3))
        assert (await reply(c.reader))[0] == 200
        assert (await reply(c.reader))[0] == 200
        c.writer.write(probe(4).replace(b"-01\r\n", b"-01\r\nx: y\r\n"))
        assert (await reply(c.reader))[0] == 200

    (row,) = on_server(lab, scene)
    assert (row["received"], row["duplicates"], row["bitmap"]) == (5, 0, b"\x1f")


def test_answers_keep_the_order_of_the_requests_also_behind_a_delay(lab: Any) -> None:
    async def scene(c: SimpleNamespace) -> None:
        c.writer.write(b"GET /?delay=1&task=slow HTTP/1.1\r\nhost: x\r\n\r\n" + b"GET /?task=next HTTP/1.1\r\n\r\n")
        c.writer.write(probe(0))
        began_s = asyncio.get_running_loop().time()
        bodies = [(await reply(c.reader))[2] for _ in range(3)]
        assert asyncio.get_running_loop().time() - began_s >= 0.9
        assert b'"TaskName":"slow"' in bodies[0]
        assert b'"TaskName":"next"' in bodies[1]
        assert bodies[2] == b"ok\n"

    on_server(lab, scene)


def test_head_has_no_body_and_close_closes(lab: Any) -> None:
    async def scene(c: SimpleNamespace) -> None:
        c.writer.write(b"HEAD /kpatrol HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        head = await c.reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 3" in head
        assert b"connection: close" in head
        assert await c.reader.read() == b""

    on_server(lab, scene)


def test_who_expects_to_be_asked_for_the_body_is_asked(lab: Any) -> None:
    async def scene(c: SimpleNamespace) -> None:
        c.writer.write(b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert await c.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        c.writer.write(b"{}")
        assert (await reply(c.reader))[0] == 200

    on_server(lab, scene)


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"\x16\x03\x01\x00\x00\x00\x00garbage\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\ncontent-length: 5000\r\n\r\n" + b"z" * 5000, 413),
        (b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n" + b"z" * 6, 400),
    ],
)
def test_nonsense_is_answered_once_and_ended(
    lab: Any, monkeypatch: pytest.MonkeyPatch, wire: bytes, status: int
) -> None:
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 4000)

    async def scene(c: SimpleNamespace) -> None:
        c.writer.write(wire)
        assert (await reply(c.reader))[0] == status
        assert await c.reader.read() == b""

    assert on_server(lab, scene) == []


def test_a_client_that_never_reads_costs_no_memory_without_bound(lab: Any) -> None:
    async def scene(c: SimpleNamespace) -> None:
        c.writer.write(b"GET /?delay=60 HTTP/1.1\r\n\r\n" + b"GET /?task=a HTTP/1.1\r\n\r\n" * 20_000)
        await asyncio.sleep(0.05)
        # The server has stopped reading: what it does not take stays with us and with the kernel.
        c.writer.write(b"GET /?task=a HTTP/1.1\r\n\r\n" * 400_000)
        await asyncio.sleep(0.1)
        assert c.writer.transport.get_write_buffer_size() > 0
        c.writer.transport.abort()

    on_server(lab, scene)
