"""Agents without Kafka, each in a namespace of its own, and the way to them: what a cluster is to `kpatrol check`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kpatrol.check.gather import Broken
from kpatrol.check.mesh import GROUP, Site
from kpatrol.lab.environments import AGENT_PORTS
from kpatrol.lab.faults import parse_fault
from kpatrol.lab.inject import FaultCount, Injection
from kpatrol.lab.leftovers import tear_down
from kpatrol.lab.netns import Network, build_network
from kpatrol.lab.netplan import NodeSpec
from kpatrol.lab.state import LabState
from topics.mesh_members import Member

PORTS = AGENT_PORTS["root"]


@dataclass(kw_only=True)
class Stage:
    """The agents that run, by node."""

    network: Network
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]]

    def member(self, node: str, slot: int) -> Member:
        address = self.network.nodes[node].address
        return Member(
            slot=slot, agent=node, node=node, ipv4=address, node_ipv4=address, http_port=PORTS["HTTP"],
            tcp_port=PORTS["TCP"], udp_port=PORTS["UDP"],
        )  # fmt: skip

    def site(self, *nodes: str, name: str = "") -> Site:
        """The agents of those nodes (default: all) as one cluster."""
        chosen = nodes or tuple(self.network.nodes)
        return Site(name=name, members=tuple(self.member(node, slot) for slot, node in enumerate(chosen)))

    def environment(self, node: str) -> dict[str, str]:
        address = self.network.nodes[node].address
        ports = {f"KPATROL_{name}_PORT": str(port) for name, port in PORTS.items()}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KPATROL_")}
        return inherited | ports | {
            "KPATROL_AGENT": node, "KPATROL_NODE": node, "KPATROL_IPV4": address, "KPATROL_NODE_IPV4": address,
            "KPATROL_SPOOL_DIR": str(self.spool(node)), "KPATROL_GROUP": GROUP,
        }  # fmt: skip

    def spool(self, node: str) -> Path:
        return self.folder / node

    @asynccontextmanager
    async def attach(self, member: Member) -> AsyncGenerator[Relay, None]:
        """As `kubectl exec` would: a second process beside the agent, joined by pipes."""
        process = await asyncio.create_subprocess_exec(
            *self.network.enter(member.node), sys.executable, "-m", "producers.attached", "relay",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=16 << 20,
            env=os.environ | {"KPATROL_SPOOL_DIR": str(self.spool(member.node))},
        )  # fmt: skip
        try:
            yield Relay(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    @contextmanager
    def fault(self, text: str) -> Iterator[Injection]:
        injection = Injection(self.network, [parse_fault(text, nodes=list(self.network.nodes))])
        injection.begin(0)
        try:
            yield injection
        finally:
            injection.end(0)


def dropped(injection: Injection) -> int:
    counts: Sequence[FaultCount] = injection.counters()
    return sum(count.dropped for count in counts)


class Relay:
    """A stream of :mod:`kpatrol.check.gather` over a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise Broken(f"the relay ended: {error}") from error

    async def lines(self) -> AsyncIterator[bytes]:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            yield line


@contextmanager
def staged(folder: Path, *, nodes: int) -> Iterator[Stage]:
    """So many nodes with an agent each; nothing is left of them."""
    state = LabState.create(folder / "base")
    stage: Stage | None = None
    try:
        specs = [NodeSpec(name=f"node-{number}") for number in range(1, nodes + 1)]
        stage = Stage(network=build_network(lab=state, mode="root", specs=specs), folder=folder, processes={})
        for node in stage.network.nodes:
            start(stage, node)
        yield stage
    finally:
        for process in stage.processes.values() if stage is not None else ():
            process.kill()
            process.wait()
        assert tear_down(state).failures == []


def start(stage: Stage, node: str) -> None:
    """Start the agent of a node, or start it again; it waits on its socket when that is there."""
    stage.spool(node).mkdir(exist_ok=True)
    (stage.spool(node) / "attach.sock").unlink(missing_ok=True)
    log = (stage.folder / f"{node}.log").open("ab")
    stage.processes[node] = subprocess.Popen(
        [*stage.network.enter(node), sys.executable, "-m", "producers.attached"],
        stderr=log, env=stage.environment(node),
    )  # fmt: skip
    log.close()
