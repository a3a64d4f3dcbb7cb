"""The lab's network on paper: who has which address, and the scripts that make it so. Pure, no effects.

Two separate paths per node. `data` joins all nodes over a bridge in a namespace of its own: probes and faults live here
and nowhere else. `ctl` joins each node with the lab's own namespace, where Kafka runs, and its ports are isolated from
each other, so no probe can take this way and no fault can touch the instrument's own traffic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

from kpatrol.lab.errors import LabError

Mode = Literal["root", "userns", "loopback"]

# The data path exists inside the lab's namespaces only, so these may be the same in every lab and collide with nothing.
DATA = IPv4Network("10.201.0.0/16")
DATA6 = IPv6Network("fd4b:5041:5452:1::/64")
SERVICES = IPv4Network("10.203.0.0/16")
SERVICES6 = IPv6Network("fd4b:5041:5452:3::/64")
# The control path ends in the lab's own namespace: one of these that the machine does not use yet.
CONTROL = IPv4Network("10.202.0.0/16")
CONTROL_PREFIX = 21
MAX_NODES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """What the caller asks for: an agent or a target, with the labels it is to have."""

    name: str
    zone: str = ""
    rack: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node. `address` and `address6` are on the data path; `ctl_address` is on the way to Kafka.

    `namespace` is the path of its network namespace, and None in loopback mode. `address6` is None there too (the
    loopback interface has one IPv6 address only) and where the kernel knows no IPv6.
    """

    name: str
    zone: str
    rack: str
    address: str
    address6: str | None
    ctl_address: str
    namespace: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """Everything needed to build the network. `gateway` is where the nodes find Kafka."""

    mode: Mode
    lab_id: str
    gateway: str
    control: IPv4Network | None
    nodes: Mapping[str, Node]

    @property
    def switch_name(self) -> str:
        """Name of the namespace that holds the data bridge."""
        return f"kp-{self.lab_id}-switch"

    @property
    def bridge(self) -> str:
        """Name of the control bridge in the lab's own namespace."""
        return f"kp{self.lab_id}ctl"

    @property
    def link_group(self) -> int:
        """All interfaces in the lab's own namespace are of this group: deleted at once, which takes as long as one."""
        return 0x4B000000 + int(self.lab_id, 16)


def free_control_range(used: Iterable[IPv4Network], *, first: int = 0) -> IPv4Network:
    """A range that overlaps none of the `used` ones; the search starts at candidate `first`."""
    taken = list(used)
    candidates = list(CONTROL.subnets(new_prefix=CONTROL_PREFIX))
    for offset in range(len(candidates)):
        candidate = candidates[(first + offset) % len(candidates)]
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise LabError(f"no free range left in {CONTROL} for the control network; stop other labs or free a part of it")


def plan_network(
    *,
    lab_id: str,
    mode: Mode,
    specs: Sequence[NodeSpec],
    control: IPv4Network | None = None,
    namespaces: str = "/run/netns",
    ipv6: bool = True,
) -> NetworkPlan:
    """Addresses for all nodes, in the order given. `control` is required except in loopback mode."""
    names = [spec.name for spec in specs]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise LabError(f"node names must differ, found twice: {', '.join(doubled)}")
    if len(specs) > MAX_NODES:
        raise LabError(f"at most {MAX_NODES} nodes on one machine, asked for {len(specs)}")
    if mode == "loopback":
        nodes = [_loopback_node(spec, number, lab_id) for number, spec in enumerate(specs, start=1)]
        return NetworkPlan(
            mode=mode, lab_id=lab_id, gateway="127.0.0.1", control=None, nodes={node.name: node for node in nodes}
        )
    if control is None:
        raise LabError("a network of namespaces needs a control range")
    nodes = [
        Node(
            name=spec.name,
            zone=spec.zone,
            rack=spec.rack,
            address=str(DATA[number]),
            address6=str(DATA6[number]) if ipv6 else None,
            ctl_address=str(control[1 + number]),
            namespace=f"{namespaces}/kp-{lab_id}-{number}",
        )
        for number, spec in enumerate(specs, start=1)
    ]
    return NetworkPlan(
        mode=mode, lab_id=lab_id, gateway=str(control[1]), control=control, nodes={node.name: node for node in nodes}
    )


def _loopback_node(spec: NodeSpec, number: int, lab_id: str) -> Node:
    # All of 127.0.0.0/8 is local on Linux. The second byte comes from the lab, so that two labs seldom meet.
    block = 1 + int(lab_id, 16) % 250
    address = IPv4Address("127.0.0.0") + (block << 16) + number
    return Node(
        name=spec.name,
        zone=spec.zone,
        rack=spec.rack,
        address=str(address),
        address6=None,
        ctl_address="127.0.0.1",
        namespace=None,
    )


def root_batch(plan: NetworkPlan, *, switch: str) -> str:
    """`ip -batch` for the lab's own namespace: the control bridge and both cables of every node.

    `switch` is the path of the data bridge's namespace. All namespaces exist already.
    """
    assert plan.control is not None
    lines = [
        f"link add {plan.bridge} group {plan.link_group} type bridge forward_delay 0 mcast_snooping 0",
        f"addr add {plan.gateway}/{plan.control.prefixlen} dev {plan.bridge}",
        f"link set {plan.bridge} up",
    ]
    for number, node in enumerate(plan.nodes.values(), start=1):
        port = control_port(plan, number)
        lines += [
            f"link add {port} group {plan.link_group} type veth peer name ctl netns {node.namespace}",
            f"link set {port} master {plan.bridge}",
            f"link set {port} type bridge_slave isolated on",
            f"link set {port} up",
            f"link add data{number} netns {switch} type veth peer name data netns {node.namespace}",
        ]
    return "\n".join(lines) + "\n"


def control_port(plan: NetworkPlan, number: int) -> str:
    """The host's end of a node's control cable; 15 characters at most."""
    return f"kp{plan.lab_id}n{number}"


def switch_script(plan: NetworkPlan) -> str:
    """Shell script for the data bridge's namespace."""
    lines = ["link set lo up", "link add kpdata type bridge forward_delay 0 mcast_snooping 0", "link set kpdata up"]
    for number in range(1, len(plan.nodes) + 1):
        lines += [f"link set data{number} master kpdata", f"link set data{number} up"]
    # The bridge only forwards and has no address: it need not send anything of its own over IPv6 either.
    ipv6 = any(node.address6 for node in plan.nodes.values())
    return (_write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") if ipv6 else "") + _batch(lines)


def node_script(plan: NetworkPlan, node: Node, *, groups: str) -> str:
    """Shell script for one node's namespace. `groups` is the range of group ids that may open ping sockets.

    One segment a packet on the wire: a veth cable would carry 64 KiB pieces in one, and a "packet" lost would be forty.
    """
    assert plan.control is not None
    lines = [
        "link set lo up",
        f"addr add {node.address}/{DATA.prefixlen} dev data",
        "link set data mtu 1500 gso_max_segs 1 up",
        f"addr add {node.ctl_address}/{plan.control.prefixlen} dev ctl",
        "link set ctl up",
        f"route add {SERVICES} dev data src {node.address}",
    ]
    if node.address6 is not None:
        lines.append(f"addr add {node.address6}/{DATA6.prefixlen} dev data nodad")
        lines.append(f"route add {SERVICES6} dev data src {node.address6}")
    return (
        _write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
        + _write("/proc/sys/net/ipv4/ping_group_range", groups)
        + _batch(lines)
    )


def service_address(number: int) -> IPv4Address:
    """The virtual address of the service with this number, from 1."""
    return SERVICES[number]


def service_address6(number: int) -> IPv6Address:
    return SERVICES6[number]


def _batch(lines: Iterable[str]) -> str:
    return "ip -batch - <<'END'\n" + "\n".join(lines) + "\nEND\n"


def _write(path: str, value: str) -> str:
    return f"echo '{value}' > {path}\n"
