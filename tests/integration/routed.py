"""A router in the lab's data path: one node comes to lie behind it, all others stay on the bridge. IPv4 only.

The namespace of the bridge becomes the router: the node's cable leaves the bridge, and each side finds the other by
proxy ARP, so no node is told anything.
"""

from pathlib import Path

from kpatrol.lab.commands import run_command
from kpatrol.lab.netns import Network, enter, run_in
from kpatrol.lab.netplan import DATA

# What the router answers from when a packet's hop limit ends at it.
ROUTER = str(DATA[-2])
_SETTINGS = ("conf/all/forwarding=1", "conf/all/rp_filter=0", "conf/default/rp_filter=0", "icmp_ratelimit=0")


def put_behind_a_router(network: Network, name: str) -> None:
    """From now on packets to and from that node pass a router, `ROUTER`."""
    node = network.nodes[name]
    cable = f"data{list(network.nodes).index(name) + 1}"
    settings = [
        *_SETTINGS,
        *(f"conf/{link}/{what}" for link in (cable, "kpdata") for what in ("proxy_arp=1", "rp_filter=0")),
    ]
    settings += [f"neigh/{link}/proxy_delay=0" for link in (cable, "kpdata")]
    lines = [f"echo {value} > /proc/sys/net/ipv4/{path}" for path, value in (s.split("=") for s in settings)]
    lines += [
        f"ip link set {cable} nomaster",
        f"ip addr add {ROUTER}/32 dev {cable}",
        f"ip addr add {ROUTER}/32 dev kpdata",
        f"ip route add {node.address}/32 dev {cable} src {ROUTER}",
        f"ip route add {DATA} dev kpdata src {ROUTER}",
    ]
    _in_switch(network, ["sh", "-es"], "\n".join(lines) + "\n")
    # What a node has learnt of the bridge's time is wrong now.
    for each in network.nodes.values():
        run_in(each, ["ip", "neigh", "flush", "dev", "data"])


def drop_behind_the_router(network: Network, rule: str) -> None:
    """What is forwarded and meets the nftables rule goes no further, and nobody is told."""
    table = f"table inet routed {{ chain through {{ type filter hook forward priority 0; {rule} counter drop; }}; }}\n"
    _in_switch(network, ["nft", "-f", "-"], table)


def _in_switch(network: Network, command: list[str], stdin: str) -> None:
    node = next(iter(network.nodes.values()))
    assert node.namespace is not None
    switch = str(Path(node.namespace).parent / network.plan.switch_name)
    there = [part if part != f"--net={node.namespace}" else f"--net={switch}" for part in enter(node)]
    run_command([*there, *command], stdin=stdin)
