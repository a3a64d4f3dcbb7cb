"""A serving and an asking agent, each in a namespace of its own, and what both of them counted.

As a program: `two_ends.py serve …` answers until its input ends, `two_ends.py ask …` runs one share; both write what
the real agent would put into Kafka. As a module: what the tests start, and the losses they inject, counted by kind.
"""

import argparse
import asyncio
import json
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from kpatrol.lab.netns import Network, run_in
from kpatrol.lab.tls import Authority
from producers.batches import Batches, receipts_envelope
from producers.config import Identity, Serving
from producers.load.engine import run_load
from producers.load.ticker import now_us
from producers.receipts import Receipts
from producers.responder import serve
from producers.rows import Rows, SealedBatch
from producers.sizes import with_real_sizes
from topics import probe_receipts, probe_results
from topics.outcome import Layer, Proto
from topics.share import Stream
from topics.task_rounds import HttpRequest, MembersRef, RoundScheduled, Target

ROUND_ID = 0xAB
START_US = 1_790_000_000_000_000
PORTS = {Proto.http: 8080, Proto.tcp: 8081, Proto.udp: 8082, Proto.https: 8443}
ME = Path(__file__)


def retransmitted() -> int:
    """TcpRetransSegs of this network namespace."""
    names, values = [line.split() for line in Path("/proc/self/net/snmp").read_text().splitlines() if "Tcp:" in line]
    return int(values[names.index("RetransSegs")])


def keep(out: str, number: int, value: bytes) -> None:
    """One record of Kafka's, for the test to read."""
    Path(f"{out}.{number}").write_bytes(value)


def certified(name: str) -> ssl.SSLContext:
    """What the HTTPS server shows, by an authority that is forgotten at once."""
    papers = Authority(name="test").server_certificate(name=name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        cert, key = Path(folder, "cert.pem"), Path(folder, "key.pem")
        cert.write_text(papers.certificate_pem)
        key.write_text(papers.key_pem)
        context.load_cert_chain(cert, key)
    return context


async def answer(given: argparse.Namespace) -> None:
    """Serve; every line of input is a command: `take` writes what was received since and says what was sent again."""
    receipts, loop, number = Receipts(), asyncio.get_running_loop(), 0
    before = retransmitted()
    ports = {f"{proto.name}_port": port for proto, port in PORTS.items()}
    responder = await serve(
        agent=given.agent, incarnation=given.incarnation, address=given.address, tls=certified(given.agent),
        receipts=receipts, **ports,
    )  # fmt: skip
    print("ready", flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        rows = receipts.take()
        if rows is not None:
            envelope = receipts_envelope(
                rows=rows, identity=Identity(agent=given.agent, node=given.agent), incarnation=given.incarnation,
                batch_seq=number,
            )  # fmt: skip
            keep(given.out, number, envelope.value)
            number += 1
        print(json.dumps({"retrans": retransmitted() - before, "batches": number}), flush=True)
    await responder.close()


async def ask(given: argparse.Namespace) -> None:
    """Run one share and write its batches."""
    round_ = msgspec.json.decode(given.round, type=RoundScheduled)
    streams = msgspec.json.decode(given.streams, type=tuple[tuple[Target, int], ...])
    asked_for = tuple(Stream(target=target, requests=count) for target, count in streams)
    share = with_real_sizes(streams=asked_for, source_address="")
    trace_id = bytes(range(16))
    batches = Batches(
        round_=round_, streams=share, identity=Identity(agent=given.agent, node=given.agent),
        serving=Serving(ipv4=given.address), incarnation=1, trace_id=trace_id, version="t",
    )  # fmt: skip
    sealed: list[SealedBatch] = []
    rows = Rows(on_seal=sealed.append)
    before = retransmitted()
    account = await run_load(
        round_=round_, streams=share, agent=given.agent, incarnation=1, trace_id=trace_id, source_address="",
        start_monotonic_us=now_us() + 20_000, rows=rows, cancel=asyncio.Event(),
    )  # fmt: skip
    after = retransmitted()
    rows.seal()
    for number, batch in enumerate(sealed):
        keep(given.out, number, batches.envelope(batch=batch, batch_seq=number, shift_us=0).value)
    print(json.dumps({"retrans": after - before, "sent": account.sent, "batches": len(sealed)}))


def main() -> None:
    """One of the two."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["serve", "ask"])
    parser.add_argument("--agent", required=True)
    parser.add_argument("--address", default="")
    parser.add_argument("--incarnation", type=int, default=1)
    parser.add_argument("--round", default="")
    parser.add_argument("--streams", default="")
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    uvloop.run(answer(given) if given.part == "serve" else ask(given))


# --- what the tests use ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the asking side told: its batches, and what its namespace sent again meanwhile."""

    batches: list[probe_results.Batch]
    retrans: int

    def column(self, name: str) -> list[int]:
        """A column of all rows."""
        return [int(value) for b in self.batches for value in b.rows.column(name).to_pylist()]

    def rows(self) -> list[dict[str, Any]]:
        """All rows, with `target` and `error` as text."""
        return [
            row | {"target": b.head.targets[row["target"]].name, "error": b.head.errors[row["error"]]}
            for b in self.batches
            for row in b.rows.to_pylist()
        ]


@dataclass(slots=True, kw_only=True)
class Server:
    """An agent that answers on a node."""

    process: "subprocess.Popen[str]"
    out: Path
    taken: int = 0

    def take(self) -> tuple[list[probe_receipts.Receipts], int]:
        """What it received since the last time, and what its namespace has sent again since it began."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("take\n")
        self.process.stdin.flush()
        said = json.loads(self.process.stdout.readline())
        files = [Path(f"{self.out}.{n}") for n in range(self.taken, said["batches"])]
        self.taken = said["batches"]
        return [probe_receipts.decode(file.read_bytes()) for file in files], said["retrans"]


@contextmanager
def serving(network: Network, node: str, folder: Path, *, incarnation: int = 1, agent: str = "") -> Iterator[Server]:
    """An agent named like its node, unless `agent` says otherwise."""
    out = folder / f"receipts-{node}-{agent or node}-{incarnation}"
    command = [
        *network.enter(node), sys.executable, str(ME), "serve", "--agent", agent or node, "--incarnation",
        str(incarnation), "--out", str(out),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ME.parents[2])}
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Server(process=process, out=out)
    finally:
        process.kill()
        process.communicate()


def target(
    network: Network, node: str, *, proto: Proto = Proto.http, layer: Layer = Layer.pod, **changes: Any
) -> Target:
    """The agent on a node, or what `changes` say."""
    address = network.nodes[node].address
    port = PORTS.get(proto, 0)
    values: dict[str, Any] = {"name": f"{layer.name}-{node}", "dst": node, "address": address, "port": port}
    mesh = {"agent": node, "dst_node": node}
    return Target(proto=proto, layer=layer, **values | mesh | changes)


def round_of(*, rate: float, seconds: float, timeout_ms: int = 10_000, **http: Any) -> RoundScheduled:
    """A round of mesh requests; HTTP's options by name."""
    return RoundScheduled(
        round_id=ROUND_ID, number=1, task_uid="uid", task="netreach/t", kind="NetReach", start_us=START_US,
        deadline_us=START_US + 60_000_000, duration_s=seconds, rate=rate, timeout_ms=timeout_ms,
        members=MembersRef(group="default", epoch=1, digest="", count=2), planned=0,
        http=HttpRequest(**{"url_path": "/kpatrol"} | http),
    )  # fmt: skip


def asking(
    network: Network, node: str, folder: Path, *, round_: RoundScheduled, targets: Sequence[tuple[Target, int]]
) -> "subprocess.Popen[str]":
    """Start the asking side; `told` waits for it."""
    command = [
        *network.enter(node), sys.executable, str(ME), "ask", "--agent", node, "--address",
        network.nodes[node].address, "--round", msgspec.json.encode(round_).decode(), "--streams",
        msgspec.json.encode(targets).decode(), "--out", str(folder / f"rows-{node}"),
    ]  # fmt: skip
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ME.parents[2])}
    )


def told(process: "subprocess.Popen[str]", node: str, folder: Path, *, timeout_s: float = 60) -> Asked:
    """What an asking side has counted."""
    said, errors = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, errors
    values = json.loads(said)
    files = [folder / f"rows-{node}.{n}" for n in range(values["batches"])]
    return Asked(batches=[probe_results.decode(f.read_bytes()) for f in files], retrans=values["retrans"])


def asked(
    network: Network, node: str, folder: Path, *, round_: RoundScheduled, targets: Sequence[tuple[Target, int]]
) -> Asked:
    """Ask from a node; returns when all has been answered."""
    return told(asking(network, node, folder, round_=round_, targets=targets), node, folder)


# Of the packets that a rule picks: which kind each was. Data is what is longer than any bare acknowledgement.
KINDS = {
    "syn": "tcp flags & syn == syn",
    "data": "meta length > 120",
    "fin": "tcp flags & fin == fin",
    "ack": "meta l4proto tcp",
    "rest": "meta l4proto != tcp",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drops:
    """A loss in a node's namespace: what arrives over the data path, or (`hook` output) what the node itself sends."""

    network: Network
    node: str
    pick: str
    hook: str = "prerouting"

    def begin(self) -> None:
        """Drop from now on, counters at 0."""
        kinds = "\n".join(f"    {match} counter name {kind} drop" for kind, match in KINDS.items())
        side = "iifname" if self.hook == "prerouting" else "oifname"
        counters = "\n".join(f"  counter {kind} {{}}" for kind in KINDS)
        text = f"""
add table inet loss
delete table inet loss
table inet loss {{
{counters}
  chain dropped {{
{kinds}
  }}
  chain picked {{
    type filter hook {self.hook} priority -350; policy accept;
    {side} "data" {self.pick} jump dropped
  }}
}}
"""
        run_in(self.network.nodes[self.node], ["nft", "-f", "-"], stdin=text)

    def counts(self) -> dict[str, int]:
        """Packets dropped by kind."""
        said = run_in(self.network.nodes[self.node], ["nft", "-j", "list", "counters", "table", "inet", "loss"])
        listed = [item["counter"] for item in json.loads(said)["nftables"] if "counter" in item]
        return {counter["name"]: int(counter["packets"]) for counter in listed}

    def end(self) -> None:
        """Drop nothing more."""
        run_in(self.network.nodes[self.node], ["nft", "delete", "table", "inet", "loss"])


@contextmanager
def dropping(network: Network, node: str, pick: str, *, hook: str = "prerouting") -> Iterator[Drops]:
    """A loss for a while. `pick` is nft's: which packets, and how many of them."""
    drops = Drops(network=network, node=node, pick=pick, hook=hook)
    drops.begin()
    try:
        yield drops
    finally:
        drops.end()


def random_loss(share: float, *, port: int, side: str, bare: bool = True) -> str:
    """A pick: that share of the packets of a port (`side` is dport or sport); without `bare`, of those only that carry
    data or open a connection, so that every connection ends in peace."""
    match = "meta l4proto { tcp, udp }" if bare else "meta length > 120"
    return f"{match} th {side} {port} numgen random mod 100000 < {round(share * 100_000)}"


if __name__ == "__main__":
    main()
