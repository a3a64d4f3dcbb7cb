"""Two DNS queries of one moment from one port, through a real kernel that translates addresses (about 5 s).

The two packets reach the translating node on two processors at once, as on a network card with several queues (the
asking side runs on the second's, which is free again for it once the first packet is handed over): each finds no
connection yet and gets a backend of its own, and the second to be recorded finds its place taken. Linux since 5.7 keeps
both (`clashres`), before it dropped the second (`insert_failed`). Either way what the agent says must be what the
kernel counted. tests/unit/producers/probes/test_dns_attempts.py plays the drop itself.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from kpatrol.lab.commands import run_command
from kpatrol.lab.leftovers import tear_down
from kpatrol.lab.state import LabState
from producers.proc_texts import conntrack
from tests.integration.two_ends import ME, round_of
from topics import probe_results
from topics.outcome import Layer, Outcome, Proto
from topics.task_rounds import DnsRequest, Target

pytestmark = pytest.mark.paced
PAIRS = 150
ATTEMPTS = 5
SERVICE = "10.9.9.9"
BACKENDS = ("10.2.0.2", "10.2.0.3")
# Answers every query from the address that it came to.
BACKEND = """
import selectors, socket, sys
chosen = selectors.DefaultSelector()
for address in sys.argv[1:]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, 53))
    chosen.register(sock, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in chosen.select():
        query, source = key.fileobj.recvfrom(512)
        key.fileobj.sendto(query[:2] + b"\\x81\\x80" + query[4:], source)
"""
# From one port, to two service addresses that stand for one backend, at once, many times; how many were answered.
TWO_SERVICES = """
import select, socket, sys, time
socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(int(sys.argv[1]))]
for sock in socks:
    sock.bind(("10.1.0.2", 0))
    for address in ("10.9.9.7", "10.9.9.8"):
        sock.sendto(bytes([0, 1, 1, 0]) + bytes(8), (address, 53))
    time.sleep(0.002)
answered = 0
while ready := select.select(socks, [], [], 2)[0]:
    for sock in ready:
        sock.recv(512)
        answered += 1
print(answered)
"""


@dataclass(frozen=True)
class Path3:
    """Namespaces in a row: who asks, who translates, who answers."""

    asking: str
    translating: str
    answering: str

    def run(self, namespace: str, *command: str, stdin: str = "") -> str:
        """Run a command in a namespace to its end; what it says."""
        return run_command(["nsenter", f"--net=/run/netns/{namespace}", "--", *command], stdin=stdin)

    def ask(self, *command: str) -> str:
        """Run a command on the asking side, on the processor that takes every second query (see `wire`)."""
        return self.run(self.asking, "taskset", "--cpu-list", "0", *command)

    def tracked(self) -> dict[str, int]:
        """The connection tracking's counters of the node that translates."""
        return conntrack(self.run(self.translating, "cat", "/proc/net/stat/nf_conntrack"))


def wire(path: Path3) -> None:
    """Two links from the asking side, whose packets two processors take; one link to the answering side."""
    asking, middle, end = path.asking, path.translating, path.answering
    links = f"""
link add ask1 netns {asking} type veth peer name in1 netns {middle}
link add ask2 netns {asking} type veth peer name in2 netns {middle}
link add out netns {middle} type veth peer name serve netns {end}
"""
    run_command(["ip", "-batch", "-"], stdin=links)
    path.run(asking, "sh", "-es", stdin="""
ip addr add 10.1.0.2/24 dev ask1; ip link set ask1 up; ip link set ask2 up; ip route add default via 10.1.0.1
""")  # fmt: skip
    path.run(end, "sh", "-es", stdin="""
for address in 10.2.0.2 10.2.0.3; do ip addr add $address/24 dev serve; done
ip link set serve up; ip route add default via 10.2.0.1
""")  # fmt: skip
    # Both ways in have one hardware address; what comes by the second is not looked for on the first.
    path.run(middle, "sh", "-es", stdin="""
ip addr add 10.1.0.1/24 dev in1; ip addr add 10.2.0.1/24 dev out
ip link set in2 address $(ip -br link show in1 | while read name state mac rest; do echo $mac; done)
for link in in1 in2 out; do ip link set $link up; done
echo 1 > /proc/sys/net/ipv4/ip_forward
for each in all in1 in2; do echo 0 > /proc/sys/net/ipv4/conf/$each/rp_filter; done
""")  # fmt: skip
    # `ip netns exec` shows /sys of that namespace.
    for number in (1, 2):
        file = f"/sys/class/net/in{number}/queues/rx-0/rps_cpus"
        run_command(["ip", "netns", "exec", middle, "sh", "-c", f"echo {number} > {file}"])
    # The first query of two takes the second link, to the second processor.
    path.run(asking, "nft", "-f", "-", stdin="""
table netdev spread {
  chain out {
    type filter hook egress device ask1 priority 0;
    udp dport 53 numgen inc mod 2 0 fwd to ask2
  }
}
""")  # fmt: skip
    # Rules that match nothing take a fraction of a millisecond, between the choice of a port and the recording of the
    # connection: the second packet of a pair comes while the first is on its way through them.
    idle = "\n".join(f"    udp dport 1 udp sport {port} counter" for port in range(1, 20000))
    path.run(middle, "nft", "-f", "-", stdin=f"""
table ip services {{
  chain pick {{
    type nat hook prerouting priority -100;
    udp dport 53 ip daddr {SERVICE} dnat to numgen inc mod 2 map {{ 0 : {BACKENDS[0]}, 1 : {BACKENDS[1]} }}
    udp dport 53 ip daddr {{ 10.9.9.7, 10.9.9.8 }} dnat to {BACKENDS[0]}
  }}
  chain slow {{
    type filter hook postrouting priority 200;
{idle}
  }}
}}
""")  # fmt: skip


@contextmanager
def answering(path: Path3) -> Iterator[None]:
    """Name servers at both backends."""
    enter = ["nsenter", f"--net=/run/netns/{path.answering}", "--"]
    with subprocess.Popen([*enter, sys.executable, "-c", BACKEND, *BACKENDS], stdout=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == "ready\n"
            yield
        finally:
            run.kill()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path3]:
    lab = LabState.create(tmp_path / "base")
    names = [f"kp-{lab.id}-{part}" for part in ("ask", "nat", "dns")]
    try:
        for name in names:
            lab.register_namespace(name)
            run_command(["ip", "netns", "add", name])
            run_command(["ip", "-n", name, "link", "set", "lo", "up"])
        made = Path3(*names)
        wire(made)
        # Who is where is known before: what waits for that is dropped when it is much.
        made.run(made.asking, "ping", "-c", "1", "-q", BACKENDS[0])
        made.run(made.asking, "ping", "-c", "1", "-q", BACKENDS[1])
        with answering(made):
            yield made
    finally:
        removed = tear_down(lab)
    assert removed.failures == []


def test_what_the_agent_says_of_a_pair_is_what_the_translating_kernel_did(path: Path3, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = []
    # Where other work has the processors, both packets seldom meet.
    for _ in range(ATTEMPTS):
        asked = raced(path, tmp_path)
        assert len(asked) == 2 * PAIRS
        pairs = Counter((row["planned_us"], row["src_port"]) for row in asked)
        assert set(pairs.values()) == {2}, "a pair leaves from one port"
        rows += asked
        counted = path.tracked()
        if counted["clashres"] + counted["insert_failed"] > 5:
            break
    assert counted["clashres"] + counted["insert_failed"] > 0, f"no race: {counted}"
    lost = [row for row in rows if row["lost"]]
    assert len(lost) == counted["insert_failed"], counted
    assert {row["outcome"] for row in lost} <= {Outcome.timeout}
    assert all(row["outcome"] == Outcome.ok for row in rows if not row["lost"])
    print(f"{PAIRS} pairs: {counted['clashres']} clashes resolved, {counted['insert_failed']} packets dropped")


def test_the_kernel_drops_what_it_cannot_tell_apart_and_its_counter_says_so(path: Path3) -> None:
    """Two service addresses, one backend: both replies would look the same, so no kernel can keep both."""
    for _ in range(ATTEMPTS):
        before = path.tracked()
        answered = int(path.ask(sys.executable, "-c", TWO_SERVICES, str(PAIRS)))
        after = path.tracked()
        dropped = after["insert_failed"] - before["insert_failed"]
        assert answered + dropped == 2 * PAIRS, (answered, dropped)
        if dropped:
            break
    assert dropped > 0, "no race"
    print(f"{2 * PAIRS} queries: {answered} answered, {dropped} dropped")


def raced(path: Path3, folder: Path) -> list[dict[str, object]]:
    """The rows of an agent that asks pairs of A and AAAA."""
    question = DnsRequest(domain="name.example", race=True)
    round_ = msgspec.structs.replace(round_of(rate=75, seconds=PAIRS / 75, timeout_ms=2000), dns=question)
    pair = [
        (Target(name=kind, dst=SERVICE, proto=Proto.dns, layer=Layer.dns, address=SERVICE, port=53, record_type=kind,
                together=kind == "AAAA"), PAIRS)
        for kind in ("A", "AAAA")
    ]  # fmt: skip
    said = path.ask(
        "env", f"PYTHONPATH={ME.parents[2]}", sys.executable, str(ME), "ask", "--agent", "node-1",
        "--address", "10.1.0.2", "--round", msgspec.json.encode(round_).decode(),
        "--streams", msgspec.json.encode(pair).decode(), "--out", str(folder / "rows")
    )  # fmt: skip
    batches = [probe_results.decode((folder / f"rows.{n}").read_bytes()) for n in range(json.loads(said)["batches"])]
    return [row for batch in batches for row in batch.rows.to_pylist()]
