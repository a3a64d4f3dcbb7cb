"""The agents' pods and their nodes, as the cluster sees them: who shall report, and why somebody cannot. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from controller.kubernetes.nodes import NodeFacts
from controller.netchecker_api.facts import AgentPod, NodeState

Object = Mapping[str, Any]

NAME_LABEL = "app.kubernetes.io/name"


def agent_pods(pods: Iterable[Object], *, names: Iterable[str]) -> tuple[AgentPod, ...]:
    """The pods of the agents' workloads that have a node; ``names`` are the workloads'."""
    wanted = frozenset(names)
    found = (pod for pod in pods if (pod["metadata"].get("labels") or {}).get(NAME_LABEL) in wanted)
    return tuple(_agent_pod(pod) for pod in found if (pod.get("spec") or {}).get("nodeName"))


def _agent_pod(pod: Object) -> AgentPod:
    metadata = pod["metadata"]
    return AgentPod(
        name=str(metadata["name"]),
        node=str(pod["spec"]["nodeName"]),
        since_us=_micros(metadata.get("creationTimestamp")),
        trouble=trouble(pod.get("status") or {}),
        leaving=bool(metadata.get("deletionTimestamp")),
    )


def trouble(status: Object) -> str:
    """Why a pod does not run, in Kubernetes' own word; empty where it does."""
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting")
        if waiting:
            return str(waiting.get("reason") or "a container is waiting")
    phase = str(status.get("phase") or "Running")
    return "" if phase == "Running" else f"the pod is {phase}"


def node_states(nodes: Mapping[str, NodeFacts]) -> dict[str, NodeState]:
    """Node → what may be expected of it."""
    return {name: NodeState(ready=node.ready, cordoned=node.cordoned) for name, node in nodes.items()}


def _micros(text: Any) -> int:
    return round(datetime.fromisoformat(str(text)).timestamp() * 1e6) if text else 0
