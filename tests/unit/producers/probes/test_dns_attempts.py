"""DNS attempts, the fallback to TCP, pairs of queries from one port, the rcode that a task expects."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest

from producers.load.pacing import due_order
from producers.probes.base import ATTEMPT
from topics.outcome import Outcome, Proto
from topics.task_rounds import DnsRequest

PATIENT_MS = 20_000


def reply(query: bytes, *, truncated: bool = False, rcode: int = 0) -> bytes:
    message = dns.message.make_response(dns.message.from_wire(query))
    message.flags |= dns.flags.TC if truncated else 0
    message.set_rcode(dns.rcode.Rcode(rcode))
    return message.to_wire()


class Server:
    """A name server on UDP and TCP of one port; `answer(data, times)` is what to say to the n-th query by UDP."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.sources: list[int] = []
        self.came_s: list[float] = []
        self.by_tcp = 0
        self.connections = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        loop = asyncio.get_running_loop()
        tcp = await asyncio.start_server(self._stream, "127.0.0.1", 0)
        port = tcp.sockets[0].getsockname()[1]
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", port))
        sock.setblocking(False)

        def ready() -> None:
            data, source = sock.recvfrom(2048)
            self.sources.append(source[1])
            self.came_s.append(loop.time())
            said = self.answer(data, len(self.sources))
            if said is not None:
                sock.sendto(said, source)

        loop.add_reader(sock.fileno(), ready)
        try:
            yield port
        finally:
            loop.remove_reader(sock.fileno())
            sock.close()
            tcp.close()
            await asyncio.sleep(0.01)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                said = reply(await reader.readexactly(size))
                self.by_tcp += 1
                writer.write(len(said).to_bytes(2, "big") + said)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def _ask(lab: Any, server: Server, *, requests: int, timeout_ms: int, **dns_: Any) -> tuple[Any, list[Any]]:
    """As lab.load, but rows of further attempts are more than what is due."""
    async with server.open() as port:
        target = lab.target(port=port, proto=Proto.dns)
        question = DnsRequest(domain="name.example", **dns_)
        account, rows = await lab.load(target, requests=requests, rate=50, timeout_ms=timeout_ms, dns=question)
    return account, rows


def test_a_query_that_times_out_is_sent_again_and_each_attempt_is_a_row(lab: Any) -> None:
    async def scene() -> None:
        server = Server(lambda data, times: None if times in (1, 2) else reply(data))
        account, rows = await _ask(lab, server, requests=1, timeout_ms=100, attempts=4)
        assert [(row.attempt, row.seq, row.outcome, row.lost) for row in rows] == [
            (0, 0, Outcome.timeout, 1),
            (1, ATTEMPT, Outcome.timeout, 1),
            (2, 2 * ATTEMPT, Outcome.ok, 0),
        ]
        assert (account.planned, account.further, account.sent, account.unsent) == (3, 2, 3, 0)
        # Each counts from its own moment.
        assert rows[1].planned_us >= rows[0].planned_us + 100_000
        assert all(row.lateness_us < 50_000 for row in rows)

    lab.run(scene)


def test_attempts_have_an_end(lab: Any) -> None:
    async def scene() -> None:
        server = Server(lambda *_: None)
        account, rows = await _ask(lab, server, requests=3, timeout_ms=40, attempts=3)
        assert Counter((row.attempt, row.outcome) for row in rows) == {(n, Outcome.timeout): 3 for n in range(3)}
        assert (account.planned, account.further) == (9, 6)
        assert len(server.sources) == 9

    lab.run(scene)


def test_without_the_option_there_is_one_attempt(lab: Any) -> None:
    async def scene() -> None:
        server = Server(lambda data, _: reply(data, truncated=True))
        account, rows = await _ask(lab, server, requests=2, timeout_ms=PATIENT_MS)
        assert [(row.attempt, row.error) for row in rows] == [(0, "truncated")] * 2
        assert (account.further, server.by_tcp) == (0, 0)

    lab.run(scene)


def test_what_is_truncated_is_asked_once_more_over_a_kept_tcp_connection(lab: Any) -> None:
    async def scene() -> None:
        server = Server(lambda data, _: reply(data, truncated=True))
        account, rows = await _ask(lab, server, requests=5, timeout_ms=PATIENT_MS, tcp_fallback=True)
        assert Counter((row.attempt, row.outcome, row.error) for row in rows) == {
            (0, Outcome.ok, "truncated"): 5,
            (1, Outcome.ok, ""): 5,
        }
        assert {row.seq % ATTEMPT for row in rows if row.attempt} == set(range(5))
        assert (account.further, server.by_tcp) == (5, 5)
        assert server.connections <= 5

    lab.run(scene)


def test_a_cancelled_round_begins_no_further_attempt(lab: Any) -> None:
    async def scene() -> None:
        server = Server(lambda *_: None)
        load = asyncio.ensure_future(_ask(lab, server, requests=2, timeout_ms=PATIENT_MS, attempts=5))
        await asyncio.sleep(0.1)
        lab.cancel.set()
        account, rows = await asyncio.wait_for(load, 10)
        assert {row.outcome for row in rows} <= {Outcome.cancelled}
        assert account.further == 0

    lab.run(scene)


async def _race(lab: Any, server: Server, *, requests: int, timeout_ms: int = PATIENT_MS) -> list[Any]:
    async with server.open() as port:
        pair = [
            lab.target(port=port, proto=Proto.dns, record_type="A"),
            lab.target(port=port, proto=Proto.dns, record_type="AAAA", together=True),
        ]
        question = DnsRequest(domain="name.example", race=True)
        _, rows = await lab.load(*pair, requests=requests, rate=50, timeout_ms=timeout_ms, dns=question)
    return list(rows)


def test_pairs_leave_at_one_moment_from_one_port_of_their_own(lab: Any) -> None:
    async def scene() -> None:
        server = Server(lambda data, _: reply(data))
        rows = await _race(lab, server, requests=6)
        assert Counter((row.target, row.outcome) for row in rows) == {(0, Outcome.ok): 6, (1, Outcome.ok): 6}
        # The kernel may give a port that is free again to a later pair.
        assert len(server.sources) == 12
        assert all(times % 2 == 0 for times in Counter(server.sources).values())
        for first, second in zip(rows[::2], rows[1::2], strict=True):
            assert (first.planned_us, first.src_port) == (second.planned_us, second.src_port)
            apart_us = (second.planned_us + second.lateness_us) - (first.planned_us + first.lateness_us)
            assert 0 <= apart_us < 20_000

    lab.run(scene)


def test_a_translator_that_drops_the_second_of_a_port_is_seen_as_such(lab: Any) -> None:
    """What connection tracking does when it loses the race."""

    async def scene() -> None:
        seen: set[int] = set()

        def once(data: bytes, _: int) -> bytes | None:
            port = server.sources[-1]
            if port in seen:
                return None
            seen.add(port)
            return reply(data)

        server = Server(once)
        rows = await _race(lab, server, requests=5, timeout_ms=150)
        assert Counter((row.target, row.outcome, row.lost) for row in rows) == {
            (0, Outcome.ok, 0): 5,
            (1, Outcome.timeout, 1): 5,
        }

    lab.run(scene)


def test_a_closed_port_refuses_both_of_a_pair(lab: Any) -> None:
    async def scene() -> None:
        port = lab.free_port(socket.SOCK_DGRAM)
        pair = [lab.target(port=port, proto=Proto.dns), lab.target(port=port, proto=Proto.dns, together=True)]
        question = DnsRequest(domain="name.example", race=True)
        _, rows = await lab.load(*pair, requests=1, timeout_ms=PATIENT_MS, dns=question)
        assert {row.outcome for row in rows} == {Outcome.refused}

    lab.run(scene)


def test_streams_that_are_together_are_due_at_the_same_times() -> None:
    due = list(due_order(requests=[2, 2, 2], rate=10, duration_s=1, together=[False, True, False]))
    times: dict[int, list[int]] = {}
    for _, stream, planned_us in due:
        times.setdefault(stream, []).append(planned_us)
    assert times[0] == times[1]
    assert times[2] != times[0]
    assert [seq for seq, _, _ in due] == list(range(6))


@pytest.mark.parametrize(
    ("expected", "rcode", "outcome"),
    [
        (None, 3, Outcome.ok),
        (0, 0, Outcome.ok),
        (0, 3, Outcome.dns_error),
        (0, 2, Outcome.dns_error),
        (3, 3, Outcome.ok),
        (3, 0, Outcome.dns_error),
    ],
)
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_any_rcode_is_an_answer_unless_the_task_names_one(
    lab: Any, protocol: str, expected: int | None, rcode: int, outcome: Outcome
) -> None:
    async def scene() -> None:
        server = Server(lambda data, _: reply(data, rcode=rcode))

        async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            size = int.from_bytes(await reader.readexactly(2), "big")
            said = reply(await reader.readexactly(size), rcode=rcode)
            writer.write(len(said).to_bytes(2, "big") + said)
            await reader.read(1)

        question = DnsRequest(domain="name.example", protocol=protocol)
        async with server.open() as udp_port, lab.server(stream) as tcp_port:
            target = lab.target(port=udp_port if protocol == "udp" else tcp_port, proto=Proto.dns)
            _, (row,) = await lab.load(target, timeout_ms=PATIENT_MS, dns=question, rcode=expected)
        assert (row.outcome, row.status) == (outcome, rcode)
        assert row.error == ("" if rcode == 0 and outcome is Outcome.ok else dns.rcode.to_text(dns.rcode.Rcode(rcode)))
        assert row.lost == 0

    lab.run(scene)
