"""An agent started anew within a round: its answers are `target_gone`, by every protocol that says who answers."""

import asyncio
import socket
from typing import Any

import pytest

from producers.probes.incarnation import Incarnation
from producers.receipts import Receipts
from producers.responder import Responder, serve
from topics.outcome import Outcome, Proto

PORT_NAMES = {Proto.http: "http_port", Proto.tcp: "tcp_port", Proto.udp: "udp_port"}


async def _started(proto: Proto, port: int, incarnation: int, agent: str = "node-2") -> Responder:
    ports = {"http_port": 0, "https_port": 0, "tcp_port": 0, "udp_port": 0} | {PORT_NAMES[proto]: port}
    return await serve(
        agent=agent, incarnation=incarnation, address="127.0.0.1", tls=None, receipts=Receipts(), **ports
    )


@pytest.mark.parametrize("proto", PORT_NAMES)
def test_an_agent_started_anew_is_a_target_that_is_gone(lab: Any, proto: Proto) -> None:
    async def scene() -> None:
        port = lab.free_port(socket.SOCK_DGRAM if proto is Proto.udp else socket.SOCK_STREAM)
        first = await _started(proto, port, 1)
        target = lab.target(port=port, proto=proto, agent="node-2")
        load = asyncio.ensure_future(lab.load(target, requests=16, rate=100, timeout_ms=200))
        await asyncio.sleep(0.08)
        await first.close()
        second = await _started(proto, port, 2)
        _, rows = await load
        await second.close()
        assert rows[0].outcome is Outcome.ok
        assert (rows[-1].outcome, rows[-1].error, rows[-1].peer) == (Outcome.target_gone, "agent_replaced", "node-2")
        assert rows[-1].lost == 0
        # Between the two nobody listens; what waits in a socket that is closed is gone.
        between = {Outcome.refused, Outcome.timeout if proto is Proto.udp else Outcome.reset}
        assert {row.outcome for row in rows} <= {Outcome.ok, Outcome.target_gone} | between

    lab.run(scene)


@pytest.mark.parametrize("proto", PORT_NAMES)
def test_another_agent_at_the_address_is_the_wrong_peer_and_no_loss(lab: Any, proto: Proto) -> None:
    async def scene() -> None:
        port = lab.free_port(socket.SOCK_DGRAM if proto is Proto.udp else socket.SOCK_STREAM)
        stranger = await _started(proto, port, 1, agent="node-9")
        target = lab.target(port=port, proto=proto, agent="node-2")
        _, rows = await lab.load(target, requests=4, timeout_ms=1000)
        await stranger.close()
        assert [(row.outcome, row.peer, row.lost) for row in rows] == [(Outcome.wrong_peer, "node-9", 0)] * 4

    lab.run(scene)


def test_the_first_that_says_so_is_the_one_asked() -> None:
    known = Incarnation()
    assert [known.replaced(n) for n in (0, 7, 7, 8, 7)] == [False, False, False, True, False]
