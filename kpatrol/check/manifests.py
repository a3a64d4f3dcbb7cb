"""What a check puts into a cluster: a namespace and one or two DaemonSets, all labelled. Pure.

The agents have no right to anything: no service account token, a plain user, a read-only root. They use the two safe
sysctls for ping and low ports; in the host's network, where these are not theirs to set, they listen on high ports, and
where ICMP is asked for they run as root with the one capability NET_RAW and nothing else: a plain user's pod cannot be
given it, and the node's own `net.ipv4.ping_group_range` may be closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from kpatrol.check.config import CheckConfig, Mode
from kpatrol.check.mesh import GROUP

Flavour = Literal["pod", "host"]
LABEL = "kpatrol.io/check"
CONTAINER = "agent"
SPOOL = "/var/lib/kpatrol"
PORTS: dict[Flavour, dict[str, int]] = {
    "pod": {"HTTP": 80, "TCP": 7, "UDP": 862},
    "host": {"HTTP": 28080, "TCP": 28007, "UDP": 28862},
}
FLAVOURS: dict[Mode, tuple[Flavour, Flavour]] = {
    "pod": ("pod", "pod"),
    "node": ("host", "host"),
    "node-to-pod": ("host", "pod"),
    "pod-to-node": ("pod", "host"),
}


def flavours(mode: Mode) -> tuple[Flavour, ...]:
    """The DaemonSets that a mode needs, the asking one first."""
    return tuple(dict.fromkeys(FLAVOURS[mode]))


def namespace(name: str, *, run: str) -> dict[str, Any]:
    """The namespace, as ours."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": {LABEL: run, "pod-security.kubernetes.io/enforce": "privileged"},
        },
    }


def daemonset(*, config: CheckConfig, flavour: Flavour, run: str, image: str) -> dict[str, Any]:
    """The agents of one flavour."""
    labels = {LABEL: run, "app.kubernetes.io/name": f"kpatrol-check-{flavour}"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": f"kpatrol-check-{flavour}", "namespace": config.namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": labels["app.kubernetes.io/name"]}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
            "template": {"metadata": {"labels": labels}, "spec": _pod(config, flavour, image)},
        },
    }


def _pod(config: CheckConfig, flavour: Flavour, image: str) -> dict[str, Any]:
    host, user = flavour == "host", 0 if _raw(config, flavour) else 65532
    security: dict[str, Any] = {
        "runAsNonRoot": user != 0, "runAsUser": user, "runAsGroup": user, "fsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    if not host:
        security["sysctls"] = [
            {"name": "net.ipv4.ping_group_range", "value": "0 2147483647"},
            {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"},
        ]
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 2,
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": _affinity(config.exclude_labels)},
        "securityContext": security,
        "containers": [_container(config, flavour, image)],
        "volumes": [{"name": "spool", "emptyDir": {"sizeLimit": "300Mi"}}, {"name": "tmp", "emptyDir": {}}],
    }
    if host:
        pod |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    if config.image_pull_secret:
        pod["imagePullSecrets"] = [{"name": config.image_pull_secret}]
    return pod


def _raw(config: CheckConfig, flavour: Flavour) -> bool:
    """Whether agents need raw sockets for ICMP."""
    return flavour == "host" and "icmp" in config.protocols


def _affinity(exclude: Sequence[str]) -> dict[str, Any]:
    expressions = [{"key": label, "operator": "DoesNotExist"} for label in exclude]
    expressions.append({"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]})  # type: ignore[dict-item]
    return {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
    }


def _container(config: CheckConfig, flavour: Flavour, image: str) -> dict[str, Any]:
    fields = {
        "KPATROL_NODE": "spec.nodeName", "KPATROL_AGENT": "metadata.name", "KPATROL_POD": "metadata.name",
        "KPATROL_POD_IPS": "status.podIPs", "KPATROL_HOST_IPS": "status.hostIPs",
    }  # fmt: skip
    values = {
        "KPATROL_GROUP": GROUP, "KPATROL_SPOOL_DIR": SPOOL, "KPATROL_FLAVOUR": flavour,
        **{f"KPATROL_{name}_PORT": str(port) for name, port in PORTS[flavour].items()},
    }  # fmt: skip
    capabilities = {"drop": ["ALL"], **({"add": ["NET_RAW"]} if _raw(config, flavour) else {})}
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": config.image_pull_policy,
        "command": ["python3", "-m", "producers.attached"],
        "env": [
            *({"name": n, "valueFrom": {"fieldRef": {"fieldPath": path}}} for n, path in fields.items()),
            *({"name": name, "value": value} for name, value in values.items()),
        ],
        "readinessProbe": {"tcpSocket": {"port": PORTS[flavour]["HTTP"]}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": capabilities,
        },
        "volumeMounts": [{"name": "spool", "mountPath": SPOOL}, {"name": "tmp", "mountPath": "/tmp"}],
    }  # fmt: skip
