"""From Kubernetes objects to the address book: what tasks may be run against. Pure; objects are plain JSON."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.addressbook import AddressBook

Object = Mapping[str, Any]
Objects = Mapping[str, Object]
MULTUS_ANNOTATIONS = ("k8s.v1.cni.cncf.io/network-status", "k8s.v1.cni.cncf.io/networks-status")
DNS_LABELS = ("k8s-app=kube-dns", "kubernetes.io/name=CoreDNS")
DNS_NAMESPACE = "kube-system"
_HTTP = "http"


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """How the agents' own objects are called: ``agents`` is the workload, its Services end in -ipv4 and -ipv6."""

    namespace: str
    agents: str
    multus_annotations: tuple[str, ...] = MULTUS_ANNOTATIONS
    dns_labels: tuple[str, ...] = DNS_LABELS


def book(*, where: Where, services: Objects, ingresses: Objects, pods: Iterable[Object]) -> AddressBook:
    """The addresses of the agents' Services and Ingress, their further interfaces, and of every Service as DNS."""
    own = {family: services.get(f"{where.namespace}/{where.agents}-ipv{family}") for family in ("4", "6")}
    found = {family: service for family, service in own.items() if service is not None}
    ports = [port for service in found.values() for port in [_port(service)] if port is not None]
    balanced = {family: address for family, s in found.items() if (address := _balancer(s, family))}
    return AddressBook(
        cluster_ip={family: address for family, s in found.items() if (address := _cluster_ip(s, family))},
        service_port=int(ports[0]["port"]) if ports else 80,
        node_ports={f: int(p["nodePort"]) for f, s in found.items() if (p := _port(s)) and p.get("nodePort")},
        load_balancer=balanced,
        load_balancer_port=int(ports[0]["port"]) if ports else 80,
        ingress_url=ingress_url(ingresses.get(f"{where.namespace}/{where.agents}")),
        multus={agent_of(pod): further for pod in pods if (further := interfaces(pod, where.multus_annotations))},
        cluster_dns=tuple(a for name, s in sorted(services.items()) if _is_dns(name, s, where) for a in _addresses(s)),
        dns_services={name: _addresses(service) for name, service in services.items() if _addresses(service)},
    )


def agent_of(pod: Object) -> str:
    """The name of the agent in a pod of the default workload: its node's."""
    return str((pod.get("spec") or {}).get("nodeName") or pod["metadata"]["name"])


def _port(service: Object) -> Object | None:
    ports: Sequence[Object] = service["spec"].get("ports") or ()
    return next((port for port in ports if port.get("name") == _HTTP), ports[0] if ports else None)


def _addresses(service: Object) -> tuple[str, ...]:
    """A Service's cluster addresses; a headless one has none."""
    spec = service["spec"]
    given = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return tuple(address for address in given if address and address != "None")


def _of_family(addresses: Iterable[str], family: str) -> str:
    return next((a for a in addresses if str(ipaddress.ip_address(a).version) == family), "")


def _cluster_ip(service: Object, family: str) -> str:
    return _of_family(_addresses(service), family)


def _balancer(service: Object, family: str) -> str:
    """The load balancer's address of the family; where it has only a name, the name."""
    given = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    address = _of_family((entry["ip"] for entry in given if entry.get("ip")), family)
    return address or next((str(entry["hostname"]) for entry in given if entry.get("hostname")), "")


def ingress_url(ingress: Object | None) -> str:
    """The URL under which an Ingress is reached: its first address and its first rule's first path."""
    if ingress is None:
        return ""
    spec = ingress.get("spec") or {}
    given = ((ingress.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    address = next((entry.get("ip") or entry.get("hostname") for entry in given), "")
    if not address:
        return ""
    rules = spec.get("rules") or [{}]
    paths = (rules[0].get("http") or {}).get("paths") or [{}]
    host = f"[{address}]" if ":" in address else address
    return f"{'https' if spec.get('tls') else 'http'}://{host}{paths[0].get('path') or '/'}"


def interfaces(pod: Object, annotations: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """A pod's further interfaces and their addresses, from Multus' annotation; the default network is left out."""
    given = pod["metadata"].get("annotations") or {}
    text = next((given[name] for name in annotations if given.get(name)), "")
    try:
        networks = json.loads(text) if text else []
    except ValueError:
        return {}
    return {
        str(network["interface"]): tuple(network["ips"])
        for network in networks
        if isinstance(network, dict) and network.get("interface") and network.get("ips") and not network.get("default")
        if network["interface"] != "eth0"
    }


def _is_dns(name: str, service: Object, where: Where) -> bool:
    labels = service["metadata"].get("labels") or {}
    pairs = (label.partition("=") for label in where.dns_labels)
    return name.startswith(f"{DNS_NAMESPACE}/") and any(labels.get(key) == value for key, _, value in pairs)
