"""Every protocol over IPv6 between two namespaces, and a loss there that both ends find (about 10 s)."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kpatrol.lab.leftovers import tear_down
from kpatrol.lab.netmode import detect_mode
from kpatrol.lab.netns import Network, build_network
from kpatrol.lab.netplan import NodeSpec
from kpatrol.lab.state import LabState
from tests.integration.test_both_ends import close_to, ways
from tests.integration.two_ends import Asked, asked, dropping, random_loss, round_of, serving, target
from topics.outcome import Layer, Outcome, Proto
from topics.task_rounds import DnsRequest, Mesh, RoundScheduled, Target

pytestmark = [
    pytest.mark.paced,
    pytest.mark.skipif(not Path("/proc/sys/net/ipv6").exists(), reason="this kernel was started without IPv6"),
]
AGENTS_OWN = (Proto.http, Proto.https, Proto.tcp, Proto.udp, Proto.icmp)
NAMESERVER = """
import socket, sys
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    query, source = sock.recvfrom(512)
    sock.sendto(query[:2] + b"\\x81\\x80" + query[4:], source)
"""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    assert detect_mode({}).mode == "root", detect_mode({}).reason
    state = LabState.create(tmp_path / "base")
    yield build_network(lab=state, mode="root", specs=[NodeSpec(name=f"node-{i}") for i in (1, 2)], ipv6=True)
    assert tear_down(state).failures == []


def six(network: Network, proto: Proto) -> Target:
    """The agent on node-2 by its IPv6 address."""
    address = network.nodes["node-2"].address6
    assert address is not None
    return target(network, "node-2", proto=proto, name=proto.name, address=address, family=6)


def by_six(*, rate: float, seconds: float) -> RoundScheduled:
    round_ = round_of(rate=rate, seconds=seconds, timeout_ms=3000)
    return msgspec.structs.replace(
        round_, mesh=Mesh(protos=()), dns=DnsRequest(domain="name.example", record_type="AAAA")
    )


def outcomes(told: Asked) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for row in told.rows():
        found.setdefault(row["target"], Counter())[Outcome(row["outcome"]).name] += 1
    return found


def test_every_protocol_reaches_its_peer_over_ipv6(network: Network, tmp_path: Path) -> None:
    address = str(network.nodes["node-2"].address6)
    command = [*network.enter("node-2"), sys.executable, "-c", NAMESERVER, address]
    dns = Target(name="dns", dst="dns", proto=Proto.dns, layer=Layer.dns, address=address, port=53, family=6)
    targets = [*((six(network, proto), 20) for proto in AGENTS_OWN), (dns, 20)]
    with (
        serving(network, "node-2", tmp_path) as server,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as nameserver,
    ):
        assert nameserver.stdout is not None
        assert nameserver.stdout.readline() == "ready\n"
        told = asked(network, "node-1", tmp_path, round_=by_six(rate=20, seconds=1), targets=targets)
        receipts, _ = server.take()
        nameserver.kill()
    assert outcomes(told) == {asked_for.name: Counter(ok=20) for asked_for, _ in targets}
    # TCP is told to within two packets.
    assert sum(row["lost"] for row in told.rows()) <= 2
    received = Counter[str]()
    for batch in receipts:
        for row in batch.rows.to_pylist():
            received[Proto(row["proto"]).name] += row["received"]
    assert received == {proto.name: 20 for proto in AGENTS_OWN if proto is not Proto.icmp}


@pytest.mark.parametrize("proto", [Proto.http, Proto.udp])
def test_a_loss_over_ipv6_has_its_direction_and_its_size(network: Network, tmp_path: Path, proto: Proto) -> None:
    to = six(network, proto)
    loss = "meta nfproto ipv6 " + random_loss(0.03, port=to.port, side="dport")
    with serving(network, "node-2", tmp_path) as server, dropping(network, "node-2", loss) as drops:
        told = asked(network, "node-1", tmp_path, round_=by_six(rate=800, seconds=1.5), targets=[(to, 1200)])
        receipts, _ = server.take()
        dropped = drops.counts()
    both = ways(told, receipts)
    there, back = int(both.forward_lost.sum()), int(both.reverse_lost.sum())
    if proto is Proto.udp:
        assert (there, back) == (sum(dropped.values()), 0)
    else:
        assert close_to(there, dropped["data"] + dropped["syn"]), (there, dropped)
        assert back <= max(2, 0.1 * there)
    assert there > 0
