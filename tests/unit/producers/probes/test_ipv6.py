"""Every protocol over IPv6, and an agent that serves both families at once."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from producers.probes.http_message import authority
from producers.receipts import Receipts
from producers.responder import serve
from topics.outcome import Layer, Outcome, Proto
from topics.task_rounds import DnsRequest, Target

PORT_NAMES = {Proto.http: "http_port", Proto.tcp: "tcp_port", Proto.udp: "udp_port"}

pytestmark = pytest.mark.skipif(not Path("/proc/sys/net/ipv6").exists(), reason="this kernel was started without IPv6")


@contextlib.asynccontextmanager
async def agent(lab: Any, *addresses: str) -> AsyncIterator[dict[str, int]]:
    ports = {name: lab.free_port(socket.SOCK_DGRAM if name == "udp_port" else socket.SOCK_STREAM)
             for name in PORT_NAMES.values()}  # fmt: skip
    responder = await serve(
        agent="node-2", incarnation=1, address=addresses, https_port=0, tls=None, receipts=Receipts(), **ports
    )
    try:
        yield ports
    finally:
        await responder.close()


@pytest.mark.parametrize("proto", PORT_NAMES)
def test_an_agent_with_two_addresses_answers_on_both(lab: Any, proto: Proto) -> None:
    async def scene() -> None:
        async with agent(lab, "127.0.0.1", "::1") as ports:
            port = ports[PORT_NAMES[proto]]
            _, rows = await lab.load(
                lab.target(port=port, proto=proto, agent="node-2"),
                lab.target(port=port, proto=proto, agent="node-2", address="::1", family=6),
                requests=3,
                timeout_ms=1000,
            )
        assert [(row.outcome, row.peer, row.lost) for row in rows] == [(Outcome.ok, "node-2", 0)] * 6
        assert {row.target for row in rows} == {0, 1}
        assert all(row.src_port for row in rows)

    lab.run(scene)


@pytest.mark.parametrize("proto", PORT_NAMES)
def test_one_address_is_not_served_on_the_other_family(lab: Any, proto: Proto) -> None:
    async def scene() -> None:
        async with agent(lab, "127.0.0.1") as ports:
            target = lab.target(port=ports[PORT_NAMES[proto]], proto=proto, address="::1", family=6)
            _, (row,) = await lab.load(target, timeout_ms=500)
        assert row.outcome is Outcome.refused

    lab.run(scene)


def test_icmp_reaches_the_loopback_of_both_families(lab: Any) -> None:
    async def scene() -> None:
        _, rows = await lab.load(
            lab.target(port=0, proto=Proto.icmp),
            lab.target(port=0, proto=Proto.icmp, address="::1", family=6),
            requests=3,
            timeout_ms=1000,
        )
        assert [(row.outcome, row.sent, row.lost) for row in rows] == [(Outcome.ok, 1, 0)] * 6

    lab.run(scene)


def test_dns_is_asked_over_ipv6(lab: Any) -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
            sock.setblocking(False)

            def ready() -> None:
                query, source = sock.recvfrom(512)
                sock.sendto(query[:2] + b"\x81\x80" + query[4:], source)

            loop.add_reader(sock.fileno(), ready)
            target = lab.target(port=sock.getsockname()[1], proto=Proto.dns, address="::1", family=6)
            question = DnsRequest(domain="name.example", record_type="AAAA")
            _, rows = await lab.load(target, requests=3, timeout_ms=1000, dns=question)
            loop.remove_reader(sock.fileno())
        assert [(row.outcome, row.error) for row in rows] == [(Outcome.ok, "")] * 3

    lab.run(scene)


@pytest.mark.parametrize(
    ("address", "port", "host"),
    [("::1", 80, "[::1]"), ("::1", 8080, "[::1]:8080"), ("192.0.2.1", 80, "192.0.2.1"), ("n", 81, "n:81")],
)
def test_an_ipv6_literal_stands_in_brackets_in_the_host_header(address: str, port: int, host: str) -> None:
    target = Target(name="t", dst="t", proto=Proto.http, layer=Layer.url, address=address, port=port)
    assert authority(target) == host
