"""What the cluster says of agents and nodes, beside their own reports. Empty where there is no cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPod:
    """A pod that shall report. ``since_us`` is when it was made, ``trouble`` why it does not run (empty: it does)."""

    name: str
    node: str
    since_us: int = 0
    trouble: str = ""
    leaving: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """A node as the cluster sees it."""

    ready: bool = True
    cordoned: bool = False

    @property
    def trouble(self) -> str:
        """Why nothing is to be expected of it; empty where there is no reason."""
        if not self.ready:
            return "the node is NotReady"
        return "the node is cordoned" if self.cordoned else ""


class ClusterFacts(Protocol):
    """A cluster's word; no call to anybody."""

    def agent_pods(self) -> Sequence[AgentPod]:
        """Every pod that shall report; empty where nothing is known of pods."""
        ...

    def nodes(self) -> Mapping[str, NodeState]:
        """Node name → state; empty where nothing is known of nodes."""
        ...


class NoFacts:
    """:class:`ClusterFacts` without a cluster: who was ever heard is expected."""

    def agent_pods(self) -> Sequence[AgentPod]:
        """None."""
        return ()

    def nodes(self) -> Mapping[str, NodeState]:
        """None."""
        return {}
