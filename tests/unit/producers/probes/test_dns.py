"""DNS over UDP, TCP and TLS against a small name server that also misbehaves."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from kpatrol.lab.tls import Authority
from producers.probes.base import BadReply, Closed
from producers.probes.dns import DnsCodec, judged, numbered, question
from topics.outcome import Outcome, Proto
from topics.task_rounds import DnsRequest

Answerer = Callable[[dns.message.Message], "bytes | None"]


def good(query: dns.message.Message) -> bytes:
    reply = dns.message.make_response(query)
    name = query.question[0].name
    if str(name).startswith("missing"):
        reply.set_rcode(dns.rcode.NXDOMAIN)
    else:
        reply.answer.append(dns.rrset.from_text(name, 5, "IN", "A", "192.0.2.7"))
    return reply.to_wire()


def servfail(query: dns.message.Message) -> bytes:
    reply = dns.message.make_response(query)
    reply.set_rcode(dns.rcode.SERVFAIL)
    return reply.to_wire()


def truncated(query: dns.message.Message) -> bytes:
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.TC
    return reply.to_wire()


def other_question(query: dns.message.Message) -> bytes:
    return dns.message.make_response(dns.message.make_query("other.example", "A", id=query.id)).to_wire()


def other_id(query: dns.message.Message) -> bytes:
    query.id ^= 0x5555
    return good(query)


def shouting(query: dns.message.Message) -> bytes:
    return good(dns.message.from_wire(query.to_wire().replace(b"name", b"NaMe")))


@asynccontextmanager
async def udp_server(answer: Answerer, ports: set[int] | None = None) -> AsyncIterator[int]:
    """A name server on loopback; the source ports it saw end up in `ports`."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)

    def ready() -> None:
        while True:
            try:
                data, source = sock.recvfrom(2048)
            except BlockingIOError:
                return
            if ports is not None:
                ports.add(source[1])
            reply = answer(dns.message.from_wire(data))
            if reply is not None:
                sock.sendto(reply, source)

    loop.add_reader(sock.fileno(), ready)
    try:
        yield sock.getsockname()[1]
    finally:
        loop.remove_reader(sock.fileno())
        sock.close()


def patience_ms(outcome: Outcome) -> int:
    """Short only where a timeout is wanted: a busy machine may take its time to answer."""
    return 60 if outcome is Outcome.timeout else 5000


def ask(protocol: str = "udp", domain: str = "name.example") -> DnsRequest:
    return DnsRequest(domain=domain, protocol=protocol)


CASES: dict[str, tuple[Answerer, str, Outcome, str, int]] = {
    "an address": (good, "name.example", Outcome.ok, "", 0),
    "no such name is an answer": (good, "missing.example", Outcome.ok, "NXDOMAIN", 3),
    "a server that fails has answered": (servfail, "name.example", Outcome.ok, "SERVFAIL", 2),
    "truncated": (truncated, "name.example", Outcome.ok, "truncated", 0),
    "another question": (other_question, "name.example", Outcome.bad_reply, "question_mismatch", 0),
    "another id answers nobody": (other_id, "name.example", Outcome.timeout, "timeout", 0),
    "the name in other letters": (shouting, "name.example", Outcome.ok, "", 0),
    "half a header": (lambda q: q.to_wire()[:7], "name.example", Outcome.bad_reply, "short_message", 0),
    "one byte": (lambda q: b"x", "name.example", Outcome.timeout, "timeout", 0),
    "our own query": (lambda q: q.to_wire(), "name.example", Outcome.bad_reply, "not_a_reply", 0),
    "silence": (lambda q: None, "name.example", Outcome.timeout, "timeout", 0),
}


@pytest.mark.parametrize("name", CASES)
def test_each_udp_reply_has_its_outcome(lab: Any, name: str) -> None:
    answer, domain, outcome, error, rcode = CASES[name]

    async def scene() -> None:
        async with udp_server(answer) as port:
            _, rows = await lab.load(
                lab.target(port=port, proto=Proto.dns),
                requests=3,
                timeout_ms=patience_ms(outcome),
                dns=ask(domain=domain),
            )
        for row in rows:
            assert (row.outcome, row.error, row.status) == (outcome, error, rcode)
            # A datagram: one packet, lost when nothing came.
            assert (row.sent, row.lost) == (1, 1 if outcome is Outcome.timeout else 0)
            assert row.req_bytes == len(question(domain=domain, record_type="A"))

    lab.run(scene)


def test_many_queries_are_in_flight_and_matched_by_id_in_any_order(lab: Any) -> None:
    async def scene() -> None:
        held: list[tuple[bytes, Any]] = []
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)

        def ready() -> None:
            data, source = sock.recvfrom(2048)
            held.append((good(dns.message.from_wire(data)), source))
            if len(held) == 40:
                for reply, to in reversed(held):
                    sock.sendto(reply, to)

        loop.add_reader(sock.fileno(), ready)
        target = lab.target(port=sock.getsockname()[1], proto=Proto.dns)
        _, rows = await lab.load(target, requests=40, rate=2000, timeout_ms=1000, dns=ask())
        loop.remove_reader(sock.fileno())
        sock.close()
        assert {row.outcome for row in rows} == {Outcome.ok}
        assert rows[0].dur_us > rows[-1].dur_us
        assert len({row.src_port for row in rows}) == 4

    lab.run(scene)


def test_each_target_may_have_a_question_of_its_own(lab: Any) -> None:
    async def scene() -> None:
        asked: list[str] = []

        def note(query: dns.message.Message) -> bytes:
            asked.append(dns.rdatatype.to_text(query.question[0].rdtype))
            return good(query)

        async with udp_server(note) as port:
            _, rows = await lab.load(
                lab.target(port=port, proto=Proto.dns, record_type="A"),
                lab.target(port=port, proto=Proto.dns, record_type="AAAA"),
                requests=3,
                timeout_ms=2000,
                dns=ask(),
            )
        assert sorted(asked) == ["A"] * 3 + ["AAAA"] * 3
        assert {row.outcome for row in rows} == {Outcome.ok}

    lab.run(scene)


def test_a_closed_udp_port_is_refused_every_time(lab: Any) -> None:
    async def scene() -> None:
        port = lab.free_port(socket.SOCK_DGRAM)
        target = lab.target(port=port, proto=Proto.dns)
        _, rows = await lab.load(target, requests=20, rate=400, timeout_ms=300, dns=ask())
        refused = [row for row in rows if row.outcome is Outcome.refused]
        # The kernel limits how many such ICMP messages it sends.
        assert len(refused) >= 4
        assert {row.lost for row in refused} == {0}
        assert {row.outcome for row in rows} <= {Outcome.refused, Outcome.timeout}

    lab.run(scene)


def test_a_socket_serves_on_after_an_icmp_error(lab: Any) -> None:
    async def scene() -> None:
        port = lab.free_port(socket.SOCK_DGRAM)
        target = lab.target(port=port, proto=Proto.dns)
        load = asyncio.ensure_future(lab.load(target, requests=40, rate=200, timeout_ms=100, dns=ask()))
        await asyncio.sleep(0.08)
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", port))
        loop.add_reader(sock.fileno(), lambda: sock.sendto(*_reflected(sock)))
        _, rows = await load
        loop.remove_reader(sock.fileno())
        sock.close()
        assert rows[0].outcome is Outcome.refused
        assert [row.outcome for row in rows[-8:]] == [Outcome.ok] * 8

    lab.run(scene)


def _reflected(sock: socket.socket) -> tuple[bytes, Any]:
    data, source = sock.recvfrom(2048)
    return good(dns.message.from_wire(data)), source


def _tcp(answer: Answerer) -> Any:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            size = int.from_bytes(await reader.readexactly(2), "big")
            reply = answer(dns.message.from_wire(await reader.readexactly(size)))
            if reply is not None:
                wire = len(reply).to_bytes(2, "big") + reply
                writer.write(wire[:1])
                await writer.drain()
                writer.write(wire[1:])

    return script


@pytest.mark.parametrize(
    ("answer", "outcome", "error"),
    [
        (good, Outcome.ok, ""),
        (other_question, Outcome.bad_reply, "question_mismatch"),
        (other_id, Outcome.bad_reply, "wrong_id"),
        (lambda q: b"abc", Outcome.bad_reply, "short_message"),
        (lambda q: None, Outcome.timeout, "timeout"),
    ],
)
def test_each_tcp_reply_has_its_outcome(lab: Any, answer: Answerer, outcome: Outcome, error: str) -> None:
    async def scene() -> None:
        async with lab.server(_tcp(answer)) as port:
            _, (row,) = await lab.load(
                lab.target(port=port, proto=Proto.dns), timeout_ms=patience_ms(outcome), dns=ask("tcp")
            )
        assert (row.outcome, row.error) == (outcome, error)
        assert row.connect_us > 0

    lab.run(scene)


def test_a_tcp_connection_is_kept(lab: Any) -> None:
    async def scene() -> None:
        async with lab.server(_tcp(good)) as port:
            target = lab.target(port=port, proto=Proto.dns)
            _, rows = await lab.load(target, requests=4, rate=40, timeout_ms=500, dns=ask("tcp"))
        assert {row.outcome for row in rows} == {Outcome.ok}
        connected = [row.connect_us > 0 for row in rows]
        # On a machine that stands still for 25 ms the second request finds no connection free and opens its own.
        assert connected[0]
        assert not all(connected)

    lab.run(scene)


def test_a_connection_by_tls_is_kept(lab: Any, tmp_path: Path) -> None:
    """DoT: one handshake, whose time is its own; the certificate is nobody's business, as in kdoctor."""
    papers = Authority(name="test").server_certificate(name="dns.example")
    cert, key = tmp_path / "dns.crt", tmp_path / "dns.key"
    cert.write_text(papers.certificate_pem)
    key.write_text(papers.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    async def scene() -> None:
        async with lab.server(_tcp(good), ssl=context) as port:
            target = lab.target(port=port, proto=Proto.dns)
            _, rows = await lab.load(target, requests=3, rate=10, timeout_ms=2000, dns=ask("tcp-tls"))
        assert {(row.outcome, row.error) for row in rows} == {(Outcome.ok, "")}
        assert rows[0].tls_us > 0
        assert not all(row.tls_us > 0 for row in rows)

    lab.run(scene)


def test_a_tls_server_that_speaks_no_tls(lab: Any) -> None:
    async def scene() -> None:
        async with lab.server(_tcp(lambda q: b"")) as port:
            _, (row,) = await lab.load(lab.target(port=port, proto=Proto.dns), timeout_ms=60, dns=ask("tcp-tls"))
        assert row.outcome in (Outcome.timeout, Outcome.tls_error, Outcome.reset)

    lab.run(scene)


@pytest.mark.parametrize(
    "request_", [None, ask("quic"), ask(domain="a" * 70), DnsRequest(domain="x", record_type="??")]
)
def test_a_question_that_cannot_be_asked_sends_nothing(lab: Any, request_: DnsRequest | None) -> None:
    async def scene() -> None:
        account, rows = await lab.load(lab.target(port=53, proto=Proto.dns), requests=2, dns=request_)
        assert (rows, account.unsent_causes) == ([], (("invalid_request", 2),))

    lab.run(scene)


def test_messages_are_dnspythons_with_another_id() -> None:
    wire = numbered(question(domain="a.example", record_type="A"), 0xBEEF)
    message = dns.message.from_wire(wire)
    assert message.id == 0xBEEF
    assert str(message.question[0].name) == "a.example."
    assert message.flags & dns.flags.RD


def test_a_formerr_without_a_question_is_an_answer() -> None:
    query = question(domain="name.example", record_type="A")
    header = numbered(query, 0)[:2] + b"\x81\x01" + bytes(8)
    assert judged(query, header) == (Outcome.ok, "FORMERR", 1)
    # NOERROR without our question is not.
    assert judged(query, header[:2] + b"\x81\x00" + bytes(8))[:2] == (Outcome.bad_reply, "question_mismatch")


def test_a_stream_that_ends_early_is_told_from_one_that_never_spoke() -> None:
    codec = DnsCodec(question(domain="name.example", record_type="A"))
    with pytest.raises(Closed):
        codec.eof()
    assert codec.feed(b"\x00") is None
    with pytest.raises(BadReply, match="truncated_message"):
        codec.eof()
