"""UDP and TCP probes against the agent's own reflector and echo server."""

import asyncio
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from producers.probes import PROBES, stamp
from producers.probes.stamp_session import ReflectorSession
from producers.receipts import Receipts
from producers.responder import Responder, serve
from topics.outcome import Outcome, Proto
from topics.task_rounds import Mesh


async def _responder(lab: Any, *, agent: str = "node-2") -> tuple[Responder, int, int]:
    tcp_port, udp_port = lab.free_port(), lab.free_port(socket.SOCK_DGRAM)
    responder = await serve(
        agent=agent,
        incarnation=1,
        address="127.0.0.1",
        http_port=0,
        https_port=0,
        tcp_port=tcp_port,
        udp_port=udp_port,
        tls=None,
        receipts=Receipts(),
    )
    return responder, tcp_port, udp_port


def connections_to(port: int) -> set[str]:
    """Local ports, in hex, of all connections to a port of this machine, in whatever state."""
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {line[1].partition(":")[2] for line in table if line[2].endswith(f":{port:04X}")}


def test_every_protocol_of_the_contract_has_a_probe() -> None:
    assert set(PROBES) == set(Proto)


@pytest.mark.parametrize("agent", ["node-2", "a-very-long-agent-name-" + "x" * 200])
def test_the_reflector_says_who_it_is(lab: Any, agent: str) -> None:
    async def scene() -> None:
        responder, _, port = await _responder(lab, agent=agent)
        _, rows = await lab.load(lab.target(port=port, proto=Proto.udp, agent=agent), requests=5)
        await responder.close()
        assert [(row.outcome, row.peer, row.sent, row.lost) for row in rows] == [(Outcome.ok, agent, 1, 0)] * 5

    lab.run(scene)


def test_another_reflector_is_the_wrong_peer(lab: Any) -> None:
    async def scene() -> None:
        responder, _, port = await _responder(lab)
        _, (row,) = await lab.load(lab.target(port=port, proto=Proto.udp, agent="node-3"))
        await responder.close()
        assert (row.outcome, row.peer) == (Outcome.wrong_peer, "node-2")

    lab.run(scene)


def test_a_datagram_has_the_size_asked_for(lab: Any) -> None:
    async def scene() -> None:
        responder, _, port = await _responder(lab)
        _, rows = await lab.load(
            lab.target(port=port, proto=Proto.udp), lab.target(port=port, proto=Proto.udp, size=1400)
        )
        await responder.close()
        assert [(row.req_bytes, row.resp_bytes) for row in rows] == [(104, 104), (1400, 1400)]

    lab.run(scene)


def test_foreign_datagrams_are_not_answered(lab: Any) -> None:
    async def scene() -> None:
        responder, _, port = await _responder(lab)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", port))
            ours = stamp.RequestForm(ssid=1, round_id=1, target=0, agent="node-1", size=0)
            question = ours.packet(number=0, seq=0, stamp=0)
            seen, asked = stamp.Seen(0, 0, 1, 0), stamp.parse_request(question)
            assert asked is not None
            answer = stamp.reply(
                to=asked, size=104, agent="node-2", incarnation=1, seen=seen, received=0, sent=0, ttl=1
            )
            for data in (b"", b"x" * 64, bytes(44), answer, question[:-1]):
                sock.send(data)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(loop.sock_recv(sock, 100), 0.05)
        await responder.close()

    lab.run(scene)


def test_a_tcp_probe_of_anybody_is_the_handshake(lab: Any) -> None:
    async def scene() -> None:
        responder, port, _ = await _responder(lab)
        _, rows = await lab.load(
            lab.target(port=port, proto=Proto.tcp), lab.target(port=lab.free_port(), proto=Proto.tcp), requests=3
        )
        await responder.close()
        met = [row for row in rows if row.target == 0]
        assert {row.outcome for row in met} == {Outcome.ok}
        assert all(0 < row.connect_us <= row.dur_us and (row.sent, row.lost) == (1, 0) for row in met)
        assert {row.outcome for row in rows if row.target == 1} == {Outcome.refused}

    lab.run(scene)


def test_a_tcp_probe_of_an_agent_hears_who_answers(lab: Any) -> None:
    async def scene() -> None:
        responder, port, _ = await _responder(lab)
        _, rows = await lab.load(
            lab.target(port=port, proto=Proto.tcp, agent="node-2"),
            lab.target(port=port, proto=Proto.tcp, agent="node-3"),
            requests=4,
            timeout_ms=2000,
        )
        await responder.close()
        for target, outcome in ((0, Outcome.ok), (1, Outcome.wrong_peer)):
            met = [row for row in rows if row.target == target]
            assert [(row.outcome, row.peer, row.sent, row.lost) for row in met] == [(outcome, "node-2", 2, 0)] * 4
            assert all(0 < row.connect_us < row.dur_us for row in met)
            assert len({row.src_port for row in met}) == 4

    lab.run(scene)


def test_a_tcp_probe_of_an_agent_leaves_no_port_waiting(lab: Any) -> None:
    async def scene() -> None:
        responder, port, _ = await _responder(lab)
        _, rows = await lab.load(lab.target(port=port, proto=Proto.tcp, agent="node-2"), requests=5, timeout_ms=2000)
        ports = {f"{row.src_port:04X}" for row in rows}
        await responder.close()
        assert len(ports) == 5
        assert connections_to(port) & ports == set()

    lab.run(scene)


@pytest.mark.parametrize(
    ("said", "error"),
    [(b"220 mail\r\n", "no_greeting"), (b"x" * 400, "no_greeting"), (b"kpatrol-ag", "truncated_greeting")],
)
def test_somebody_else_at_the_port_of_an_agent_is_a_bad_reply(lab: Any, said: bytes, error: str) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(said)
        await writer.drain()

    async def scene() -> None:
        async with lab.server(script) as port:
            _, (row,) = await lab.load(lab.target(port=port, proto=Proto.tcp, agent="node-2"))
        assert (row.outcome, row.error) == (Outcome.bad_reply, error)

    lab.run(scene)


@pytest.mark.parametrize("ports", [1, 3])
def test_a_udp_stream_takes_its_ports_in_turn(lab: Any, ports: int) -> None:
    async def scene() -> None:
        responder, _, port = await _responder(lab)
        mesh = Mesh(source_ports=ports)
        _, rows = await lab.load(
            lab.target(port=port, proto=Proto.udp, agent="node-2"), requests=9, mesh=mesh, timeout_ms=2000
        )
        await responder.close()
        assert sorted(Counter(row.src_port for row in rows).values()) == [9 // ports] * ports

    lab.run(scene)


def test_a_reply_tells_of_the_way(lab: Any) -> None:
    async def scene() -> None:
        responder, _, port = await _responder(lab)
        _, rows = await lab.load(lab.target(port=port, proto=Proto.udp, agent="node-2"), requests=5, timeout_ms=2000)
        await responder.close()
        assert all(0 < row.there_us <= row.min_rtt_us <= row.dur_us for row in rows)
        assert [(row.segs_out, row.segs_in, row.status) for row in rows] == [(1, 1, 0)] * 5

    lab.run(scene)


class Unreliable(asyncio.DatagramProtocol):
    """A reflector between whose ears requests and replies get lost, or doubled, by their number."""

    def __init__(self, *, no_request: set[int], no_reply: set[int], twice: set[int]) -> None:
        self._no_request, self._no_reply, self._twice = no_request, no_reply, twice
        self._session = ReflectorSession()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, source: Any) -> None:
        asked = stamp.parse_request(data)
        assert asked is not None
        if asked.number in self._no_request:
            return
        seen, now = self._session.came(asked.number, 1), stamp.ntp(time.time_ns() // 1000)
        back = stamp.reply(
            to=asked, size=len(data), agent="node-2", incarnation=1, seen=seen, received=now, sent=now, ttl=64
        )
        for _ in range(0 if asked.number in self._no_reply else 2 if asked.number in self._twice else 1):
            self._transport.sendto(back, source)


def test_a_lost_datagram_says_on_which_way(lab: Any) -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: Unreliable(no_request={2, 9}, no_reply={4}, twice={5}), ("127.0.0.1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        mesh = Mesh(source_ports=1)
        _, rows = await lab.load(
            lab.target(port=port, proto=Proto.udp, agent="node-2"), requests=10, mesh=mesh, timeout_ms=80
        )
        transport.close()
        await asyncio.sleep(0)
        lost = {row.seq: row.error for row in rows if row.outcome is Outcome.timeout}
        # Nothing came after the last one that could tell of it.
        assert lost == {2: "request_lost", 4: "reply_lost", 9: "timeout"}
        assert all(row.lost == (row.seq in lost) for row in rows)
        # The copy of reply 5 is counted with the next row of the port.
        assert {row.seq: row.segs_in for row in rows if row.segs_in != 1} == {6: 2, 2: 0, 4: 0, 9: 0}

    lab.run(scene)


def test_the_echo_server_sends_back_what_comes(lab: Any) -> None:
    async def scene() -> None:
        responder, port, _ = await _responder(lab)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        await writer.wait_closed()
        await responder.close()

    lab.run(scene)
