"""What Node objects add to agents' reports, and what changed between two looks at the cluster. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from topics.cluster_events import ClusterEvent

ZONE_LABEL = "topology.kubernetes.io/zone"
RACK_LABEL = "topology.kubernetes.io/rack"
Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """A node as far as a mesh is concerned."""

    zone: str = ""
    rack: str = ""
    ready: bool = True
    cordoned: bool = False


def facts(node: Object, *, rack_label: str = RACK_LABEL) -> NodeFacts:
    """The facts of a Node object."""
    labels = node["metadata"].get("labels") or {}
    conditions = (node.get("status") or {}).get("conditions") or []
    ready = [condition["status"] for condition in conditions if condition["type"] == "Ready"]
    return NodeFacts(
        zone=labels.get(ZONE_LABEL, ""),
        rack=labels.get(rack_label, ""),
        ready=ready == ["True"],
        cordoned=bool((node.get("spec") or {}).get("unschedulable")),
    )


def node_changes(
    before: Mapping[str, NodeFacts], after: Mapping[str, NodeFacts], *, at_us: int
) -> Iterator[ClusterEvent]:
    """Nodes that came, went, became ready or not, were cordoned or freed."""
    for name in sorted({*before, *after}):
        for reason, message in _changes(before.get(name), after.get(name)):
            yield ClusterEvent(
                object=f"node/{name}", node=name, reason=reason, message=f"{name} {message}", at_us=at_us
            )


def _changes(old: NodeFacts | None, new: NodeFacts | None) -> Iterator[tuple[str, str]]:
    if old is None:
        yield "NodeAdded", "joined the cluster"
        return
    if new is None:
        yield "NodeRemoved", "left the cluster"
        return
    if old.ready != new.ready:
        yield ("NodeReady", "is ready again") if new.ready else ("NodeNotReady", "is not ready any more")
    if old.cordoned != new.cordoned:
        yield ("NodeCordoned", "takes no new pods") if new.cordoned else ("NodeUncordoned", "takes new pods again")


def rollout(workload: Object) -> str:
    """The part of a DaemonSet or Deployment that changes when its pods are made anew."""
    status = workload.get("status") or {}
    wanted = status.get("desiredNumberScheduled", (workload.get("spec") or {}).get("replicas", 0))
    updated = status.get("updatedNumberScheduled", status.get("updatedReplicas", 0))
    generation = workload["metadata"].get("generation", 0)
    return f"generation {generation}, {'complete' if updated == wanted else 'under way'}"


def service_shape(service: Object) -> str:
    """The part of a Service that traffic to it depends on."""
    spec = service.get("spec") or {}
    ports = sorted(
        f"{p.get('name', '')} {p.get('port')}→{p.get('targetPort')}/{p.get('nodePort', 0)}"
        for p in spec.get("ports") or []
    )
    addresses = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    balancer = ",".join(str(entry.get("ip") or entry.get("hostname")) for entry in addresses)
    return f"{spec.get('type')} {','.join(spec.get('clusterIPs') or [])} {'; '.join(ports)} {balancer}".strip()


def shape_changes(
    before: Mapping[str, str], after: Mapping[str, str], *, kind: str, reason: str, at_us: int
) -> Iterator[ClusterEvent]:
    """Objects of a kind whose shape is another than before."""
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old != new:
            message = f"{name}: {new}" if new is not None else f"{name} is gone"
            yield ClusterEvent(object=f"{kind}/{name}", node="", reason=reason, message=message[:1000], at_us=at_us)
