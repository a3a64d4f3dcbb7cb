"""What a pod of ours must be: as little as it can be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

SAFE_SYSCTLS = {"net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start"}


def faults(pod: dict[str, Any]) -> list[str]:
    """Everything in a pod's template that is more than it should be."""
    spec = pod["spec"]
    return [*_pod_faults(spec), *(fault for c in containers(spec) for fault in _container_faults(c))]


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Init containers included."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def _pod_faults(spec: dict[str, Any]) -> Iterator[str]:
    security = spec.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or security.get("runAsUser") != 65532:
        yield "may run as root"
    if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "no seccomp profile"
    if {s["name"] for s in security.get("sysctls", [])} - SAFE_SYSCTLS:
        yield "sysctls"
    if spec.get("hostPID") or spec.get("hostIPC"):
        yield "the host's processes"
    if spec.get("enableServiceLinks") is not False:
        yield "Services' variables"
    if not spec.get("serviceAccountName"):
        yield "the namespace's default account"


def _container_faults(container: dict[str, Any]) -> Iterator[str]:
    name, security = container["name"], container.get("securityContext", {})
    if security.get("readOnlyRootFilesystem") is not True:
        yield f"{name}: root filesystem may be written"
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        yield f"{name}: privileges"
    if security.get("capabilities") != {"drop": ["ALL"]}:
        yield f"{name}: capabilities"
    if "runAsUser" in security or security.get("runAsNonRoot") is not True:
        yield f"{name}: may run as root"
    image = container["image"]
    if image.endswith(":latest") or (":" not in image.rpartition("/")[2] and "@" not in image):
        yield f"{name}: image {image}"
