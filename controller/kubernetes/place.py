"""Custom resources as tasks, their status subresource as the place of statuses, Events for people."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.addressbook import AddressBook
from controller.kubernetes import conditions, events, workload
from controller.kubernetes.agents import agent_pods, node_states
from controller.kubernetes.book import Where, book
from controller.kubernetes.cache import Cache, Resource
from controller.kubernetes.door import MERGE, Door
from controller.kubernetes.errors import Unreachable
from controller.kubernetes.nodes import NodeFacts, facts, node_changes, rollout, service_shape, shape_changes
from controller.kubernetes.own_agents import OwnAgents
from controller.members import Site
from controller.netchecker_api.facts import AgentPod, NodeState
from controller.plan import Ground
from controller.status import Document, rfc3339
from controller.tasks import KINDS, Limits, Problem, Task, TaskFileErrors, load_tasks
from controller.tasks.schema import to_plain
from topics.cluster_events import ClusterEvent

log = logging.getLogger(__name__)

LISTED_S = 60.0
_NOT_STATUS = ("conditions", "kpatrol")
_PAUSE_S = 2.0


def path_of(model: type[Task], name: str = "") -> str:
    """Where objects of a kind are, or the one of that name."""
    return f"/apis/{model.API_VERSION}/{model.PLURAL}" + (f"/{name}" if name else "")


def resources(*, namespace: str) -> dict[str, Resource]:
    """What is kept of the cluster, and what of each object."""
    kinds = {model.PLURAL: Resource(path=path_of(model), keep=_task_parts) for model in KINDS.values()}
    return kinds | {
        "nodes": Resource(path="/api/v1/nodes", keep=_node_parts),
        "services": Resource(path="/api/v1/services", keep=_marked_parts),
        "pods": Resource(
            path=f"/api/v1/namespaces/{namespace}/pods", labels="app.kubernetes.io/part-of=kpatrol", keep=_pod_parts
        ),
        "ingresses": Resource(path=f"/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses", keep=_marked_parts),
        "daemonsets": Resource(path=f"/apis/apps/v1/namespaces/{namespace}/daemonsets", keep=_workload_parts),
        "deployments": Resource(path=f"/apis/apps/v1/namespaces/{namespace}/deployments", keep=_workload_parts),
    }


def _parts(found: dict[str, Any]) -> dict[str, Any]:
    """Without what is large and not read."""
    metadata = {k: v for k, v in found["metadata"].items() if k not in ("managedFields", "annotations")}
    return {**found, "metadata": metadata}


def _marked_parts(found: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in (found["metadata"].get("annotations") or {}).items() if k == workload.SHAPE}
    return {**(parts := _parts(found)), "metadata": {**parts["metadata"], "annotations": kept}}


def _task_parts(found: dict[str, Any]) -> dict[str, Any]:
    return _parts(found)


def _node_parts(found: dict[str, Any]) -> dict[str, Any]:
    conditions_ = [c for c in (found.get("status") or {}).get("conditions") or [] if c["type"] == "Ready"]
    return {
        "metadata": {k: found["metadata"].get(k) for k in ("name", "labels")},
        "spec": {"unschedulable": (found.get("spec") or {}).get("unschedulable", False)},
        "status": {"conditions": [{"type": c["type"], "status": c["status"]} for c in conditions_]},
    }


def _pod_parts(found: dict[str, Any]) -> dict[str, Any]:
    metadata = {k: v for k, v in found["metadata"].items() if k != "managedFields"}
    status = found.get("status") or {}
    containers = [{"state": container.get("state") or {}} for container in status.get("containerStatuses") or ()]
    return {
        "metadata": metadata,
        "spec": {"nodeName": (found.get("spec") or {}).get("nodeName", "")},
        "status": {"phase": status.get("phase", ""), "containerStatuses": containers},
    }


def _workload_parts(found: dict[str, Any]) -> dict[str, Any]:
    metadata = {k: v for k, v in found["metadata"].items() if k != "managedFields"}
    return {"metadata": metadata, "spec": found.get("spec") or {}, "status": found.get("status") or {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A custom resource, read: as a task, or why it is none."""

    version: tuple[str, int]
    task: Task | None
    problem: str


@dataclass(frozen=True, slots=True)
class _Shapes:
    """What cluster events are made from."""

    nodes: Mapping[str, NodeFacts]
    services: Mapping[str, str]
    rollouts: Mapping[str, str]


class KubernetesPlace:
    """Source of tasks and sink of statuses at once. :meth:`start` first; reading never waits for the API server."""

    def __init__(self, door: Door, *, where: Where, limits: Limits, me: str, rack_label: str) -> None:
        self._door = door
        self._where = where
        self._limits = limits
        self._me = me
        self._rack_label = rack_label
        self._cache = Cache(door, resources(namespace=where.namespace))
        self._own = OwnAgents(door, self._cache, where=where)
        self._read: dict[str, _Read] = {}
        self._refused: dict[str, str] = {}
        self._shapes: _Shapes | None = None
        self._shapes_version = -1
        self._book: tuple[int, AddressBook] | None = None
        self._pending: dict[str, Document] = {}
        self._told: dict[str, Mapping[str, Any]] = {}
        self._wake = threading.Condition()

    def start(self) -> None:
        """Lists everything, then keeps it up to date. Raises Unreachable when that takes longer than a minute."""
        self._cache.start()
        if not self._cache.listed(timeout_s=LISTED_S):
            raise Unreachable("the API server's objects could not be listed (are the CRDs there, and the rights?)")
        self._own.start()
        threading.Thread(target=self._write_for_ever, name="statuses", daemon=True).start()

    # --- what is wanted

    def fingerprint(self) -> object:
        """Changes when a task's object does."""
        return tuple((key, read.version) for key, read in sorted(self._all().items()))

    def tasks(self) -> dict[str, Task]:
        """Every task that can be read; of the others their conditions tell."""
        read = self._all()
        for key, found in read.items():
            if found.problem and self._refused.get(key) != found.problem:
                log.error("%s: %s", key, found.problem)
                self._queue(key, {"conditions": [conditions.accepted(found.problem)]})
        self._refused = {key: found.problem for key, found in read.items() if found.problem}
        return {key: found.task for key, found in read.items() if found.task is not None}

    def _objects(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for model in KINDS.values():
            for name, found in self._cache.objects(model.PLURAL).items():
                yield f"{model.KIND.lower()}/{name}", found

    def _all(self) -> dict[str, _Read]:
        known = self._read
        read = {}
        for key, found in self._objects():
            if found["metadata"].get("deletionTimestamp"):
                continue
            version = (str(found["metadata"]["uid"]), int(found["metadata"].get("generation", 1)))
            old = known.get(key)
            read[key] = old if old is not None and old.version == version else self._reading(found, version)
        self._read = read
        return read

    def _reading(self, found: Mapping[str, Any], version: tuple[str, int]) -> _Read:
        metadata = {k: v for k, v in found["metadata"].items() if k in ("name", "uid", "labels")}
        text = json.dumps({**{k: found.get(k) for k in ("apiVersion", "kind", "spec")}, "metadata": metadata})
        try:
            (task,) = load_tasks(text, limits=self._limits, file="object")
        except TaskFileErrors as errors:
            said = (f"{p.field}: found {p.found}, allowed: {p.allowed}" for p in errors.problems)
            return _Read(version=version, task=None, problem="; ".join(said))
        return _Read(version=version, task=task, problem="")

    # --- what the cluster offers

    def book(self) -> AddressBook:
        """The addresses as they are now."""
        version = self._cache.version("services", "ingresses", "pods")
        if self._book is None or self._book[0] != version:
            made = book(
                where=self._where,
                services=self._cache.objects("services"),
                ingresses=self._cache.objects("ingresses"),
                pods=self._cache.objects("pods").values(),
            )
            self._book = (version, made)
        return self._book[1]

    def sites(self) -> Mapping[str, Site]:
        """Node → zone and rack."""
        return {name: Site(zone=node.zone, rack=node.rack) for name, node in self._node_facts().items()}

    def grounds(self, tasks: Sequence[Task], *, finished: Mapping[str, str]) -> Mapping[str, Ground]:
        """Agents of tasks' own; asks for those that are missing or not as they ought to be."""
        return self._own.grounds(tasks, finished=finished)

    def _node_facts(self) -> dict[str, NodeFacts]:
        nodes = self._cache.objects("nodes").values()
        return {str(node["metadata"]["name"]): facts(node, rack_label=self._rack_label) for node in nodes}

    def agent_pods(self) -> Sequence[AgentPod]:
        """The pods of the default agents, in their own network and in the node's."""
        names = (self._where.agents, f"{self._where.agents}-host")
        return agent_pods(self._cache.objects("pods").values(), names=names)

    def nodes(self) -> Mapping[str, NodeState]:
        """Node → what may be expected of it."""
        return node_states(self._node_facts())

    def cluster_events(self, at_us: int) -> Sequence[ClusterEvent]:
        """Changes of nodes, of the agents' rollouts and of the agents' and DNS Services since the last call."""
        version = self._cache.version("nodes", "services", "daemonsets")
        if version == self._shapes_version:
            return ()
        self._shapes_version = version
        before, after = self._shapes, self._shape()
        self._shapes = after
        if before is None:
            return ()
        return (
            *node_changes(before.nodes, after.nodes, at_us=at_us),
            *shape_changes(before.services, after.services, kind="service", reason="ServiceChanged", at_us=at_us),
            *shape_changes(before.rollouts, after.rollouts, kind="daemonset", reason="Rollout", at_us=at_us),
        )

    def _shape(self) -> _Shapes:
        services = self._cache.objects("services")
        ours = (f"{self._where.namespace}/", "kube-system/")
        return _Shapes(
            self._node_facts(),
            {name: service_shape(s) for name, s in services.items() if name.startswith(ours)},
            {name: rollout(w) for name, w in self._cache.objects("daemonsets").items()},
        )

    # --- what is told

    def read(self) -> dict[str, Document]:
        """Task key → the document that its status was made from."""
        return {
            key: _document(task.task, dict(found["status"]))
            for key, found in self._objects()
            if (task := self._all().get(key)) is not None and task.task is not None and found.get("status")
        }

    def write(self, key: str, document: Document) -> None:
        """Queues the status; the newest of a task is written."""
        status = {**document["status"], "kpatrol": document["kpatrol"]}
        self._queue(key, {**status, "conditions": conditions.of_status(document["status"])})

    def remove(self, key: str) -> None:
        """Its status went with it."""
        with self._wake:
            self._pending.pop(key, None)
            self._told.pop(key, None)

    def write_problems(self, problems: Sequence[Problem]) -> None:
        """Each task's problem stands in its own conditions."""

    def write_controller(self, facts: Mapping[str, Any]) -> None:
        """The metrics say it."""

    def _queue(self, key: str, status: Mapping[str, Any]) -> None:
        with self._wake:
            self._pending[key] = status
            self._wake.notify()

    def _write_for_ever(self) -> None:
        while True:
            with self._wake:
                while not self._pending:
                    self._wake.wait()
                key, status = next(iter(self._pending.items()))
                del self._pending[key]
            try:
                self._write(key, status)
            except Unreachable as error:
                log.warning("status of %s: %s", key, error)
                if error.status in (404, 409, 422):
                    continue
                with self._wake:
                    self._pending.setdefault(key, status)
                time.sleep(_PAUSE_S)

    def _write(self, key: str, status: Mapping[str, Any]) -> None:
        found = dict(self._objects()).get(key)
        if found is None:
            return
        before = self._told.get(key) or found.get("status") or {}
        at = rfc3339(time.time_ns() // 1000)
        known = before.get("conditions") or []
        whole = {**status, "conditions": conditions.dated(status["conditions"], known=known, at=at)}
        cleared = {name: None for name in before if name not in whole and "expectedRound" in status}
        model = next(m for m in KINDS.values() if m.KIND.lower() == key.partition("/")[0])
        path = f"{path_of(model, found['metadata']['name'])}/status"
        # The uid goes along: a task of the same name made anew is another one.
        body = {"metadata": {"uid": found["metadata"]["uid"]}, "status": {**whole, **cleared}}
        self._door.request("PATCH", path, body=body, content_type=MERGE)
        self._told[key] = whole
        if "expectedRound" in status:
            self._say(found, events.said(before, whole), at)

    def _say(self, found: Mapping[str, Any], said: Sequence[events.Said], at: str) -> None:
        for event in said:
            body = events.body(event=event, task=found, at=at, reporter=self._me)
            try:
                self._door.request("POST", "/api/v1/namespaces/default/events", body=body)
            except Unreachable as error:
                # An Event is a courtesy; the status holds all of it.
                log.warning("event on %s: %s", found["metadata"]["name"], error)


def _document(task: Task, status: dict[str, Any]) -> Document:
    return {
        "apiVersion": task.API_VERSION,
        "kind": task.KIND,
        "metadata": to_plain(task.metadata),
        "spec": to_plain(task.spec),
        "status": {name: value for name, value in status.items() if name not in _NOT_STATUS},
        "kpatrol": status.get("kpatrol", {}),
    }
