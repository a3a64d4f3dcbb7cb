"""Faults on the pods' network: the lab's own, with each node's pod range in place of the node's address."""

from __future__ import annotations

import json

from kpatrol.lab.errors import LabError
from kpatrol.lab.faults import Fault, parse_fault, receivers, render_end, render_fault, table_of
from kpatrol.lab.inject import FaultCount
from kpatrol.lab.netns import run_in
from kpatrol.lab.netplan import Node
from tests.cluster.nodefiles import PodRange, pods_as_nodes


class Faults:
    """The faults of one cluster; all of its nodes' namespaces stand already, spare ones too."""

    def __init__(self, nodes: dict[str, tuple[Node, PodRange]]) -> None:
        self._nodes = nodes
        self._faults: list[Fault] = []

    def begin(self, text: str) -> int:
        """Put one into force and return its number."""
        fault, number = parse_fault(text, nodes=list(self._nodes)), len(self._faults)
        for name, script in render_fault(fault, number=number, nodes=pods_as_nodes(self._nodes)).items():
            run_in(self._nodes[name][0], ["nft", "-f", "-"], stdin=script)
        self._faults.append(fault)
        return number

    def end(self, number: int) -> FaultCount:
        """End it; what it looked at and dropped, over all nodes."""
        fault = self._faults[number]
        names = receivers(fault, pods_as_nodes(self._nodes))
        for name in names:
            run_in(self._nodes[name][0], ["nft", "-f", "-"], stdin=render_end(number))
        return self.count(number)

    def count(self, number: int) -> FaultCount:
        """What it looked at and dropped so far, over all nodes where it drops."""
        fault = self._faults[number]
        names = receivers(fault, pods_as_nodes(self._nodes))
        totals = {which: sum(self._counter(name, number, which) for name in names) for which in ("examined", "dropped")}
        return FaultCount(fault=fault, node=",".join(names), **totals)

    def _counter(self, name: str, number: int, which: str) -> int:
        said = run_in(self._nodes[name][0], ["nft", "-j", "list", "counter", "inet", table_of(number), which])
        for entry in json.loads(said)["nftables"]:
            if "counter" in entry:
                return int(entry["counter"]["packets"])
        raise LabError(f"{name}: no counter {which} of fault {number}")
