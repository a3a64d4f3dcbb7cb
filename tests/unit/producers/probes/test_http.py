"""HTTP probes against servers that behave, and against the agent's own responder."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from producers.probes import connection
from producers.probes.http_message import authority
from producers.receipts import Receipts
from producers.responder import serve
from topics.ids import span_id
from topics.outcome import Outcome, Proto
from topics.task_rounds import HttpRequest

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


@dataclass
class Recorder:
    """A keep-alive server's script that keeps the requests as they came and answers `reply` to each."""

    reply: bytes = OK
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    close_after: int = 1_000_000

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        for _ in range(self.close_after):
            head = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
            self.heads.append(head)
            self.bodies.append(body)
            writer.write(self.reply)


def test_one_connection_is_kept_and_used_again(lab: Any) -> None:
    async def scene() -> None:
        server = Recorder()
        async with lab.server(server) as port:
            _, rows = await lab.load(lab.target(port=port), requests=3, rate=10, timeout_ms=2000)
        assert server.connections == 1
        assert [row.outcome for row in rows] == [Outcome.ok] * 3
        first, rest = rows[0], rows[1:]
        assert first.connect_us > 0
        assert all(row.connect_us == 0 for row in rest)
        # The first carries the SYN, too; each is one segment of data.
        assert first.sent == 2
        assert {row.sent for row in rest} == {1}
        assert {row.lost for row in rows} == {0}
        assert all(0 < row.ttfb_us <= row.dur_us for row in rows)
        assert len({row.src_port for row in rows}) == 1

    lab.run(scene)


def test_every_request_can_be_named_by_whoever_gets_it(lab: Any) -> None:
    async def scene() -> None:
        server = Recorder()
        async with lab.server(server) as port:
            await lab.load(lab.target(port=port), requests=3)
        for seq, head in enumerate(server.heads):
            fields = dict(line.split(b": ", 1) for line in head.strip().split(b"\r\n")[1:])
            assert fields[b"kpatrol-from"] == b"node-1;ab;0;%d" % seq
            version, trace, span, flags = fields[b"traceparent"].decode().split("-")
            assert (version, flags) == ("00", "01")
            assert span == span_id(trace_id=bytes.fromhex(trace), seq=seq)

    lab.run(scene)


def test_a_request_is_written_as_the_task_says(lab: Any) -> None:
    async def scene() -> None:
        request = HttpRequest(
            method="POST",
            url_path="/p%20q?x=1%",
            headers=("X-Colon: a:b", "User-Agent: mine", "content-type:application/json"),
            body='{"a":"%d"}',
            host_header="shop.example",
        )
        server = Recorder()
        async with lab.server(server) as port:
            _, (row,) = await lab.load(lab.target(port=port), http=request)
        lines = server.heads[0].split(b"\r\n")
        assert lines[0] == b"POST /p%20q?x=1% HTTP/1.1"
        assert b"host: shop.example" in lines
        assert b"X-Colon: a:b" in lines
        assert b"User-Agent: mine" in lines
        assert b"user-agent: kpatrol" not in lines
        assert server.bodies == [b'{"a":"%d"}']
        assert row.req_bytes == 10
        assert row.outcome is Outcome.ok

    lab.run(scene)


@pytest.mark.parametrize("headers", [("no colon",), (": empty",), ("x: a\r\nevil: 1",)])
def test_a_header_that_would_break_the_message_sends_nothing(lab: Any, headers: tuple[str, ...]) -> None:
    async def scene() -> None:
        server = Recorder()
        async with lab.server(server) as port:
            account, rows = await lab.load(lab.target(port=port), requests=3, http=HttpRequest(headers=headers))
            assert server.heads == []
        assert rows == []
        assert account.unsent_causes == (("invalid_request", 3),)

    lab.run(scene)


def test_head_has_no_body_and_keeps_the_connection(lab: Any) -> None:
    async def scene() -> None:
        server = Recorder(reply=b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n")
        async with lab.server(server) as port:
            _, rows = await lab.load(
                lab.target(port=port), requests=3, rate=10, timeout_ms=2000, http=HttpRequest(method="HEAD")
            )
        assert server.connections == 1
        assert [(row.outcome, row.resp_bytes) for row in rows] == [(Outcome.ok, 0)] * 3

    lab.run(scene)


def test_a_new_connection_for_each_request_where_the_task_wants_it(lab: Any) -> None:
    async def scene() -> None:
        server = Recorder()
        async with lab.server(server) as port:
            _, rows = await lab.load(
                lab.target(port=port), requests=4, timeout_ms=2000, http=HttpRequest(new_connection=True)
            )
        assert server.connections == 4
        assert b"connection: close" in server.heads[0]
        assert all(row.connect_us > 0 and row.sent == 2 for row in rows)
        assert len({row.src_port for row in rows}) == 4

    lab.run(scene)


def test_a_busy_target_gets_another_connection_instead_of_a_late_request(lab: Any) -> None:
    async def scene() -> None:
        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.05)
            writer.write(OK)

        async with lab.server(slow) as port:
            account, rows = await lab.load(lab.target(port=port), requests=5, rate=1000)
        assert [row.outcome for row in rows] == [Outcome.ok] * 5
        assert len({row.src_port for row in rows}) == 5
        assert account.lateness_max_us < 20_000

    lab.run(scene)


def test_without_an_expected_status_any_status_is_ok(lab: Any) -> None:
    async def scene() -> None:
        server = Recorder(reply=b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")
        async with lab.server(server) as port:
            _, (row,) = await lab.load(lab.target(port=port))
            assert (row.outcome, row.status) == (Outcome.ok, 503)
            _, (row,) = await lab.load(lab.target(port=port), status_code=200)
            assert (row.outcome, row.status, row.error) == (Outcome.http_error, 503, "503")

    lab.run(scene)


def test_a_target_may_have_a_path_of_its_own(lab: Any) -> None:
    async def scene() -> None:
        server = Recorder()
        async with lab.server(server) as port:
            await lab.load(lab.target(port=port), lab.target(port=port, url_path="/own?x=1"), timeout_ms=2000)
        assert sorted(request.split(b" ")[1] for request in server.heads) == [b"/kpatrol", b"/own?x=1"]

    lab.run(scene)


def test_who_answers_decides_whether_it_is_the_peer(lab: Any) -> None:
    async def scene() -> None:
        port = lab.free_port()
        ports = {"https_port": 0, "tcp_port": 0, "udp_port": 0}
        responder = await serve(
            agent="node-2",
            incarnation=9,
            address="127.0.0.1",
            http_port=port,
            tls=None,
            receipts=Receipts(),
            **ports,
        )
        async with lab.server(Recorder()) as strange_port:
            _, rows = await lab.load(
                lab.target(port=port, agent="node-2"),
                lab.target(port=port, agent="node-3"),
                lab.target(port=port),
                lab.target(port=strange_port, agent="node-2"),
            )
        await responder.close()
        seen = {row.target: (row.outcome, row.peer, row.error) for row in rows}
        assert seen == {
            0: (Outcome.ok, "node-2", ""),
            1: (Outcome.wrong_peer, "node-2", "wrong_peer"),
            2: (Outcome.ok, "node-2", ""),
            3: (Outcome.wrong_peer, "", "no_agent"),
        }

    lab.run(scene)


def test_a_connection_that_the_server_closed_while_idle_is_not_used_again(lab: Any) -> None:
    async def scene() -> None:
        server = Recorder(close_after=1)
        async with lab.server(server) as port:
            _, rows = await lab.load(lab.target(port=port), requests=4, rate=100)
        assert server.connections == 4
        assert [(row.outcome, row.attempt) for row in rows] == [(Outcome.ok, 0)] * 4

    lab.run(scene)


@dataclass
class Stale:
    """Answers the first request of a connection, then resets it when the second arrives."""

    connections: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        if self.connections == 1:
            await reader.read(10)
            writer.transport.abort()


@pytest.mark.parametrize(
    ("method", "idle_s", "outcome", "attempt"),
    [
        ("GET", 0.06, Outcome.ok, 1),
        ("POST", 0.06, Outcome.reset, 0),
        ("GET", 0.02, Outcome.reset, 0),
    ],
)
def test_only_a_repeatable_request_on_a_long_idle_connection_is_sent_again(
    lab: Any, monkeypatch: pytest.MonkeyPatch, method: str, idle_s: float, outcome: Outcome, attempt: int
) -> None:
    monkeypatch.setattr(connection, "STALE_IDLE_US", 40_000)

    async def scene() -> None:
        async with lab.server(Stale()) as port:
            http = HttpRequest(method=method)
            _, rows = await lab.load(
                lab.target(port=port), requests=2, rate=1 / idle_s, duration_s=2 * idle_s, http=http
            )
        assert rows[0].outcome is Outcome.ok
        assert (rows[1].outcome, rows[1].attempt) == (outcome, attempt)

    lab.run(scene)


def test_authority_is_written_as_urls_are(lab: Any) -> None:
    assert authority(lab.target(port=80)) == "127.0.0.1"
    assert authority(lab.target(port=8080, address="fd00::1")) == "[fd00::1]:8080"
    assert authority(lab.target(port=443, proto=Proto.https, address="fd00::1")) == "[fd00::1]"
    assert authority(lab.target(port=80, proto=Proto.https, address="a.example")) == "a.example:80"


def test_ipv6_literals_are_reached(lab: Any) -> None:
    async def scene() -> None:
        heads: list[bytes] = []

        async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(OK)

        async with lab.server(serve_one, host="::1") as port:
            _, (row,) = await lab.load(lab.target(port=port, address="::1", family=6))
        assert row.outcome is Outcome.ok
        assert f"host: [::1]:{port}".encode() in heads[0]

    lab.run(scene)
