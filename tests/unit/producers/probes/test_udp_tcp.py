"""UDP and TCP probes against the agent's own reflector and echo server."""

import asyncio
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.probes import PROBES, udp_packet
from producers.receipts import Receipts
from producers.responder import Responder, serve
from topics.outcome import Outcome, Proto


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


def test_every_protocol_of_the_contract_but_icmp_has_a_probe() -> None:
    assert set(PROBES) == set(Proto) - {Proto.icmp}


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
        assert [(row.req_bytes, row.resp_bytes) for row in rows] == [(64, 64), (1400, 1400)]

    lab.run(scene)


def test_foreign_datagrams_are_not_answered(lab: Any) -> None:
    async def scene() -> None:
        responder, _, port = await _responder(lab)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", port))
            for data in (b"", b"x" * 64, b"KPU1" + b"\x02" + b"\0" * 60):
                sock.send(data)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(loop.sock_recv(sock, 100), 0.05)
        await responder.close()

    lab.run(scene)


def test_a_tcp_probe_is_the_handshake(lab: Any) -> None:
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


@given(
    number=st.integers(0, 0xFFFF),
    round_id=st.integers(0, (1 << 64) - 1),
    seq=st.integers(0, (1 << 32) - 1),
    name=st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=30),
    size=st.integers(0, 1500),
)
def test_a_packet_survives_the_wire(number: int, round_id: int, seq: int, name: str, size: int) -> None:
    size = udp_packet.packet_size(name=name, size=size)
    wire = udp_packet.request(number=number, round_id=round_id, seq=seq, name=name, size=size)
    assert len(wire) == size >= 64
    packet = udp_packet.parse(wire)
    assert packet is not None
    assert (packet.kind, packet.number, packet.round_id, packet.seq) == (udp_packet.REQUEST, number, round_id, seq)
    assert (packet.name, packet.digest) == (name, udp_packet.name_digest(name))
    answer = udp_packet.reply(to=packet, size=size, name="node-2", received=3)
    assert len(answer) == size
    back = udp_packet.parse(answer)
    assert back is not None
    assert (back.kind, back.number, back.seq, back.received) == (udp_packet.REPLY, number, seq, 3)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    packet = udp_packet.parse(data)
    assert packet is None or data.startswith(b"KPU1")
