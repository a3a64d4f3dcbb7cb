"""Service addresses of the lab, as kube-proxy would make them: nftables rules in the namespace of every node.

`clusterip`: a virtual address; the client's own node picks a member at random and rewrites the packet.
`nodeport`: the same port on every node's own address; the node that was asked picks a member, and when that is another
node it forwards under its own address, so the answer comes back the same way. A port of a service address that no
service has is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kpatrol.lab.errors import LabError
from kpatrol.lab.netplan import SERVICES, SERVICES6, Node

TABLE = "kpatrol_services"
Protocol = Literal["tcp", "udp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """`members` are node names. A cluster IP has an `address` (and perhaps `address6`), a node port has none."""

    name: str
    kind: Literal["clusterip", "nodeport"]
    port: int
    target_port: int
    members: tuple[str, ...]
    protocol: Protocol = "tcp"
    address: str | None = None
    address6: str | None = None

    def __post_init__(self) -> None:
        if not self.members:
            raise LabError(f"service {self.name}: needs at least one member")
        if (self.kind == "clusterip") != (self.address is not None):
            raise LabError(f"service {self.name}: a clusterip has an address, a nodeport has none")


def render_services(services: Sequence[Service], *, own: Node, nodes: dict[str, Node]) -> str:
    """The nft script of one node; replaces what was installed before."""
    rules = [rule for service in services for rule in _rules(service, nodes)]
    listed = "\n".join(f"    {rule}" for rule in rules)
    return f"""
add table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
  chain pick {{
{listed}
  }}
  chain own_requests {{
    type nat hook output priority -100; policy accept;
    jump pick
  }}
  chain foreign_requests {{
    type nat hook prerouting priority -100; policy accept;
    iifname "data" jump pick
  }}
  chain unserved {{
    type filter hook output priority 0; policy accept;
    ip daddr {SERVICES} meta l4proto tcp reject with tcp reset
    ip6 daddr {SERVICES6} meta l4proto tcp reject with tcp reset
    ip daddr {SERVICES} reject
    ip6 daddr {SERVICES6} reject
  }}
  chain leaving {{
    type nat hook postrouting priority 100; policy accept;
    oifname "data" ct status dnat ip saddr != {own.address} masquerade
    {f'oifname "data" ct status dnat ip6 saddr != {own.address6} masquerade' if own.address6 else ""}
  }}
}}
"""


def _rules(service: Service, nodes: dict[str, Node]) -> list[str]:
    """One rule for each address family that the service and the nodes have."""
    members = [nodes[name] for name in service.members]
    ipv4, ipv6 = [node.address for node in members], [node.address6 for node in members if node.address6]
    if service.kind == "nodeport":
        # A node answers for its own addresses only; those of the control path carry no service.
        own4, own6 = [n.address for n in nodes.values()], [n.address6 for n in nodes.values() if n.address6]
        match4, match6 = f"fib daddr type local ip daddr {_set(own4)}", f"fib daddr type local ip6 daddr {_set(own6)}"
    else:
        match4, match6 = f"ip daddr {service.address}", f"ip6 daddr {service.address6}"
    rules = [_rule(service, family="ip", match=match4, members=ipv4)]
    if ipv6 and (service.kind == "nodeport" or service.address6 is not None):
        rules.append(_rule(service, family="ip6", match=match6, members=ipv6))
    return rules


def _rule(service: Service, *, family: str, match: str, members: Sequence[str]) -> str:
    entries = ", ".join(f"{i} : {address} . {service.target_port}" for i, address in enumerate(members))
    pick = f"numgen random mod {len(members)} map {{ {entries} }}"
    return f"{match} {service.protocol} dport {service.port} dnat {family} to {pick}"


def _set(addresses: Sequence[str]) -> str:
    return "{ " + ", ".join(addresses) + " }"
