"""Puts faults into force on a network that stands, ends them in time, and reads what they dropped."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kpatrol.lab.errors import LabError
from kpatrol.lab.faults import Fault, receivers, render_end, render_fault, table_of
from kpatrol.lab.netns import Network, run_in


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultCount:
    """What one fault has done in one node's namespace so far; counts of packets, exact."""

    fault: Fault
    node: str
    examined: int
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Change:
    """At `at_s` after the load began, fault `number` begins or ends."""

    at_s: float
    number: int
    verb: Literal["begin", "end"]


def timeline(faults: Sequence[Fault]) -> list[Change]:
    """All changes in order of time."""
    changes = [Change(at_s=fault.from_s, number=i, verb="begin") for i, fault in enumerate(faults)]
    changes += [Change(at_s=f.to_s, number=i, verb="end") for i, f in enumerate(faults) if f.to_s is not None]
    return sorted(changes)


class Injection:
    """The faults of one lab on its network."""

    def __init__(self, network: Network, faults: Sequence[Fault]) -> None:
        if network.mode == "loopback" and faults:
            raise LabError("faults by nftables need network namespaces; on shared loopback there are none")
        self.network = network
        self.faults = tuple(faults)
        self._begun: set[int] = set()

    def begin(self, number: int) -> None:
        """Put one fault (by its place in `faults`) into force, in every namespace concerned."""
        for name, script in render_fault(self.faults[number], number=number, nodes=self.network.nodes).items():
            self._nft(name, script)
        self._begun.add(number)

    def end(self, number: int) -> None:
        """End one fault; its counters stay."""
        for name in receivers(self.faults[number], self.network.nodes):
            self._nft(name, render_end(number))

    async def follow_timeline(self, *, load_began_s: float) -> None:
        """Begin and end all faults in time; `load_began_s` is on the clock of `time.monotonic`, and may be ahead."""
        for change in timeline(self.faults):
            if change.verb == "begin" and change.number in self._begun:
                continue
            await asyncio.sleep(max(0.0, load_began_s + change.at_s - time.monotonic()))
            act = self.begin if change.verb == "begin" else self.end
            await asyncio.to_thread(act, change.number)

    def counters(self) -> list[FaultCount]:
        """The counters of every fault that has begun, one entry per namespace."""
        return [
            self._count(number, name)
            for number in sorted(self._begun)
            for name in receivers(self.faults[number], self.network.nodes)
        ]

    def _count(self, number: int, name: str) -> FaultCount:
        table = table_of(number)
        said = run_in(self.network.nodes[name], ["nft", "-j", "list", "counters", "table", "inet", table])
        counters = [item["counter"] for item in json.loads(said)["nftables"] if "counter" in item]
        packets = {counter["name"]: int(counter["packets"]) for counter in counters}
        return FaultCount(
            fault=self.faults[number], node=name, examined=packets["examined"], dropped=packets["dropped"]
        )

    def _nft(self, name: str, script: str) -> None:
        run_in(self.network.nodes[name], ["nft", "-f", "-"], stdin=script)
