"""What Multus gives to pods: a second interface `net1` on a network of its own, told in the pods' annotation.

    with second_interface(cluster, pods) as addresses:      # node → the addresses of its pod's net1

Each node's pod hangs on a cable (as with ptp), routed by the nodes over the pods' network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from kpatrol.lab.netns import run_in
from tests.cluster.cluster import Cluster
from tests.cluster.node import KubeNode

ANNOTATION = "k8s.v1.cni.cncf.io/network-status"
_WIDE = (IPv4Network("10.98.0.0/16"), IPv6Network("fd4b:5041:5452:3000::/56"))
_LONG = (24, 64)
_OUTER = "second"


@contextmanager
def second_interface(cluster: Cluster, pods: Mapping[str, Any]) -> Iterator[dict[str, list[str]]]:
    """While the block runs. `pods` is node → its pod, as the API server has it."""
    networks = {name: _networks(number) for number, name in enumerate(sorted(pods), start=1)}
    addresses = {name: [str(network[2]) for network in own] for name, own in networks.items()}
    try:
        for name, pod in pods.items():
            node = cluster.nodes[name]
            pid = node.process_of(pod["status"]["containerStatuses"][0]["containerID"])
            run_in(node.node, ["sh", "-es"], stdin=_cable(networks[name], pid=pid))
            routes = [_route(cluster.nodes[other], networks[other]) for other in pods if other != name]
            run_in(node.node, ["sh", "-es"], stdin="\n".join(routes))
            _annotate(cluster, pod, f"{ANNOTATION}={_status(addresses[name])}")
        yield addresses
    finally:
        for name, pod in pods.items():
            # The other end of the cable goes with this one.
            run_in(cluster.nodes[name].node, ["sh", "-c", f"ip link delete {_OUTER} 2>/dev/null || true"])
            _annotate(cluster, pod, f"{ANNOTATION}-")


def _networks(number: int) -> list[IPv4Network | IPv6Network]:
    return [
        next(net for i, net in enumerate(wide.subnets(new_prefix=long)) if i == number)
        for wide, long in zip(_WIDE, _LONG, strict=True)
    ]


def _cable(networks: list[IPv4Network | IPv6Network], *, pid: int) -> str:
    inside = f"nsenter --net=/proc/{pid}/ns/net ip"
    lines = [f"ip link add {_OUTER} type veth peer name net1 netns {pid}"]
    for network in networks:
        quiet = " nodad" if network.version == 6 else ""
        lines.append(f"ip address add {network[1]}/{network.prefixlen} dev {_OUTER}{quiet}")
        lines.append(f"{inside} address add {network[2]}/{network.prefixlen} dev net1{quiet}")
    lines += [f"ip link set {_OUTER} up", f"{inside} link set net1 up"]
    for network, wide in zip(networks, _WIDE, strict=True):
        lines.append(f"{inside} route replace {wide} via {network[1]} dev net1")
    return "\n".join(lines)


def _route(node: KubeNode, networks: list[IPv4Network | IPv6Network]) -> str:
    four, six = networks
    return f"ip route replace {four} via {node.node.address}\nip -6 route replace {six} via {node.node.address6}"


def _status(addresses: list[str]) -> str:
    default = {"name": "pods", "interface": "eth0", "default": True, "ips": []}
    return json.dumps([default, {"name": "default/second", "interface": "net1", "ips": addresses}])


def _annotate(cluster: Cluster, pod: Any, annotation: str) -> None:
    meta = pod["metadata"]
    cluster.kubectl("annotate", "pod", meta["name"], "-n", meta["namespace"], annotation, "--overwrite")
