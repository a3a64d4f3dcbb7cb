"""HTTP/2 probes: against a server that behaves, then against many that do not. Each ends in an outcome, in time."""

import asyncio
import resource
import socket
import struct
from collections import Counter
from typing import Any

import h2.errors
import h2.settings
import pytest

from producers.probes.http2_session import MAX_IDLE_FRAMES
from tests.unit.producers.probes.h2_server import SETTINGS, SETTINGS_ACK, STATUS_200, H2Server, frame
from topics.ids import span_id
from topics.outcome import Outcome
from topics.task_rounds import HttpRequest

HTTP2 = HttpRequest(http2=True)
PREFACE_BYTES = 24


def ends(rows: list[Any]) -> Counter[tuple[Outcome, str]]:
    """Outcomes and errors."""
    return Counter((row.outcome, row.error) for row in rows)


def test_many_requests_share_one_connection(lab: Any) -> None:
    async def scene() -> None:
        server = H2Server(hold=19, agent="node-2/1")
        async with lab.server(server) as port:
            target = lab.target(port=port, agent="node-2")
            _, rows = await lab.load(target, requests=20, rate=1000, timeout_ms=2000, http=HTTP2)
        assert [(row.outcome, row.peer, row.status, row.resp_bytes) for row in rows] == [
            (Outcome.ok, "node-2", 200, 2)
        ] * 20
        # All were under way at once, and answered in the opposite order.
        assert (server.connections, server.most) == (1, 20)
        assert rows[0].dur_us > rows[-1].dur_us
        assert rows[0].connect_us > 0
        assert all(0 < row.ttfb_us <= row.dur_us for row in rows)
        assert len({row.src_port for row in rows}) == 1
        # Every segment is some row's.
        assert sum(row.sent for row in rows) >= 3
        assert sum(row.lost for row in rows) == 0

    lab.run(scene)


def test_a_request_says_whose_it_is_and_what_the_task_says(lab: Any) -> None:
    async def scene() -> None:
        server = H2Server()
        http = HttpRequest(
            http2=True, method="POST", url_path="/a?b=c", body="x" * 100_000, headers=("X-Time: 10:30", "Connection: x")
        )
        async with lab.server(server) as port:
            await lab.load(lab.target(port=port), requests=2, timeout_ms=2000, http=http)
        for seq, request in enumerate(server.requests):
            said = request.headers
            assert request.body == b"x" * 100_000
            assert (said[":method"], said[":scheme"], said[":path"]) == ("POST", "http", "/a?b=c")
            assert said[":authority"] == f"127.0.0.1:{port}"
            assert (said["x-time"], said["content-length"]) == ("10:30", "100000")
            assert "connection" not in said
            assert said["kpatrol-from"] == f"node-1;ab;0;{seq}"
            _, trace, span, _ = said["traceparent"].split("-")
            assert span == span_id(trace_id=bytes.fromhex(trace), seq=seq)

    lab.run(scene)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_every_method(lab: Any, method: str) -> None:
    async def scene() -> None:
        server = H2Server()
        async with lab.server(server) as port:
            http = HttpRequest(http2=True, method=method)
            _, (row,) = await lab.load(lab.target(port=port), http=http, timeout_ms=2000)
        assert (row.outcome, row.status, server.requests[0].headers[":method"]) == (Outcome.ok, 200, method)

    lab.run(scene)


def test_a_connection_of_its_own_for_each_request_where_the_task_says_so(lab: Any) -> None:
    async def scene() -> None:
        server = H2Server()
        async with lab.server(server) as port:
            http = HttpRequest(http2=True, new_connection=True)
            _, rows = await lab.load(lab.target(port=port), requests=5, timeout_ms=2000, http=http)
        assert server.connections == 5
        assert ends(rows) == {(Outcome.ok, ""): 5}
        assert all(row.connect_us > 0 for row in rows)
        assert len({row.src_port for row in rows}) == 5

    lab.run(scene)


def test_no_more_at_once_than_the_server_allows(lab: Any) -> None:
    async def scene() -> None:
        server = H2Server(settings={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 2}, hold=0)
        async with lab.server(server) as port:
            target = lab.target(port=port)
            _, rows = await lab.load(target, requests=60, rate=2000, timeout_ms=2000, http=HTTP2)
        assert ends(rows) == {(Outcome.ok, ""): 60}
        assert 1 <= server.connections <= 8
        assert server.most <= 2

    lab.run(scene)


def test_an_expected_status_and_the_peer_are_judged_as_in_http1(lab: Any) -> None:
    async def scene() -> None:
        async with lab.server(H2Server(status="302", agent="node-2/1")) as port:
            _, rows = await lab.load(lab.target(port=port, agent="node-3"), http=HTTP2, timeout_ms=2000)
            assert (rows[0].outcome, rows[0].peer) == (Outcome.wrong_peer, "node-2")
            _, rows = await lab.load(lab.target(port=port), http=HTTP2, timeout_ms=2000, status_code=200)
            assert (rows[0].outcome, rows[0].error, rows[0].status) == (Outcome.http_error, "302", 302)
            _, rows = await lab.load(lab.target(port=port), http=HTTP2, timeout_ms=2000)
            # A redirect is not followed: it is the answer.
            assert (rows[0].outcome, rows[0].status) == (Outcome.ok, 302)

    lab.run(scene)


def test_a_server_that_takes_its_leave_in_order_loses_no_request(lab: Any) -> None:
    """As web servers do after so many requests of a connection."""

    async def scene() -> None:
        server = H2Server(goaway_after=5)
        async with lab.server(server) as port:
            _, rows = await lab.load(lab.target(port=port), requests=40, rate=1000, timeout_ms=2000, http=HTTP2)
        assert ends(rows) == {(Outcome.ok, ""): 40}
        assert 2 <= server.connections <= 9
        assert {row.attempt for row in rows} <= {0, 1}

    lab.run(scene)


def test_a_refused_stream_is_tried_once_more(lab: Any) -> None:
    async def scene() -> None:
        refused: list[int] = []

        def answer(server: Any, stream: int, _: Any) -> None:
            if not refused:
                refused.append(stream)
                server.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
            else:
                server.send_headers(stream, [(":status", "204")], end_stream=True)

        async with lab.server(H2Server(answer=answer)) as port:
            _, rows = await lab.load(lab.target(port=port), requests=2, rate=50, timeout_ms=2000, http=HTTP2)
        # The second request may be sent before the first is refused, and be answered first.
        found = Counter((row.outcome, row.status, row.attempt) for row in rows)
        assert found == {(Outcome.ok, 204, 1): 1, (Outcome.ok, 204, 0): 1}

    lab.run(scene)


def test_a_closed_port_is_refused_and_a_name_that_is_none_a_dns_error(lab: Any) -> None:
    async def scene() -> None:
        _, rows = await lab.load(lab.target(port=lab.free_port()), requests=3, http=HTTP2)
        assert ends(rows) == {(Outcome.refused, "connection_refused"): 3}
        # One SYN each, or for several that waited together.
        assert 1 <= sum(row.sent for row in rows) <= 3
        _, rows = await lab.load(lab.target(port=1, address="no such name"), http=HTTP2, timeout_ms=2000)
        assert {row.outcome for row in rows} == {Outcome.dns_error}

    lab.run(scene)


def test_a_header_that_http2_forbids_sends_nothing(lab: Any) -> None:
    async def scene() -> None:
        http = HttpRequest(http2=True, headers=("te: gzip",))
        account, rows = await lab.load(lab.target(port=1), http=http)
        assert (rows, account.unsent_causes) == ([], (("invalid_request", 1),))

    lab.run(scene)


def answered(*after: bytes, settings: bytes = SETTINGS) -> Any:
    """A script: take the preface and the first request, then say that."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(PREFACE_BYTES)
        writer.write(settings)
        # Our settings, our window, the request's head.
        await reader.read(4096)
        await asyncio.sleep(0.005)
        for piece in after:
            writer.write(piece)
            await writer.drain()
        await asyncio.sleep(20)

    return script


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    await asyncio.sleep(20)


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65_536):
        pass


async def _reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    linger = struct.pack("=ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def _endless_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(PREFACE_BYTES)
    writer.write(SETTINGS + frame(1, STATUS_200, flags=4, stream=1))
    while True:
        writer.write(frame(0, bytes(16_384), stream=1))
        await writer.drain()


async def _slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    for byte in SETTINGS + frame(1, STATUS_200, flags=5, stream=1):
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)


WINDOW_0 = frame(4, b"\0\x04\0\0\0\0")
BOMB = b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000 + b"\xbe" * 12_000
BIG_LITERAL = b"\x88\0\x01x\x7f\x81\x7f" + b"z" * 16_000
OK, BAD, LATE, GONE = Outcome.ok, Outcome.bad_reply, Outcome.timeout, Outcome.reset

HOSTILE: dict[str, tuple[Any, Outcome, str]] = {
    "an HTTP/1.1 reply": (_garbage, BAD, "frame_too_large"),
    "garbage in frames": (answered(frame(1, b"\xff" * 40, flags=5, stream=1)), BAD, "bad_http2"),
    "a frame larger than allowed": (answered(frame(0, bytes(16_385), stream=1)), BAD, "frame_too_large"),
    "never a word": (_silent, LATE, "timeout"),
    "settings, and never a word": (answered(), LATE, "timeout"),
    "a connection reset": (_reset, GONE, "connection_reset"),
    "stream reset": (answered(frame(3, b"\0\0\0\x02", stream=1)), GONE, "stream_internal_error"),
    "stream reset after the head": (
        answered(frame(1, STATUS_200, flags=4, stream=1) + frame(3, b"\0\0\0\x08", stream=1)),
        GONE,
        "stream_cancel",
    ),
    "stream reset with an unknown code": (answered(frame(3, b"\0\0\xff\xff", stream=1)), GONE, "stream_unknown_error"),
    "refused always": (answered(frame(3, b"\0\0\0\x07", stream=1)), GONE, "stream_refused_stream"),
    "goaway with blame": (answered(frame(7, b"\0\0\0\0\0\0\0\x0b")), GONE, "goaway_enhance_your_calm"),
    "goaway without blame, always": (answered(frame(7, bytes(8))), GONE, "goaway_no_error"),
    "goaway mid-stream, then nothing": (
        answered(frame(1, STATUS_200, flags=4, stream=1) + frame(7, b"\0\0\0\x01\0\0\0\0")),
        LATE,
        "timeout",
    ),
    "goaway cut short": (answered(frame(7, b"\0\0")), BAD, "bad_http2"),
    "a reply to a stream that nobody opened": (answered(frame(1, STATUS_200, flags=5, stream=9)), BAD, "bad_http2"),
    "a reply on an even stream": (answered(frame(1, STATUS_200, flags=5, stream=2)), BAD, "bad_http2"),
    "a reply on stream 0": (answered(frame(1, STATUS_200, flags=5)), BAD, "bad_http2"),
    "data before the head": (answered(frame(0, b"x", flags=1, stream=1)), BAD, "bad_http2"),
    "no status": (answered(frame(1, b"\0\x01x\x01y", flags=5, stream=1)), BAD, "bad_http2"),
    "a status that is none": (answered(frame(1, b"\x08\x032x0", flags=5, stream=1)), BAD, "bad_status"),
    "a push nobody asked for": (answered(frame(5, b"\0\0\0\x02\x88", flags=4, stream=1)), BAD, "bad_http2"),
    "a body shorter than it says": (
        answered(frame(1, b"\x88\x0f\x0d\x0210", flags=4, stream=1) + frame(0, b"abc", flags=1, stream=1)),
        BAD,
        "bad_http2",
    ),
    "a compression bomb": (answered(frame(1, STATUS_200 + BOMB, flags=5, stream=1)), BAD, "head_too_large"),
    "headers larger than allowed": (
        answered(
            frame(1, BIG_LITERAL, stream=1), *[frame(9, BIG_LITERAL[1:], stream=1)] * 5, frame(9, flags=4, stream=1)
        ),
        BAD,
        "head_too_large",
    ),
    "continuations without end": (
        answered(frame(1, STATUS_200, stream=1), *[frame(9, b"", stream=1) * 50] * 40),
        BAD,
        "bad_http2",
    ),
    "a flood of settings": (answered(*[SETTINGS * 100] * 30), BAD, "frame_flood"),
    "a flood of settings acknowledged": (answered(SETTINGS_ACK * 3000), BAD, "frame_flood"),
    "a flood of pings": (answered(*[frame(6, bytes(8)) * 100] * 30), BAD, "frame_flood"),
    "a flood of empty data": (
        answered(frame(1, STATUS_200, flags=4, stream=1), *[frame(0, stream=1) * 100] * 30),
        BAD,
        "frame_flood",
    ),
    "a flood of interim replies": (
        answered(*[frame(1, b"\x08\x03103", flags=4, stream=1) * 100] * 30),
        BAD,
        "frame_flood",
    ),
    "a flood of unknown frames": (answered(*[frame(99, b"?") * 100] * 30), BAD, "frame_flood"),
    "a window beyond all bounds": (answered(frame(8, b"\x7f\xff\xff\xff") * 2), BAD, "bad_http2"),
    "a body without end": (_endless_body, BAD, "body_too_large"),
    "a drip of bytes": (_slow_head, LATE, "timeout"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_each_misbehaviour_has_its_outcome(lab: Any, name: str) -> None:
    script, outcome, error = HOSTILE[name]

    async def scene() -> None:
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began_s = asyncio.get_running_loop().time()
        async with lab.server(script) as port:
            patient = 10_000 if outcome is not Outcome.timeout else 100
            _, (row,) = await lab.load(lab.target(port=port), timeout_ms=patient, http=HTTP2)
            took_s = asyncio.get_running_loop().time() - began_s
        assert (row.outcome, row.error) == (outcome, error)
        assert took_s < 5
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 20 << 10

    lab.run(scene)


def test_a_window_of_nothing_holds_a_body_back_for_a_timeout_and_no_longer(lab: Any) -> None:
    async def scene() -> None:
        async with lab.server(answered(settings=WINDOW_0)) as port:
            http = HttpRequest(http2=True, method="POST", body="x" * 200_000)
            _, rows = await lab.load(lab.target(port=port), requests=3, timeout_ms=100, http=http)
        assert ends(rows) == {(Outcome.timeout, "timeout"): 3}

    lab.run(scene)


def test_a_body_larger_than_any_window_comes_whole(lab: Any) -> None:
    async def scene() -> None:
        async with lab.server(H2Server(body=bytes(3 << 20))) as port:
            _, (row,) = await lab.load(lab.target(port=port), timeout_ms=5000, http=HTTP2)
        assert (row.outcome, row.resp_bytes) == (Outcome.ok, 3 << 20)

    lab.run(scene)


def test_one_spoiled_stream_does_not_end_the_others(lab: Any) -> None:
    async def scene() -> None:
        def answer(server: Any, stream: int, _: Any) -> None:
            if stream % 4 == 1:
                server.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
            else:
                server.send_headers(stream, [(":status", "200")], end_stream=True)

        server = H2Server(answer=answer, hold=9)
        async with lab.server(server) as port:
            _, rows = await lab.load(lab.target(port=port), requests=10, rate=1000, timeout_ms=2000, http=HTTP2)
        assert ends(rows) == {(Outcome.ok, ""): 5, (Outcome.reset, "stream_internal_error"): 5}
        assert server.connections == 1

    lab.run(scene)


def test_a_flood_has_a_bound_that_no_honest_server_meets() -> None:
    assert 100 <= MAX_IDLE_FRAMES <= 10_000


def test_a_cancelled_round_leaves_nothing_behind(lab: Any) -> None:
    async def scene() -> None:
        async with lab.server(_silent) as port:
            load = asyncio.ensure_future(
                lab.load(lab.target(port=port), requests=5, rate=500, timeout_ms=20_000, http=HTTP2)
            )
            await asyncio.sleep(0.05)
            lab.cancel.set()
            _, rows = await asyncio.wait_for(load, 10)
        assert ends(rows) == {(Outcome.cancelled, "cancelled"): 5}

    lab.run(scene)
