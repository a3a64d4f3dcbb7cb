"""Hop traces over two real routers: every hop is named, and where the way ends. Takes about 15 s."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from kpatrol.lab.commands import run_command
from kpatrol.lab.leftovers import tear_down
from kpatrol.lab.state import LabState
from topics.round_progress import HopTrace

TARGETS = {4: "10.3.0.2", 6: "fd00:3::2"}
ROUTERS = {4: ["10.1.0.1", "10.2.0.2"], 6: ["fd00:1::1", "fd00:2::2"]}
PORT, LIMIT = 8862, 12
REFLECTOR = f"""
import asyncio, sys
from producers.receipts import Receipts
from producers.responder.udp import Reflector, Sessions

async def main():
    receipts = Receipts()
    for address in {sorted(TARGETS.values())}:
        Reflector(agent="far", incarnation=1, address=address, port={PORT}, receipts=receipts, sessions=Sessions())
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    print("receipts", receipts.take(), flush=True)

asyncio.run(main())
"""
TRACE = f"""
import msgspec, sys
from producers.probes.hops import End, trace

ends = [End(agent="far", node="node-far", address=a, port={PORT}) for a in {[TARGETS[4], TARGETS[6]]}]
sys.stdout.buffer.write(msgspec.json.encode(trace(ends, agent="near", source_address="", limit={LIMIT})))
"""


@dataclass(frozen=True)
class Way:
    """Four namespaces in a row: an agent, two routers, an agent."""

    near: str
    first: str
    second: str
    far: str

    def run(self, name: str, *command: str, stdin: str = "") -> str:
        return run_command(["nsenter", f"--net=/run/netns/{name}", "--", *command], stdin=stdin)

    def traced(self) -> dict[int, HopTrace]:
        """By address family."""
        said = self.run(self.near, sys.executable, "-c", TRACE)
        by_four, by_six = msgspec.json.decode(said, type=tuple[HopTrace, HopTrace])
        return {4: by_four, 6: by_six}

    def wire(self) -> None:
        """Network 1 lies before the first router, 2 between the routers, 3 behind."""
        for left, right in pairwise((self.near, self.first, self.second, self.far)):
            run_command(["ip", "link", "add", "right", "netns", left, "type", "veth", "peer", "left", "netns", right])
        self.set_up(self.near, right=(1, 2), gateway=(1, 1))
        self.set_up(self.first, left=(1, 1), right=(2, 1), gateway=(2, 2))
        self.set_up(self.second, left=(2, 2), right=(3, 1), gateway=(2, 1))
        self.set_up(self.far, left=(3, 2), gateway=(3, 1))

    def set_up(self, name: str, *, gateway: tuple[int, int], **links: tuple[int, int]) -> None:
        """Addresses (network, host) by link, the route to all else; it forwards, whether anything comes or not."""
        script = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding\n"
        for link, (network, host) in links.items():
            script += f"ip addr add 10.{network}.0.{host}/24 dev {link}\n"
            script += f"ip addr add fd00:{network}::{host}/64 dev {link} nodad\nip link set {link} up\n"
        network, host = gateway
        script += f"ip route add default via 10.{network}.0.{host}\n"
        script += f"ip -6 route add default via fd00:{network}::{host}\n"
        self.run(name, "sh", "-es", stdin=script)

    @contextmanager
    def answering(self) -> Iterator["subprocess.Popen[str]"]:
        enter = ["nsenter", f"--net=/run/netns/{self.far}", "--"]
        with subprocess.Popen(
            [*enter, sys.executable, "-c", REFLECTOR], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as reflector:
            try:
                assert reflector.stdout is not None
                assert reflector.stdout.readline() == "ready\n"
                yield reflector
            finally:
                reflector.kill()


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    lab = LabState.create(tmp_path / "base")
    names = [f"kp-{lab.id}-{part}" for part in ("near", "r1", "r2", "far")]
    try:
        for name in names:
            lab.register_namespace(name)
            run_command(["ip", "netns", "add", name])
            run_command(["ip", "-n", name, "link", "set", "lo", "up"])
        made = Way(*names)
        made.wire()
        yield made
    finally:
        removed = tear_down(lab)
    assert removed.failures == []


def addresses(trace: HopTrace) -> list[str]:
    return [hop.address for hop in trace.hops]


def test_every_hop_is_named_and_where_the_way_ends(way: Way) -> None:
    with way.answering() as reflector:
        for family, trace in way.traced().items():
            assert trace.reached, trace
            assert addresses(trace) == [*ROUTERS[family], TARGETS[family]]
            assert all(1 <= hop.answered <= hop.sent for hop in trace.hops), trace

        # Behind the second router nothing goes on, and nobody says so.
        way.run(way.second, "nft", "-f", "-", stdin="""
table inet fault {
  chain through { type filter hook forward priority 0; iifname "left" udp dport 8862 drop
  }
}
""")  # fmt: skip
        for family, trace in way.traced().items():
            assert not trace.reached
            assert addresses(trace) == ROUTERS[family]
            assert (trace.asked, trace.error) == (LIMIT, "")

        # The first router lets nothing through, and says so.
        way.run(way.first, "nft", "-f", "-", stdin="""
table inet fault {
  chain through { type filter hook forward priority 0; udp dport 8862 reject with icmpx admin-prohibited
  }
}
""")  # fmt: skip
        for family, trace in way.traced().items():
            assert not trace.reached
            assert set(addresses(trace)) == {ROUTERS[family][0]}
            assert trace.error == "prohibited"

        # What belongs to no round is in no receipt.
        said, _ = reflector.communicate("take\n", timeout=30)
        assert said == "receipts None\n"
