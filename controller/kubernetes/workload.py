"""Agents of a task's own: from the task and the default agents' workload to the objects that ought to exist. Pure.

The default agents' DaemonSet is the template: image, security, Kafka's secrets and spool are the same, so that an
installation is configured in one place. What a task says of its agents replaces that part of it.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from controller.addressbook import SecretFiles
from controller.kubernetes.book import Object
from controller.tasks import AppHttpHealthy, Netdns, NetPatrol, NetReach, Task
from controller.tasks.schema import to_plain
from controller.tasks.shared import AgentSpec

TASK_LABEL = "kpatrol.io/task-uid"
SHAPE = "kpatrol.io/shape"
NAME_LABEL = "app.kubernetes.io/name"
# A Service's name is the shortest of those made of it: 63 characters, less "-ipv4".
NAME_MAX = 57
TLS_FOLDER = "/etc/kpatrol/task-tls"
INGRESS_PATH = "/kdoctoragent"
BODY_FOLDER = "/etc/kpatrol/task-body"
_PLACES = {
    "DaemonSet": "apis/apps/v1",
    "Deployment": "apis/apps/v1",
    "Service": "api/v1",
    "Ingress": "apis/networking.k8s.io/v1",
}
KEPT = {"DaemonSet": "daemonsets", "Deployment": "deployments", "Service": "services", "Ingress": "ingresses"}


def needs_own(task: Task) -> bool:
    """Whether agents of its own are asked for, or needed because they mount what no topic may hold."""
    if isinstance(task, NetPatrol):
        return False
    return task.spec.agent_spec is not None or bool(secret_of(task)) or bool(config_map_of(task))


def agent_spec(task: Task) -> AgentSpec:
    """What the task says of its agents; the defaults where it only needs them."""
    return (None if isinstance(task, NetPatrol) else task.spec.agent_spec) or AgentSpec()


def secret_of(task: Task) -> str:
    """``namespace/name`` of the TLS Secret that the task names; empty where it names none."""
    if not isinstance(task, AppHttpHealthy) or not task.spec.target.tls_secret_name:
        return ""
    return f"{task.spec.target.tls_secret_namespace}/{task.spec.target.tls_secret_name}"


def config_map_of(task: Task) -> str:
    """``namespace/name`` of the ConfigMap that is the task's body; empty where it names none."""
    if not isinstance(task, AppHttpHealthy) or not task.spec.target.body_configmap_name:
        return ""
    return f"{task.spec.target.body_configmap_namespace}/{task.spec.target.body_configmap_name}"


def name_of(task: Task) -> str:
    """The workload's name: kind and task; hashed where it is too long for a Service or holds a dot."""
    name = f"kpatrol-{task.KIND.lower()}-{task.metadata.name}"
    if len(name) <= NAME_MAX and "." not in name:
        return name
    mark = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{name[: NAME_MAX - 9].replace('.', '-').rstrip('-')}-{mark}"


def secret_files(task: Task) -> Mapping[str, SecretFiles]:
    """Where its agents find the Secret's three keys."""
    key = secret_of(task)
    paths = {f"{part}_file": f"{TLS_FOLDER}/{name}" for part, name in _KEYS}
    return {key: SecretFiles(**paths)} if key else {}


def body_folders(task: Task) -> Mapping[str, str]:
    """Where its agents find the ConfigMap's data, a file for each key."""
    key = config_map_of(task)
    return {key: BODY_FOLDER} if key else {}


_KEYS = (("ca", "ca.crt"), ("cert", "tls.crt"), ("key", "tls.key"))


def desired(
    task: Task, *, template: Object, services: Sequence[Object], namespace: str, ingress: Object | None = None
) -> list[dict[str, Any]]:
    """Workload, Services and, for a NetReach that asks for it, an Ingress.

    ``services`` are the default agents', one for each family; ``ingress`` is theirs too: its class and path are kept.
    """
    name = name_of(task)
    meta = _meta(task, name=name, namespace=namespace)
    made = [_workload(task, template, meta), *(_service(service, meta) for service in services)]
    if isinstance(task, NetReach) and task.spec.target.ingress and services:
        made.append(_ingress(ingress, made[1], meta))
    return [_marked(document) for document in made]


def path_of(document: Object) -> str:
    """Where an object of these kinds is."""
    metadata, kind = document["metadata"], document["kind"]
    return f"/{_PLACES[kind]}/namespaces/{metadata['namespace']}/{KEPT[kind]}/{metadata['name']}"


def ready(workload: Object | None) -> int:
    """How many agents there are when all of them are ready, else 0."""
    if workload is None:
        return 0
    status, spec = workload.get("status") or {}, workload.get("spec") or {}
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 1):
        return 0
    wanted = status.get("desiredNumberScheduled", spec.get("replicas", 0))
    there = status.get("numberReady", status.get("readyReplicas", 0))
    return int(wanted) if wanted and wanted == there else 0


def _meta(task: Task, *, name: str, namespace: str) -> dict[str, Any]:
    owner = {"apiVersion": task.API_VERSION, "kind": task.KIND, "name": task.metadata.name, "uid": task.metadata.uid}
    return {
        "name": name,
        "namespace": namespace,
        "labels": {NAME_LABEL: name, "app.kubernetes.io/part-of": "kpatrol", TASK_LABEL: task.metadata.uid},
        "annotations": dict(agent_spec(task).annotation),
        # With the task its agents go: the garbage collector of the cluster sees to it.
        "ownerReferences": [{**owner, "controller": True}],
    }


def _workload(task: Task, template: Object, meta: Mapping[str, Any]) -> dict[str, Any]:
    spec = agent_spec(task)
    pod = _pod(task, spec, copy.deepcopy(dict(template["spec"]["template"]["spec"])), namespace=meta["namespace"])
    labels = {**meta["labels"]}
    body: dict[str, Any] = {
        "selector": {"matchLabels": {TASK_LABEL: task.metadata.uid}},
        "template": {"metadata": {"labels": labels, "annotations": meta["annotations"]}, "spec": pod},
    }
    if spec.kind == "Deployment":
        body["replicas"] = spec.deployment_replicas
    return {"apiVersion": "apps/v1", "kind": spec.kind, "metadata": copy.deepcopy(dict(meta)), "spec": body}


def _pod(task: Task, spec: AgentSpec, pod: dict[str, Any], *, namespace: str) -> dict[str, Any]:
    if spec.affinity is not None:
        pod["affinity"] = dict(spec.affinity)
    pod.pop("hostNetwork", None)
    pod.pop("dnsPolicy", None)
    if spec.host_network:
        pod |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
        # These belong to a pod's own network; the node's is not ours to set.
        pod["securityContext"] = {k: v for k, v in (pod.get("securityContext") or {}).items() if k != "sysctls"}
    files = _mounted(task, namespace=namespace)
    for container in pod["containers"]:
        container["env"] = _env(task, spec, container.get("env") or [])
        if spec.resources is not None:
            container["resources"] = to_plain(spec.resources)
        mounts = [{"name": name, "mountPath": folder, "readOnly": True} for name, folder, _ in files]
        container["volumeMounts"] = [*(container.get("volumeMounts") or []), *mounts]
    pod["volumes"] = [*(pod.get("volumes") or []), *({"name": name} | source for name, _, source in files)]
    return pod


def _mounted(task: Task, *, namespace: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(volume, folder, its source) of what the task names and no topic may hold. A pod mounts of its own namespace
    alone; what lies elsewhere the round says it did not find."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    space, _, secret = secret_of(task).partition("/")
    if secret and space == namespace:
        found.append(("task-tls", TLS_FOLDER, {"secret": {"secretName": secret, "defaultMode": 0o440}}))
    space, _, config_map = config_map_of(task).partition("/")
    if config_map and space == namespace:
        found.append(("task-body", BODY_FOLDER, {"configMap": {"name": config_map}}))
    return found


def _env(task: Task, spec: AgentSpec, given: Sequence[Object]) -> list[Object]:
    ours = {"KPATROL_GROUP": task.metadata.uid, "KPATROL_AGENT": "$(KPATROL_POD)"}
    if spec.host_network:
        ours["KPATROL_FLAVOUR"] = "host"
    theirs = {str(item["name"]) for item in spec.env}
    kept = [dict(item) for item in given if item["name"] not in ours and item["name"] not in theirs]
    return [*kept, *({"name": name, "value": value} for name, value in ours.items()), *(dict(i) for i in spec.env)]


def _service(default: Object, meta: Mapping[str, Any]) -> dict[str, Any]:
    spec = default["spec"]
    (family,) = spec["ipFamilies"]
    ports = [{k: p[k] for k in ("name", "port", "targetPort", "protocol") if k in p} for p in spec["ports"]]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**copy.deepcopy(dict(meta)), "name": f"{meta['name']}-{family.lower()}"},
        "spec": {
            "type": spec["type"],
            "ipFamilyPolicy": "SingleStack",
            "ipFamilies": [family],
            "selector": {TASK_LABEL: meta["labels"][TASK_LABEL]},
            "ports": ports,
        },
    }


def _ingress(default: Object | None, service: Object, meta: Mapping[str, Any]) -> dict[str, Any]:
    given = (default or {}).get("spec") or {}
    paths = ((given.get("rules") or [{}])[0].get("http") or {}).get("paths") or [{}]
    named = {"name": service["metadata"]["name"], "port": {"name": "http"}}
    path = {"path": paths[0].get("path", INGRESS_PATH), "pathType": "Exact", "backend": {"service": named}}
    kept = {"ingressClassName": given["ingressClassName"]} if given.get("ingressClassName") else {}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": copy.deepcopy(dict(meta)),
        "spec": {**kept, "rules": [{"http": {"paths": [path]}}]},
    }


def _marked(document: dict[str, Any]) -> dict[str, Any]:
    """With the mark of its own content, by which a later look sees whether it is still what is wanted."""
    text = json.dumps(document, sort_keys=True)
    document["metadata"]["annotations"] = {
        **document["metadata"]["annotations"],
        SHAPE: hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
    }
    return document


OWNERS = (NetReach, AppHttpHealthy, Netdns)
