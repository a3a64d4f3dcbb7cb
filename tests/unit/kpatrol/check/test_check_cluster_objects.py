"""What a check puts into a cluster, and what it reads from nodes and pods."""

from __future__ import annotations

from typing import Any

import pytest

from kpatrol.check.config import CheckConfig
from kpatrol.check.manifests import PORTS, daemonset, flavours
from kpatrol.check.nodes import NodeState, members, states


def node(name: str, *, ready: bool = True, labels: dict[str, str] | None = None) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "Unknown"}]
    return {"metadata": {"name": name, "labels": labels or {}}, "status": {"conditions": conditions}}


def pod(node_name: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": f"agent-{node_name}"}, "spec": {"nodeName": node_name}, "status": status}


READY = {"conditions": [{"type": "Ready", "status": "True"}], "podIPs": [{"ip": "10.1.0.5"}, {"ip": "fd00::5"}]}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": reason, "message": message}}}]}


def test_each_node_has_a_standing_and_a_reason() -> None:
    nodes = [
        node("a", labels={"topology.kubernetes.io/zone": "z1"}), node("b"), node("c", ready=False),
        node("d", labels={"kosmos.io/exclude": ""}), node("e"), node("f"), node("g"),
    ]  # fmt: skip
    pods = [
        pod("a", **READY),
        pod("b", **waiting("ErrImageNeverPull", "Container image is not present")),
        pod("c", **READY),
        pod("f", **waiting("ImagePullBackOff", "Back-off pulling image")),
        pod("g", phase="Running", containerStatuses=[{"state": {"terminated": {"exitCode": 2, "reason": "Error"}}}]),
    ]
    found = states(nodes=nodes, pods=pods, exclude=("kpatrol.io/exclude", "kosmos.io/exclude"))
    assert [(s.node, s.standing, s.why) for s in found] == [
        ("a", "ready", ""),
        ("b", "absent", "ErrImageNeverPull: Container image is not present"),
        ("c", "left_out", "the node is NotReady"),
        ("d", "left_out", "has the label kosmos.io/exclude"),
        ("e", "waiting", "no pod was made for it yet"),
        ("f", "waiting", "ImagePullBackOff: Back-off pulling image"),
        ("g", "waiting", "the agent ended with exit code 2: Error"),
    ]


def test_a_pod_that_no_scheduler_has_bound_is_its_node_s() -> None:
    terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no memory"}]
    unbound = {
        "metadata": {"name": "p"}, "spec": {"affinity": {"nodeAffinity": required}},
        "status": {"phase": "Pending", "conditions": conditions},
    }  # fmt: skip
    ending = pod("a", **READY) | {"metadata": {"name": "old", "deletionTimestamp": "now"}}
    (found,) = states(nodes=[node("a")], pods=[ending, unbound], exclude=())
    assert (found.standing, found.why) == ("waiting", "Unschedulable: no memory")


def test_members_have_both_families_and_the_flavour_s_ports() -> None:
    ready = NodeState(node="a", standing="ready", pod="p", zone="z", addresses=("10.1.0.5", "fd00::5"))
    late = NodeState(node="b", standing="waiting")
    (member,) = members([late, ready], flavour="host")
    assert (member.agent, member.node, member.zone) == ("p", "a", "z")
    assert (member.ipv4, member.ipv6, member.http_port) == ("10.1.0.5", "fd00::5", PORTS["host"]["HTTP"])


@pytest.mark.parametrize(
    ("flavour", "protocols", "raw"),
    [("pod", ("icmp", "tcp"), False), ("host", ("tcp", "udp"), False), ("host", ("icmp",), True)],
)
def test_agents_have_no_rights_beyond_their_pod(flavour: Any, protocols: Any, raw: bool) -> None:
    config = CheckConfig(image_pull_secret="s", protocols=protocols)
    manifest = daemonset(config=config, flavour=flavour, run="r", image="i")
    spec = manifest["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is not raw
    # In the host's network ICMP needs the one capability, which only root is given.
    capabilities = {"drop": ["ALL"], "add": ["NET_RAW"]} if raw else {"drop": ["ALL"]}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": capabilities,
    }  # fmt: skip
    assert spec.get("hostNetwork", False) is (flavour == "host")
    assert ("sysctls" in spec["securityContext"]) is (flavour == "pod")
    assert not any("hostPath" in volume for volume in spec["volumes"])
    assert spec["imagePullSecrets"] == [{"name": "s"}]


def test_modes_name_the_daemonsets_they_need() -> None:
    assert flavours("pod") == ("pod",)
    assert flavours("node-to-pod") == ("host", "pod")
    assert flavours("pod-to-node") == ("pod", "host")
