"""Agents' pods and nodes as the cluster sees them."""

from typing import Any

from controller.kubernetes.agents import agent_pods, node_states, trouble
from controller.kubernetes.nodes import NodeFacts
from controller.netchecker_api.facts import AgentPod


def pod(name: str, *, workload: str = "kpatrol-agent", node: str = "n1", **changes: Any) -> dict[str, Any]:
    metadata = {
        "name": name,
        "labels": {"app.kubernetes.io/name": workload},
        "creationTimestamp": "2026-09-21T14:13:20Z",
    }
    return {
        "metadata": metadata | changes.pop("metadata", {}),
        "spec": {"nodeName": node},
        "status": {"phase": "Running", **changes},
    }


def test_pods_of_the_agents_are_expected_and_no_others() -> None:
    waiting = [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]
    pods = [
        pod("a"),
        pod("b", phase="Pending", containerStatuses=waiting),
        pod("c", metadata={"deletionTimestamp": "2026-09-21T15:00:00Z"}),
        pod("sink", workload="kpatrol-sink"),
        pod("unscheduled", node=""),
    ]
    assert agent_pods(pods, names=["kpatrol-agent"]) == (
        AgentPod(name="a", node="n1", since_us=1_790_000_000_000_000),
        AgentPod(name="b", node="n1", since_us=1_790_000_000_000_000, trouble="ImagePullBackOff"),
        AgentPod(name="c", node="n1", since_us=1_790_000_000_000_000, leaving=True),
    )


def test_a_pod_that_does_not_run_says_so() -> None:
    assert trouble({"phase": "Pending"}) == "the pod is Pending"
    assert trouble({"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}) == ""


def test_nodes_that_are_not_ready_or_cordoned() -> None:
    states = node_states({"a": NodeFacts(), "b": NodeFacts(ready=False), "c": NodeFacts(cordoned=True)})
    assert {name: state.trouble for name, state in states.items()} == {
        **{"a": "", "b": "the node is NotReady", "c": "the node is cordoned"},
    }
