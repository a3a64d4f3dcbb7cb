"""Name servers that do not behave: each ends in an outcome, in time, and costs no memory."""

import asyncio
import resource
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from producers.probes.base import BadReply, Closed
from producers.probes.dns import DnsCodec, question
from topics.outcome import Outcome, Proto
from topics.task_rounds import DnsRequest

QUERY = question(domain="name.example", record_type="A")
OK, BAD, LATE, GONE = Outcome.ok, Outcome.bad_reply, Outcome.timeout, Outcome.reset
ANSWER = b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\xc0\0\x02\x07"


def said(query: bytes, *, flags: int = 0x8180, counts: tuple[int, ...] = (1, 1, 0, 0), rest: bytes = ANSWER) -> bytes:
    """A reply to a query: its id and question, and what else is wanted."""
    return query[:2] + struct.pack("!5H", flags, *counts) + query[12 : len(QUERY)] + rest


def other_id(query: bytes) -> bytes:
    return bytes([query[0] ^ 0x55]) + said(query)[1:]


def other_question(query: bytes) -> bytes:
    return said(query).replace(b"\x04name", b"\x04game")


def other_type(query: bytes) -> bytes:
    return said(query).replace(b"\0\0\x01\0\x01\xc0", b"\0\0\x1c\0\x01\xc0")


# What a datagram answers with: any number of replies to a query.
UDP: dict[str, tuple[Callable[[bytes], list[bytes]], Outcome, str]] = {
    "another id": (lambda q: [other_id(q)], LATE, "timeout"),
    "every id but ours": (
        lambda q: [struct.pack("!H", (q[0] << 8 | q[1]) + n & 0xFFFF) + said(q)[2:] for n in range(1, 400)],
        LATE, "timeout",
    ),
    "another name": (lambda q: [other_question(q)], BAD, "question_mismatch"),
    "another type": (lambda q: [other_type(q)], BAD, "question_mismatch"),
    "no question": (lambda q: [q[:2] + b"\x81\x80" + bytes(8)], BAD, "question_mismatch"),
    "two questions": (lambda q: [said(q, counts=(2, 0, 0, 0))], BAD, "question_mismatch"),
    "our query sent back": (lambda q: [q], BAD, "not_a_reply"),
    "a packet cut short": (lambda q: [said(q)[:7]], BAD, "short_message"),
    "a header alone": (lambda q: [said(q)[:12]], BAD, "question_mismatch"),
    "cut within the question": (lambda q: [said(q)[:20]], BAD, "question_mismatch"),
    "one byte": (lambda q: [b"\0"], LATE, "timeout"),
    "nothing in it": (lambda q: [b""], LATE, "timeout"),
    "garbage": (lambda q: [q[:2] + b"\xff" * 500], BAD, "question_mismatch"),
    "65,000 bytes of garbage": (lambda q: [q[:2] + b"\xa5" * 65_000], BAD, "question_mismatch"),
    "a name that points to itself": (lambda q: [said(q, rest=b"\xc0\x21" * 200)], OK, ""),
    "a question that points to itself": (
        lambda q: [q[:2] + b"\x81\x80\0\1\0\0\0\0\0\0" + b"\xc0\x0c\0\1\0\1"], BAD, "question_mismatch",
    ),
    "65,535 answers promised": (lambda q: [said(q, counts=(1, 65_535, 65_535, 65_535))], OK, ""),
    "SERVFAIL": (lambda q: [said(q, flags=0x8182)], OK, "SERVFAIL"),
    "REFUSED": (lambda q: [said(q, flags=0x8185)], OK, "REFUSED"),
    "REFUSED without the question": (lambda q: [q[:2] + b"\x81\x85" + bytes(8)], OK, "REFUSED"),
    "NXDOMAIN": (lambda q: [said(q, flags=0x8183)], OK, "NXDOMAIN"),
    "an rcode that is none": (lambda q: [said(q, flags=0x818F)], OK, "15"),
    "truncated": (lambda q: [said(q, flags=0x8380)], OK, "truncated"),
    "no answer": (lambda q: [], LATE, "timeout"),
    "the same answer fifty times": (lambda q: [said(q)] * 50, OK, ""),
    "a hundred strange ones first": (lambda q: [b"\0\0" + said(q)[2:] if q[:2] != b"\0\0" else b"\1\1"] * 100
                                      + [said(q)], OK, ""),
}  # fmt: skip


@asynccontextmanager
async def udp_server(answer: Callable[[bytes], list[bytes]], *, elsewhere: bool = False) -> AsyncIterator[int]:
    """A name server on loopback that answers each query with many datagrams, or from another port than was asked."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    other.bind(("127.0.0.2" if elsewhere else "127.0.0.1", 0))
    sock.setblocking(False)

    def ready() -> None:
        data, source = sock.recvfrom(2048)
        for reply in answer(data):
            (other if elsewhere else sock).sendto(reply, source)

    loop.add_reader(sock.fileno(), ready)
    try:
        yield sock.getsockname()[1]
    finally:
        loop.remove_reader(sock.fileno())
        sock.close()
        other.close()


@pytest.mark.parametrize("name", UDP)
def test_each_datagram_has_its_outcome(lab: Any, name: str) -> None:
    answer, outcome, error = UDP[name]

    async def scene() -> None:
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        patient = 10_000 if outcome is not LATE else 80
        async with udp_server(answer) as port:
            target = lab.target(port=port, proto=Proto.dns)
            _, rows = await lab.load(target, requests=2, timeout_ms=patient, dns=DnsRequest(domain="name.example"))
        # Replies after the first are nobody's; what was lost is what nothing came for.
        assert [(row.outcome, row.error) for row in rows] == [(outcome, error)] * 2
        assert {row.lost for row in rows} == {1 if outcome is LATE else 0}
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 20 << 10

    lab.run(scene)


def test_an_answer_from_elsewhere_is_none(lab: Any) -> None:
    """From another address and port the kernel does not even show it to us."""

    async def scene() -> None:
        async with udp_server(lambda q: [said(q)], elsewhere=True) as port:
            target = lab.target(port=port, proto=Proto.dns)
            _, (row,) = await lab.load(target, timeout_ms=80, dns=DnsRequest(domain="name.example"))
        assert (row.outcome, row.lost) == (LATE, 1)

    lab.run(scene)


def streamed(*pieces: bytes | Callable[[bytes], bytes], pause_s: float = 0.0, then: str = "wait") -> Any:
    """A script for a stream: take the query, say the pieces (or what is made of the query), then wait, end or reset."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        query = await reader.readexactly(size)
        for piece in pieces:
            writer.write(piece if isinstance(piece, bytes) else piece(query))
            await writer.drain()
            await asyncio.sleep(pause_s)
        if then == "wait":
            await asyncio.sleep(20)
        elif then == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
            writer.transport.abort()

    return script


def framed(message: Callable[[bytes], bytes], *, length: int | None = None) -> Callable[[bytes], bytes]:
    """Behind its length, true or not."""
    return lambda q: (len(message(q)) if length is None else length).to_bytes(2, "big") + message(q)


TCP: dict[str, tuple[Any, Outcome, str]] = {
    "a length of 65,535 and never so much": (streamed(framed(said, length=65_535)), LATE, "timeout"),
    "a length of nothing": (streamed(framed(lambda _: b"")), BAD, "short_message"),
    "a length shorter than a header": (streamed(framed(lambda q: said(q)[:5])), BAD, "short_message"),
    "a length shorter than the message": (streamed(framed(said, length=20)), BAD, "question_mismatch"),
    "half a message and the end": (streamed(lambda q: framed(said)(q)[:20], then="end"), BAD, "truncated_message"),
    "one byte of the length and the end": (streamed(b"\0", then="end"), BAD, "truncated_message"),
    "the end at once": (streamed(then="end"), GONE, "connection_closed"),
    "a reset at once": (streamed(then="reset"), GONE, "connection_reset"),
    "a drip of bytes": (streamed(*[b"\0"] * 40, pause_s=0.02), BAD, "short_message"),
    "a slow drip of a good message": (
        streamed(*[lambda q, n=n: framed(said)(q)[n : n + 1] for n in range(60)], pause_s=0.05),
        LATE,
        "timeout",
    ),
    "another id": (streamed(framed(other_id)), BAD, "wrong_id"),
    "another question": (streamed(framed(other_question)), BAD, "question_mismatch"),
    "65,535 bytes of garbage": (streamed(framed(lambda q: q[:2] + b"\xff" * 65_533)), BAD, "question_mismatch"),
    "never a word": (streamed(), LATE, "timeout"),
    "two answers": (streamed(lambda q: framed(said)(q) * 2), OK, ""),
    "SERVFAIL": (streamed(framed(lambda q: said(q, flags=0x8182))), OK, "SERVFAIL"),
    "truncated even so": (streamed(framed(lambda q: said(q, flags=0x8380))), OK, "truncated"),
    "an HTTP server": (streamed(b"HTTP/1.1 400 Bad Request\r\n\r\n", then="end"), BAD, "truncated_message"),
}


@pytest.mark.parametrize("name", TCP)
def test_each_stream_has_its_outcome(lab: Any, name: str) -> None:
    script, outcome, error = TCP[name]

    async def scene() -> None:
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        patient = 10_000 if outcome is not LATE else 150
        async with lab.server(script) as port:
            target = lab.target(port=port, proto=Proto.dns)
            question = DnsRequest(domain="name.example", protocol="tcp")
            _, (row,) = await lab.load(target, timeout_ms=patient, dns=question)
        assert (row.outcome, row.error) == (outcome, error)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 20 << 10

    lab.run(scene)


def test_a_stream_keeps_no_more_than_one_message() -> None:
    codec = DnsCodec(QUERY)
    codec.request(0)
    codec.feed(b"\xff\xff")
    with pytest.raises(BadReply):
        codec.feed(b"\0\1" + bytes(80_000))
    with pytest.raises(Closed):
        codec.eof()
