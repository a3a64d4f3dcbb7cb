"""Builds the network of `netplan` out of network namespaces, enters it, and takes it down.

Processes enter by nsenter and keep the lab's mounts; `ip netns exec` would give them other ones.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from kpatrol.lab.commands import find_program, run_command
from kpatrol.lab.errors import CommandFailed, LabError
from kpatrol.lab.netplan import (
    Mode,
    NetworkPlan,
    Node,
    NodeSpec,
    control_port,
    free_control_range,
    node_script,
    plan_network,
    root_batch,
    switch_script,
)
from kpatrol.lab.services import Service, render_services
from kpatrol.lab.state import LabState, locked

_ROOT_NAMESPACES = "/run/netns"
_CONTROL_CHECK_S = 3.0
# Not there when the kernel was started without IPv6.
_IPV6 = Path("/proc/sys/net/ipv6")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network that stands. `gateway` is the lab's own address on the control path."""

    plan: NetworkPlan

    @property
    def mode(self) -> Mode:
        return self.plan.mode

    @property
    def gateway(self) -> str:
        return self.plan.gateway

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self.plan.nodes

    def enter(self, node: str) -> list[str]:
        """What to put before a command so that it runs on that node; nothing in loopback mode."""
        return enter(self.nodes[node])

    def install_services(self, services: Sequence[Service]) -> None:
        """Make exactly these services reachable from every node; those of an earlier call go."""
        if self.mode == "loopback":
            raise LabError("service addresses need network namespaces; in loopback mode there are none")
        for node in self.nodes.values():
            forward = "echo 1 > /proc/sys/net/ipv4/ip_forward\n"
            forward += "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding\n" if node.address6 else ""
            script = render_services(services, own=node, nodes=dict(self.nodes))
            run_in(node, ["sh", "-s"], stdin=f"set -e\n{forward}nft -f - <<'END'\n{script}\nEND\n")

    def close(self) -> None:
        """Take it down; processes still inside keep their namespace until they end."""
        if self.mode == "loopback":
            return
        run_command(["ip", "link", "delete", "group", str(self.plan.link_group)])
        for path in _namespace_paths(self.plan):
            _delete_namespace(path, self.mode)


def enter(node: Node) -> list[str]:
    """See `Network.enter`."""
    if node.namespace is None:
        return []
    return [find_program("nsenter") or "nsenter", f"--net={node.namespace}", "--"]


def run_in(node: Node, argv: Sequence[str], *, stdin: str = "") -> str:
    """Run a program on a node to its end and return its output; raises `CommandFailed`."""
    return run_command([*enter(node), *argv], stdin=stdin)


def build_network(*, lab: LabState, mode: Mode, specs: Sequence[NodeSpec], ipv6: bool | None = None) -> Network:
    """Build the network of all `specs` (agents and targets alike), recorded in the lab's manifest beforehand.

    `ipv6` None means: where the kernel has it.
    """
    if mode == "loopback":
        return Network(plan=plan_network(lab_id=lab.id, mode=mode, specs=specs))
    if mode == "userns":
        run_command(["ip", "link", "set", "lo", "up"])
    namespaces = _ROOT_NAMESPACES if mode == "root" else str(lab.subfolder("netns"))
    # Held until the range is on an interface, so that no other lab of this user chooses the same.
    with locked(lab.base):
        control = free_control_range(used_ranges(), first=int(lab.id, 16))
        ipv6 = _IPV6.exists() if ipv6 is None else ipv6
        plan = plan_network(lab_id=lab.id, mode=mode, specs=specs, control=control, namespaces=namespaces, ipv6=ipv6)
        if mode == "root":  # in a user namespace they go with the last process and have no name outside
            _register(lab, plan)
        for path in _namespace_paths(plan):
            _add_namespace(path, mode)
        run_command(["ip", "-batch", "-"], stdin=root_batch(plan, switch=_switch_path(plan)))
    run_command(["nsenter", f"--net={_switch_path(plan)}", "--", "sh", "-es"], stdin=switch_script(plan))
    groups = "0 2147483647" if mode == "root" else "0 0"  # a user namespace knows the one group that is mapped
    for node in plan.nodes.values():
        run_in(node, ["sh", "-es"], stdin=node_script(plan, node, groups=groups))
    return Network(plan=plan)


def used_ranges() -> list[IPv4Network]:
    """Every IPv4 range that the lab's own namespace has an address in or a route to, default routes aside."""
    routes: list[dict[str, Any]] = json.loads(run_command(["ip", "-json", "-4", "route", "show", "table", "all"]))
    wanted = {str(route["dst"]) for route in routes if route["dst"] not in {"default", "0.0.0.0/0"}}
    return [IPv4Network(text, strict=False) for text in sorted(wanted)]


async def check_control_path(network: Network) -> None:
    """Prove that a node reaches the lab over the control path; a firewall on the machine may forbid it."""
    if network.mode == "loopback" or not network.nodes:
        return
    node = next(iter(network.nodes.values()))
    arrived = asyncio.Event()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        writer.close()

    server = await asyncio.start_server(answer, network.gateway, 0)
    port = server.sockets[0].getsockname()[1]
    # Of all programs that can connect, only the interpreter we run on is sure to be there.
    code = f"import socket; socket.create_connection(({network.gateway!r}, {port}), timeout={_CONTROL_CHECK_S}).close()"
    client = await asyncio.create_subprocess_exec(
        *enter(node), sys.executable, "-c", code, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    async with server:
        code_of_exit = await client.wait()
    if code_of_exit != 0 or not arrived.is_set():
        raise LabError(
            f"{node.name} cannot reach {network.gateway} on the bridge {network.plan.bridge}: "
            f"a firewall of this machine seems to refuse it; allow input from interfaces named kp*"
        )


def _register(lab: LabState, plan: NetworkPlan) -> None:
    for path in _namespace_paths(plan):
        lab.register_namespace(Path(path).name)
    for link in [plan.bridge, *(control_port(plan, number) for number in range(1, len(plan.nodes) + 1))]:
        lab.register_link(link)


def _switch_path(plan: NetworkPlan) -> str:
    folder = next((Path(node.namespace).parent for node in plan.nodes.values() if node.namespace), None)
    return f"{folder or _ROOT_NAMESPACES}/{plan.switch_name}"


def _namespace_paths(plan: NetworkPlan) -> list[str]:
    return [_switch_path(plan), *(node.namespace for node in plan.nodes.values() if node.namespace)]


def _add_namespace(path: str, mode: Mode) -> None:
    if mode == "root":
        run_command(["ip", "netns", "add", Path(path).name])
        return
    # Without the right to write to /run: the same thing as ip netns does, in a folder of the lab.
    Path(path).touch(mode=0o600)
    run_command(["unshare", f"--net={path}", "true"])


def _delete_namespace(path: str, mode: Mode) -> None:
    try:
        if mode == "root":
            run_command(["ip", "netns", "delete", Path(path).name])
        else:
            run_command(["umount", "--lazy", path])
    except CommandFailed as failed:
        if Path(path).exists():
            raise LabError(f"cannot remove the namespace {path}: {failed}") from failed
