"""UDP and ICMP between namespaces: which way a packet was lost, which size does not pass, what the network says."""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from kpatrol.lab.commands import run_command
from kpatrol.lab.leftovers import tear_down
from kpatrol.lab.netmode import detect_mode
from kpatrol.lab.netns import Network, build_network, run_in
from kpatrol.lab.netplan import NodeSpec
from kpatrol.lab.state import LabState
from tests.integration.two_ends import PORTS, Asked, asked, dropping, random_loss, round_of, serving, target
from topics.outcome import Outcome, Proto
from topics.probe_receipts import Receipts
from topics.task_rounds import FULL_SIZE, Mesh, RoundScheduled, Target

UDP = PORTS[Proto.udp]
# As long as a slow machine may need: what comes is never taken for lost.
PATIENT_MS = 2000
pytestmark = pytest.mark.paced


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    assert detect_mode({}).mode == "root", detect_mode({}).reason
    state = LabState.create(tmp_path / "base")
    yield build_network(lab=state, mode="root", specs=[NodeSpec(name=f"node-{i}") for i in (1, 2)])
    assert tear_down(state).failures == []


def datagrams(network: Network, proto: Proto, *, size: int = 0, family: int = 4) -> Target:
    """The agent on node-2, asked by datagrams of a size."""
    node = network.nodes["node-2"]
    address = (node.address6 or "") if family == 6 else node.address
    port = UDP if proto is Proto.udp else 0
    return target(
        network, "node-2", proto=proto, name=f"{proto.name}-{size}-{family}", size=size, port=port, address=address,
        family=family,
    )  # fmt: skip


def patient(*, rate: float, seconds: float, **mesh: Any) -> RoundScheduled:
    """A round in which nothing is late."""
    round_ = round_of(rate=rate, seconds=seconds, timeout_ms=PATIENT_MS)
    return msgspec.structs.replace(round_, mesh=Mesh(protos=(), **mesh))


def arrived(receipts: list[Receipts]) -> set[int]:
    """The requests that the reflector has in its receipts."""
    numbers: set[int] = set()
    for batch in receipts:
        for row in batch.rows.to_pylist():
            bits = np.unpackbits(np.frombuffer(row["bitmap"], dtype=np.uint8), bitorder="little")
            numbers |= set((np.nonzero(bits)[0] + row["first_seq"]).tolist())
    return numbers


def by_target(told: Asked) -> dict[str, Counter[tuple[str, str]]]:
    """Outcomes and errors of each target."""
    found: dict[str, Counter[tuple[str, str]]] = {}
    for row in told.rows():
        found.setdefault(row["target"], Counter())[(Outcome(row["outcome"]).name, row["error"])] += 1
    return found


@pytest.mark.parametrize(
    ("node", "side", "error"), [("node-2", "dport", "request_lost"), ("node-1", "sport", "reply_lost")]
)
def test_lost_datagrams_are_counted_exactly_and_by_direction(
    network: Network, tmp_path: Path, node: str, side: str, error: str
) -> None:
    count = 2000
    with serving(network, "node-2", tmp_path) as server:
        with dropping(network, node, random_loss(0.03, port=UDP, side=side)) as loss:
            told = asked(
                network, "node-1", tmp_path, round_=patient(rate=1000, seconds=2),
                targets=[(datagrams(network, Proto.udp), count)],
            )  # fmt: skip
            dropped = sum(loss.counts().values())
        receipts, _ = server.take()
    rows = told.rows()
    assert len(rows) == count
    lost = {row["seq"]: row["error"] for row in rows if row["outcome"] == Outcome.timeout}
    came = arrived(receipts)
    assert dropped > 0
    assert len(lost) == sum(row["lost"] for row in rows) == dropped
    forward = {row["seq"] for row in rows} - came
    assert len(forward) == (dropped if error == "request_lost" else 0)
    assert len(came & set(lost)) == (dropped if error == "reply_lost" else 0)
    # The asking side alone knows it too, of all but the last ones: no later reply has told of those.
    assert set(lost.values()) <= {error, "timeout"}
    assert all(seq > count - 20 for seq, said in lost.items() if said == "timeout")


def test_a_size_that_does_not_pass_is_named_where_no_one_says_so(network: Network, tmp_path: Path) -> None:
    """The way to node-2 takes 50 bytes less than both ends believe, and no ICMP error comes back."""
    families = [4, 6] if network.nodes["node-2"].address6 else [4]
    twins = [
        (datagrams(network, proto, size=size, family=family), 20)
        for proto in (Proto.udp, Proto.icmp)
        for size in (0, FULL_SIZE)
        for family in families
    ]
    bare = f"/run/netns/{network.plan.switch_name}"
    with serving(network, "node-2", tmp_path):
        healthy = asked(network, "node-1", tmp_path, round_=patient(rate=50, seconds=0.4), targets=twins)
        run_command(["nsenter", f"--net={bare}", "--", "ip", "link", "set", "data2", "mtu", "1450"])
        round_ = msgspec.structs.replace(patient(rate=50, seconds=0.4), timeout_ms=1000)
        shrunk = asked(network, "node-1", tmp_path, round_=round_, targets=twins)
    assert by_target(healthy) == {twin.name: Counter({("ok", ""): 20}) for twin, _ in twins}
    overheads = {f"-{family}": 28 if family == 4 else 48 for family in families}
    for name, seen in by_target(shrunk).items():
        full = str(FULL_SIZE) in name
        assert {outcome for outcome, _ in seen} == {"timeout" if full else "ok"}, name
    full_bytes = {row["target"]: row["req_bytes"] for row in healthy.rows() if str(FULL_SIZE) in row["target"]}
    assert full_bytes == {name: 1500 - overheads[name[-2:]] for name in full_bytes}
    assert len(full_bytes) == 2 * len(families)


def test_a_size_that_passes_one_way_only_says_which(network: Network, tmp_path: Path) -> None:
    round_ = msgspec.structs.replace(patient(rate=100, seconds=0.5), timeout_ms=1000)
    small, full = datagrams(network, Proto.udp), datagrams(network, Proto.udp, size=FULL_SIZE)
    with serving(network, "node-2", tmp_path), dropping(network, "node-1", "meta length > 1450"):
        told = asked(network, "node-1", tmp_path, round_=round_, targets=[(small, 50), (full, 50)])
    seen = by_target(told)
    assert seen[small.name] == Counter({("ok", ""): 50})
    # Not one reply of that size ever tells: without one the asking side claims nothing, the receipts do.
    assert seen[full.name] == Counter({("timeout", "timeout"): 50})


def test_what_the_network_refuses_is_told_of_that_very_request(network: Network, tmp_path: Path) -> None:
    """node-2's firewall refuses what is long, our own interface what is longer than it can take."""
    hook = "type filter hook input priority 0"
    rule = f"table inet f {{ chain c {{ {hook}; meta length > 1000 reject with icmpx admin-prohibited; }}\n}}\n"
    run_in(network.nodes["node-2"], ["nft", "-f", "-"], stdin=rule)
    # Errors are rationed by the kernel: one a second to each address, after a few.
    run_in(network.nodes["node-2"], ["sh", "-c", "echo 0 > /proc/sys/net/ipv4/icmp_ratelimit"])
    round_ = msgspec.structs.replace(patient(rate=20, seconds=0.5), timeout_ms=1000)
    targets = [
        (datagrams(network, proto, size=size), 10) for proto in (Proto.udp, Proto.icmp) for size in (200, 1200, 1473)
    ]
    with serving(network, "node-2", tmp_path):
        told = asked(network, "node-1", tmp_path, round_=round_, targets=targets)
    for name, seen in by_target(told).items():
        expected = {
            "200": ("ok", ""),
            "1200": ("unreachable", "prohibited"),
            "1473": ("unreachable", "message_too_long"),
        }
        assert seen == Counter({expected[name.split("-")[1]]: 10}), name
    too_long = [row for row in told.rows() if row["error"] == "message_too_long"]
    assert {(row["status"], row["sent"], row["lost"]) for row in too_long} == {(1500, 0, 0)}


def test_a_router_that_wants_less_is_heard(network: Network, tmp_path: Path) -> None:
    """node-2 routes to an address behind it over a way that takes 1400 bytes: it says so, and the row says how many."""
    script = """
ip link add far type veth peer name away
ip link set away up
ip link set far mtu 1400 up
ip addr add 10.77.0.1/24 dev far
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
"""
    run_in(network.nodes["node-2"], ["sh", "-es"], stdin=script)
    address = network.nodes["node-2"].address
    run_in(network.nodes["node-1"], ["ip", "route", "add", "10.77.0.0/24", "via", address])
    far = target(network, "node-2", proto=Proto.udp, address="10.77.0.9", size=1450, port=UDP, name="far")
    round_ = msgspec.structs.replace(patient(rate=20, seconds=0.5), timeout_ms=1000)
    told = asked(network, "node-1", tmp_path, round_=round_, targets=[(far, 10)])
    assert {(row["error"], row["status"], row["sent"]) for row in told.rows()} == {("message_too_long", 1400, 1)}


def test_ping_sockets_need_no_privilege_and_have_random_identifiers(network: Network, tmp_path: Path) -> None:
    script = (
        "import socket, sys; sys.path.insert(0, sys.argv[1]); from producers.probes import icmp\n"
        "print(*(icmp.ping_socket(socket.AF_INET, sys.argv[2]).getsockname()[1] for _ in range(8)))"
    )
    root = str(Path(__file__).parents[2])
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", script, root]
    said = run_in(network.nodes["node-1"], [*command, network.nodes["node-1"].address])
    idents = sorted(int(word) for word in said.split())
    assert len(set(idents)) == 8
    assert idents[-1] - idents[0] > 1000


def test_probes_bear_the_mark_both_ways(network: Network, tmp_path: Path) -> None:
    protos = ("udp", "icmp", "tcp")
    counters = "\n".join(f"  counter n_{proto} {{}}" for proto in protos)
    rules = "\n".join(f"    ip dscp 46 meta l4proto {proto} counter name n_{proto}" for proto in protos)
    hook = "type filter hook input priority 0;"
    for node in ("node-1", "node-2"):
        script = f"table inet m {{\n{counters}\n  chain c {{ {hook}\n{rules}\n  }}\n}}\n"
        run_in(network.nodes[node], ["nft", "-f", "-"], stdin=script)
    tcp = target(network, "node-2", proto=Proto.tcp)
    targets = [(datagrams(network, Proto.udp), 10), (datagrams(network, Proto.icmp), 10), (tcp, 10)]
    with serving(network, "node-2", tmp_path):
        told = asked(network, "node-1", tmp_path, round_=patient(rate=50, seconds=0.2, dscp=46), targets=targets)
    assert {row["outcome"] for row in told.rows()} == {Outcome.ok}
    there, back = (_packets(network, node) for node in ("node-2", "node-1"))
    assert (there["n_udp"], there["n_icmp"], back["n_udp"], back["n_icmp"]) == (10, 10, 10, 10)
    assert there["n_tcp"] >= 30


def _packets(network: Network, node: str) -> dict[str, int]:
    said = msgspec.json.decode(run_in(network.nodes[node], ["nft", "-j", "list", "counters", "table", "inet", "m"]))
    listed = [item["counter"] for item in said["nftables"] if "counter" in item]
    return {counter["name"]: int(counter["packets"]) for counter in listed}
