"""What the cluster says of its nodes and of our pods on them, and what that means. Pure, over plain objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Literal

from kpatrol.check.manifests import PORTS, Flavour
from topics.mesh_members import Member

ZONE = "topology.kubernetes.io/zone"
Standing = Literal["ready", "waiting", "absent", "left_out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """One node: `ready` with its agent's pod, `waiting`, `absent` or `left_out` with the reason."""

    node: str
    standing: Standing
    why: str = ""
    pod: str = ""
    zone: str = ""
    addresses: tuple[str, ...] = ()


def states(
    *, nodes: Sequence[Mapping[str, Any]], pods: Sequence[Mapping[str, Any]], exclude: Sequence[str]
) -> list[NodeState]:
    """Every node of the cluster, by name."""
    on_node = {pod["spec"].get("nodeName") or _aimed_at(pod): pod for pod in pods if not _ends(pod)}
    return [_state(node, on_node.get(node["metadata"]["name"]), exclude) for node in sorted(nodes, key=_name)]


def _name(node: Mapping[str, Any]) -> str:
    return str(node["metadata"]["name"])


def _ends(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _aimed_at(pod: Mapping[str, Any]) -> str:
    """The node that a DaemonSet's pod is meant for while no scheduler has bound it."""
    affinity = pod["spec"].get("affinity", {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {})
    for term in required.get("nodeSelectorTerms", []):
        for field in term.get("matchFields", []):
            if field["key"] == "metadata.name":
                return str(field["values"][0])
    return ""


def _state(node: Mapping[str, Any], pod: Mapping[str, Any] | None, exclude: Sequence[str]) -> NodeState:
    name, labels = _name(node), node["metadata"].get("labels") or {}
    zone = labels.get(ZONE, "")
    label = next((label for label in exclude if label in labels), None)
    if label is not None:
        return NodeState(node=name, standing="left_out", why=f"has the label {label}", zone=zone)
    if not _node_ready(node):
        return NodeState(node=name, standing="left_out", why="the node is NotReady", zone=zone)
    if pod is None:
        return NodeState(node=name, standing="waiting", why="no pod was made for it yet", zone=zone)
    if _pod_ready(pod):
        addresses = tuple(str(ip["ip"]) for ip in pod["status"].get("podIPs", []))
        return NodeState(node=name, standing="ready", pod=pod["metadata"]["name"], zone=zone, addresses=addresses)
    why, hopeless = _trouble(pod)
    return NodeState(node=name, standing="absent" if hopeless else "waiting", why=why, zone=zone)


def _node_ready(node: Mapping[str, Any]) -> bool:
    return _condition(node, "Ready").get("status") == "True"


def _pod_ready(pod: Mapping[str, Any]) -> bool:
    return _condition(pod, "Ready").get("status") == "True"


def _condition(item: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((c for c in item.get("status", {}).get("conditions", []) if c["type"] == kind), {})


# Reasons of a waiting container after which waiting longer seldom helps.
_HOPELESS = frozenset({"ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"})


def _trouble(pod: Mapping[str, Any]) -> tuple[str, bool]:
    """(why the pod is not ready, whether waiting is hopeless)."""
    for status in pod["status"].get("containerStatuses", []):
        waiting = status.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return _said(waiting["reason"], waiting.get("message", "")), waiting["reason"] in _HOPELESS
        ended = status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated")
        if ended:
            return f"the agent ended with exit code {ended.get('exitCode')}: {ended.get('reason', '')}", False
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _said(scheduled.get("reason", ""), scheduled.get("message", "")), False
    phase = pod["status"].get("phase", "")
    return f"the pod is {phase}" + (f": {pod['status']['reason']}" if "reason" in pod["status"] else ""), False


def _said(reason: str, message: str) -> str:
    return f"{reason}: {message}" if message else reason


def members(found: Sequence[NodeState], *, flavour: Flavour) -> tuple[Member, ...]:
    """The agents that are ready, as a membership."""
    ready = [state for state in found if state.standing == "ready"]
    return tuple(_member(slot, state, flavour) for slot, state in enumerate(ready))


def _member(slot: int, state: NodeState, flavour: Flavour) -> Member:
    by_family = {ip_address(text).version: text for text in reversed(state.addresses)}
    ports = PORTS[flavour]
    return Member(
        slot=slot, agent=state.pod, node=state.node, zone=state.zone, pod=state.pod, ipv4=by_family.get(4, ""),
        ipv6=by_family.get(6, ""), http_port=ports["HTTP"], tcp_port=ports["TCP"], udp_port=ports["UDP"],
    )  # fmt: skip
