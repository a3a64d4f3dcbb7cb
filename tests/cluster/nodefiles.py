"""What the programs of one node are told: containerd's, CNI's and kubelet's settings as text. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import yaml

from kpatrol.lab.netplan import Node

PODS = IPv4Network("10.244.0.0/16")
PODS6 = IPv6Network("fd4b:5041:5452:1000::/56")
SERVICES = IPv4Network("10.96.0.0/16")
SERVICES6 = IPv6Network("fd4b:5041:5452:20::/112")
LOAD_BALANCERS = IPv4Network("10.97.0.0/24")
LOAD_BALANCERS6 = IPv6Network("fd4b:5041:5452:21::/112")
API_SERVICE = str(SERVICES[1])
DNS_SERVICE = str(SERVICES[10])
PAUSE = "docker.io/local/pause:1"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRange:
    """The addresses of one node's pods; `ipv6` None in a cluster of one family."""

    ipv4: IPv4Network
    ipv6: IPv6Network | None

    def networks(self) -> list[IPv4Network | IPv6Network]:
        return [self.ipv4, *([self.ipv6] if self.ipv6 else [])]


def pod_range(number: int, *, dual: bool) -> PodRange:
    """Of node `number`, from 1."""
    four = next(net for i, net in enumerate(PODS.subnets(new_prefix=24)) if i == number)
    if not dual:
        return PodRange(ipv4=four, ipv6=None)
    six = next(net for i, net in enumerate(PODS6.subnets(new_prefix=64)) if i == number)
    return PodRange(ipv4=four, ipv6=six)


def node_addresses(node: Node, *, dual: bool) -> str:
    """For --node-ip: both families in a cluster of both."""
    return f"{node.address},{node.address6}" if dual and node.address6 else node.address


def pods_as_nodes(nodes: dict[str, tuple[Node, PodRange]]) -> dict[str, Node]:
    """The nodes with their pods' ranges in place of their own addresses: faults then speak of pods."""
    return {
        name: Node(
            name=name,
            zone=node.zone,
            rack=node.rack,
            address=str(pods.ipv4),
            address6=str(pods.ipv6) if pods.ipv6 else None,
            ctl_address=node.ctl_address,
            namespace=node.namespace,
        )
        for name, (node, pods) in nodes.items()
    }


def containerd_config(folder: Path) -> str:
    """Everything of containerd below one folder; pods' namespaces too, so that no name of ours lies in /run/netns."""
    return f"""version = 2
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{socket_path(folder)}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
"""


def socket_path(folder: Path) -> Path:
    """A socket's path has 107 characters at most, so it lies high up."""
    return folder / "c.sock"


def cni_config(folder: Path, pods: PodRange) -> str:
    """A cable for each pod (ptp): all that pods send is routed by the node, so service addresses work between two pods
    of one node too, without the kernel's bridge filter."""
    families = [(str(pods.ipv4), "0.0.0.0/0")] + ([(str(pods.ipv6), "::/0")] if pods.ipv6 else [])
    ipam: dict[str, Any] = {
        "type": "host-local",
        "dataDir": str(folder / "ipam"),
        "ranges": [[{"subnet": subnet}] for subnet, _ in families],
        "routes": [{"dst": everywhere} for _, everywhere in families],
    }
    plugins = [
        {"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}, indent=1)


def kubelet_config(folder: Path, *, ca: Path, cgroup: str, resolver: Path) -> str:
    """No limits on a whole node and no eviction: the machine is shared by all nodes."""
    return yaml.safe_dump(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{cgroup}",
            "cgroupsPerQOS": True,
            "enforceNodeAllocatable": [],
            "localStorageCapacityIsolation": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(ca)},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{socket_path(folder)}",
            "clusterDNS": [DNS_SERVICE],
            "clusterDomain": "cluster.local",
            "resolvConf": str(resolver),
            "evictionHard": {"memory.available": "1Mi"},
            "imageGCHighThresholdPercent": 100,
            "imageMinimumGCAge": "24h",
            "podLogsDir": str(folder / "pods"),
            "nodeStatusUpdateFrequency": "5s",
            "nodeLeaseDurationSeconds": 20,
            "syncFrequency": "10s",
            "fileCheckFrequency": "0s",
            "httpCheckFrequency": "0s",
            "volumeStatsAggPeriod": "0s",
        }
    )


def node_network_script(own: Node, *, dual: bool, others: list[tuple[Node, PodRange]]) -> str:
    """Shell script in the node's namespace: it routes for pods, and what pods send to the control path (Kafka) leaves
    under the node's own address there, as in a cluster whose pods have no addresses outside."""
    lines = [
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter",
        f"ip route replace {SERVICES} dev data src {own.address}",
        f"ip route replace {LOAD_BALANCERS} dev data src {own.address}",
    ]
    lines += [f"ip route replace {pods.ipv4} via {node.address} dev data" for node, pods in others]
    if dual:
        lines.append("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
        lines.append(f"ip -6 route replace {SERVICES6} dev data src {own.address6}")
        lines.append(f"ip -6 route replace {LOAD_BALANCERS6} dev data src {own.address6}")
        lines += [f"ip -6 route replace {p.ipv6} via {node.address6} dev data" for node, p in others if p.ipv6]
    leaving = 'chain leaving { type nat hook postrouting priority srcnat; policy accept; oifname "ctl" masquerade; }'
    nft = f"table ip kpatrol_outside {{\n{leaving}\n}}"
    return "\n".join([*lines, f"nft -f - <<'END'\n{nft}\nEND"]) + "\n"
