"""One node of the cluster: a network namespace, a mount namespace, and in them containerd, kubelet and kube-proxy.

The mount namespace is held by a process that does nothing. Volumes, container file systems and pod namespaces are
mounted in it alone, so whatever way a node ends, its mounts end with its last process; and `/var/log` and
`/var/lib/kubelet`, which kubelet writes to whatever it is told, are the node's own there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from kpatrol.lab import cgroups
from kpatrol.lab.commands import find_program
from kpatrol.lab.errors import LabError
from kpatrol.lab.netns import enter, run_in
from kpatrol.lab.netplan import Node
from kpatrol.lab.processes import Child
from tests.cluster.children import Children
from tests.cluster.nodefiles import (
    PODS,
    PODS6,
    PodRange,
    cni_config,
    containerd_config,
    kubelet_config,
    node_addresses,
    socket_path,
)
from tests.cluster.template import copy_template, wait_containerd

_OWN_FOLDERS = {"var-log": "/var/log", "var-lib-kubelet": "/var/lib/kubelet"}
_HOLD = """
set -e
mount --make-rprivate /
while [ $# -gt 0 ]; do mkdir -p "$2"; mount --bind "$1" "$2"; shift 2; done
echo held
exec sleep infinity
"""
_HOLDER_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUsers:
    """The kubeconfig files of a node's own programs, and the authority that kubelet's callers are checked by."""

    kubelet: Path
    proxy: Path
    ca: Path


@dataclass(slots=True, kw_only=True)
class KubeNode:
    """A node; `start` brings all of it up. `name` is its name in Kubernetes too."""

    node: Node
    pods: PodRange
    dual: bool
    folder: Path
    children: Children
    programs: Mapping[str, Path]
    users: NodeUsers
    cgroup: str
    _programs: dict[str, Child] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.node.name

    def start(self, *, template: Path) -> None:
        """Hold the namespaces, lay out the files, start containerd. Then `start_kubelet` and `start_proxy`."""
        self.folder.mkdir(parents=True)
        (self.folder / "cni").mkdir()
        (self.folder / "cni" / "10-pods.conflist").write_text(cni_config(self.folder, self.pods))
        (self.folder / "containerd.toml").write_text(containerd_config(self.folder))
        # Nothing of the machine's: a node of the tests knows no server outside.
        (self.folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        kubelet = kubelet_config(
            self.folder, ca=self.users.ca, cgroup=self.cgroup, resolver=self.folder / "resolv.conf"
        )
        (self.folder / "kubelet.yaml").write_text(kubelet)
        copy_template(template, self.folder / "containerd" / "root")
        self._hold()
        self._run("containerd", ["containerd", "-c", str(self.folder / "containerd.toml")])

    def _hold(self) -> None:
        words = []
        for own, covered in _OWN_FOLDERS.items():
            (self.folder / own).mkdir()
            words += [str(self.folder / own), covered]
        unshare = ["unshare", "--mount", "--propagation", "unchanged", "--", "sh", "-c", _HOLD, "sh", *words]
        holder = self._spawn("holder", [*enter(self.node), *unshare])
        end = time.monotonic() + _HOLDER_S
        while "held" not in holder.last_lines():
            if not holder.is_running() or time.monotonic() > end:
                raise LabError(f"{self.name}: its mount namespace was not made: {holder.last_lines()}")
            time.sleep(0.02)

    def inside(self) -> list[str]:
        """What to put before a command so that it runs on the node as the node's own programs do."""
        program = find_program("nsenter") or "nsenter"
        return [
            program,
            f"--net={self.node.namespace}",
            f"--mount=/proc/{self._programs['holder'].pid}/ns/mnt",
            "--",
        ]

    def wait_containerd(self) -> None:
        wait_containerd(socket_path(self.folder), log=self.log("containerd"))

    def start_kubelet(self) -> None:
        """Start it (again)."""
        labels = [f"topology.kubernetes.io/zone={self.node.zone}"] if self.node.zone else []
        self._run(
            "kubelet",
            [
                str(self.programs["kubelet"]),
                f"--config={self.folder / 'kubelet.yaml'}",
                f"--kubeconfig={self.users.kubelet}",
                f"--root-dir={self.folder / 'kubelet'}",
                f"--cert-dir={self.folder / 'kubelet-pki'}",
                f"--hostname-override={self.name}",
                f"--node-ip={node_addresses(self.node, dual=self.dual)}",
                *([f"--node-labels={','.join(labels)}"] if labels else []),
            ],
        )

    def start_proxy(self) -> None:
        """Start it (again): it writes all its rules anew."""
        ranges = ",".join([str(PODS), *([str(PODS6)] if self.dual else [])])
        self._run(
            "kube-proxy",
            [
                str(self.programs["kube-proxy"]),
                f"--kubeconfig={self.users.proxy}",
                f"--hostname-override={self.name}",
                "--proxy-mode=nftables",
                f"--cluster-cidr={ranges}",
                "--nodeport-addresses=primary",
                "--conntrack-max-per-core=0",
                "--conntrack-tcp-timeout-established=0",
                "--conntrack-tcp-timeout-close-wait=0",
            ],
        )

    def flush_services(self) -> None:
        """kill -9 kube-proxy and take its rules away: no service address works from this node until `start_proxy`."""
        self.kill("kube-proxy")
        for family in ("ip", "ip6"):
            script = f"table {family} kube-proxy\ndelete table {family} kube-proxy\n"
            run_in(self.node, ["nft", "-f", "-"], stdin=script)

    def kill(self, program: str) -> None:
        """kill -9 of kubelet, kube-proxy or containerd."""
        asyncio.run(self._programs[program].kill())

    def kill_container(self, container_id: str) -> None:
        """kill -9 of all that runs in a container (`containerd://…`, as its pod's status says)."""
        for pid in self._processes_of(container_id):
            os.kill(pid, signal.SIGKILL)

    def process_of(self, container_id: str) -> int:
        """The id of a container's process."""
        return self._processes_of(container_id)[0]

    def _processes_of(self, container_id: str) -> list[int]:
        own = container_id.rpartition("/")[2]
        for path in cgroups.folders_of(self.cgroup):
            if path.name == own and (pids := (path / "cgroup.procs").read_text().split()):
                return [int(pid) for pid in pids]
        raise LabError(f"{self.name}: no container {container_id} runs")

    def is_free(self, address: str) -> bool:
        """Whether no pod of this node has the address any more."""
        return not (self.folder / "ipam" / "pods" / address).exists()

    def give_next(self, address: str) -> None:
        """The next pod of this node gets this address, if it is free: CNI's host-local gives them out in turn."""
        before = ip_address(address) - 1
        which = 0 if before.version == 4 else 1
        (self.folder / "ipam" / "pods" / f"last_reserved_ip.{which}").write_text(str(before))

    def running(self, program: str) -> bool:
        return program in self._programs and self._programs[program].is_running()

    def log(self, program: str) -> Path:
        return self.folder / f"{program}.log"

    def last_words(self) -> str:
        """The end of each program's log, for error messages."""
        return "\n".join(f"--- {self.name} {c.name}\n{c.last_lines(8)}" for c in self._programs.values())

    def _run(self, name: str, command: Sequence[str]) -> None:
        self._programs[name] = self._spawn(name, [*self.inside(), *command])

    def _spawn(self, name: str, argv: Sequence[str]) -> Child:
        self.folder.mkdir(parents=True, exist_ok=True)
        child = self.children.start(f"{self.name}-{name}", argv, log=self.log(name))
        self._programs[name] = child
        return child


def require_node_programs() -> None:
    """Raise LabError when a program of the nodes is missing, naming its Debian package."""
    wanted = {
        "containerd": "containerd",
        "ctr": "containerd",
        "runc": "runc",
        "nft": "nftables",
        "nsenter": "util-linux",
    }
    missing = sorted({package for name, package in wanted.items() if find_program(name) is None})
    if not Path("/usr/lib/cni/ptp").exists():
        missing.append("containernetworking-plugins")
    if missing:
        raise LabError(f"not installed: {', '.join(missing)} (Debian: apt-get install {' '.join(missing)})")
    if os.geteuid() != 0:
        raise LabError("a cluster of nodes needs root: kubelets and containers cannot do without it")
