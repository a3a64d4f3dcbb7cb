"""A real Kubernetes cluster on one machine: a control plane and nodes in network namespaces, as root.

    from tests.cluster.cluster import running_cluster

    with running_cluster(nodes=3) as cluster:                # 15 s warm; the first time minutes (programs, images)
        cluster.kubectl("get", "nodes")                       # as the administrator
        cluster.kubeconfig                                    # for kubernetes.client, helm, …: reachable from the test
        cluster.nodes["node-1"].flush_services()              # kube-proxy dead, its rules gone; start_proxy() mends it
        cluster.nodes["node-2"].kill("kubelet")
        number = cluster.begin_fault("ingress node-3 loss=2%")   # kpatrol.lab.faults; egress and pairs speak of pods
        cluster.end_fault(number)
        cluster.add_node()                                    # one of the `spare` ones joins
        cluster.gateway                                       # the machine's own address as pods see it (Kafka, …)
        cluster.stop_apiserver(); cluster.start_apiserver()   # kill -9; returns when it is ready again
        cluster.peer                                          # with peer_nodes=N: a second cluster beside it, routed

Pods reach each other (10.244.N.0/24, routed), services (10.96.0.0/16, kube-proxy in nftables mode) and the machine's
side of the control path; nothing else of the machine or beyond. `python -m tests.cluster up` gives a person the same.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kpatrol.lab import cgroups
from kpatrol.lab.errors import CommandFailed, LabError
from kpatrol.lab.inject import FaultCount
from kpatrol.lab.leftovers import clean_leftovers, tear_down
from kpatrol.lab.netns import Network, build_network, enter, run_in
from kpatrol.lab.netplan import Node, NodeSpec
from kpatrol.lab.processes import Child
from kpatrol.lab.state import LabState, base_folder
from tests.cluster.access import ADMINISTRATORS, Access
from tests.cluster.apiserver import read_audit, wait_ready
from tests.cluster.binaries import ensure
from tests.cluster.breaking import Faults
from tests.cluster.children import Children
from tests.cluster.controlplane import (
    ApiOptions,
    apiserver_arguments,
    controller_manager_arguments,
    etcd_arguments,
    scheduler_arguments,
    write_audit_policy,
)
from tests.cluster.dns import dns_server
from tests.cluster.images import Say, build_images
from tests.cluster.kubectl import Kubectl
from tests.cluster.node import KubeNode, NodeUsers, require_node_programs
from tests.cluster.nodefiles import (
    API_SERVICE,
    SERVICES,
    SERVICES6,
    PodRange,
    node_network_script,
    pod_range,
)
from tests.cluster.template import containerd_template

PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "pause",
    "coredns",
)
CONTROL, PEER_CONTROL = "control", "peer-control"
_PORT = 6443
READY_S = 180.0
_WEIGHT = 16


@dataclass(slots=True, kw_only=True)
class ControlProgram:
    """A program of the control plane, and how to start it again."""

    start: Callable[[], Child]
    child: Child


@dataclass(slots=True, kw_only=True)
class Cluster:
    """A running cluster; see the module."""

    id: str
    folder: Path
    network: Network
    access: Access
    url: str
    kubeconfig: Path
    audit_log: Path
    commands: Kubectl
    dual: bool
    nodes: dict[str, KubeNode]
    spare: list[KubeNode]
    template: Path
    faults: Faults
    lab: LabState = field(repr=False)
    children: Children = field(repr=False)
    control: dict[str, ControlProgram] = field(repr=False)
    peer: Cluster | None = None

    def stop_apiserver(self) -> None:
        """kill -9 of the API server."""
        asyncio.run(self.control["kube-apiserver"].child.kill())

    def start_apiserver(self) -> None:
        """Start it again and wait until it is ready."""
        api = self.control["kube-apiserver"]
        api.child = api.start()
        wait_ready(self.url, ca=self.access.files.ca, children=[api.child])

    @property
    def gateway(self) -> str:
        """The machine's own address on the control path: what listens here is reached from every pod."""
        return self.network.gateway

    def kubectl(self, *arguments: str, stdin: str = "", kubeconfig: Path | None = None, timeout_s: float = 60) -> str:
        """Real kubectl to its end; returns what it said, raises `CommandFailed` with its error."""
        return self.commands.run(*arguments, stdin=stdin, kubeconfig=kubeconfig, timeout_s=timeout_s)

    def json(self, *arguments: str) -> Any:
        """`kubectl … -o json`, parsed."""
        return self.commands.json(*arguments)

    def audit(self) -> list[dict[str, Any]]:
        """Every request so far, as audit Events."""
        return read_audit(self.audit_log)

    def run_on(self, node: str, *argv: str, stdin: str = "") -> str:
        """Run a program in the node's network namespace; `control` is the control plane's."""
        return run_in(self.network.nodes[node], argv, stdin=stdin)

    def begin_fault(self, text: str) -> int:
        """Put a fault of `kpatrol.lab.faults` into force; returns its number."""
        return self.faults.begin(text)

    def end_fault(self, number: int) -> FaultCount:
        """End it and say what it dropped."""
        return self.faults.end(number)

    def add_node(self) -> KubeNode:
        """One of the spare nodes joins; returns when it is Ready."""
        if not self.spare:
            raise LabError("no spare node is left; ask for some with running_cluster(spare=…)")
        node = self.spare.pop(0)
        start_nodes([node], template=self.template)
        self.nodes[node.name] = node
        self.wait_nodes_ready()
        return node

    def wait_nodes_ready(self, *, timeout_s: float = READY_S) -> None:
        """Until every node of `nodes` is Ready."""
        self.wait(lambda: self._ready_nodes() >= set(self.nodes), what="nodes Ready", timeout_s=timeout_s)

    def _ready_nodes(self) -> set[str]:
        return {
            item["metadata"]["name"]
            for item in self.json("get", "nodes")["items"]
            for condition in item["status"].get("conditions", [])
            if condition["type"] == "Ready" and condition["status"] == "True"
        }

    def wait(self, holds: Any, *, what: str, timeout_s: float = 120.0) -> None:
        """Ask twice a second until `holds()` is true; an error of kubectl's counts as not yet."""
        end = time.monotonic() + timeout_s
        said = ""
        while time.monotonic() < end:
            try:
                if holds():
                    return
                said = ""
            except CommandFailed as failed:
                said = str(failed)
            time.sleep(0.5)
        raise LabError(f"{what}: not so after {timeout_s:.0f} s {said}\n{self.describe()}")

    def describe(self) -> str:
        """What a person would look at first."""
        parts = []
        for words in (["get", "nodes,pods", "-A", "-o", "wide"], ["get", "events", "-A"]):
            try:
                parts.append("\n".join(self.kubectl(*words).splitlines()[-40:]))
            except CommandFailed as failed:
                parts.append(str(failed))
        return "\n".join([*parts, *(node.last_words() for node in self.nodes.values())])


@contextmanager
def running_cluster(
    *,
    nodes: int = 3,
    spare: int = 0,
    peer_nodes: int = 0,
    dual: bool = False,
    engine: bool = False,
    kafka: bool = False,
    say: Say = lambda _: None,
) -> Iterator[Cluster]:
    """A cluster of `nodes` Ready nodes; `spare` more may join later. `dual`: IPv4 and IPv6. `engine`, `kafka`: with
    the images kpatrol/endpoint and kpatrol/kafka. `peer_nodes`: beside it a second cluster of so many nodes, `peer-1`
    and on; pods' ranges are routed between them, and the first one's faults know all nodes. Raises LabError with what
    did not come up and its last words."""
    require_node_programs()
    programs = ensure(*PROGRAMS, say=say)
    images = build_images(pause=programs["pause"], coredns=programs["coredns"], engine=engine, kafka=kafka, say=say)
    template = containerd_template(images, say=say)
    base = base_folder(os.environ)
    for removed in clean_leftovers(base):
        say(str(removed))
    lab = LabState.create(base)
    children = Children(lab)
    try:
        cluster = _build(
            lab, children, programs, template=template, nodes=nodes, spare=spare, peer_nodes=peer_nodes, dual=dual
        )
        both = [cluster, *([cluster.peer] if cluster.peer else [])]
        start_nodes([node for each in both for node in each.nodes.values()], template=template)
        for each in both:
            each.wait_nodes_ready()
            each.kubectl("apply", "-f", "-", stdin=dns_server())
        yield cluster
    finally:
        children.kill()
        removed = tear_down(lab)
        say(str(removed))
        if removed.failures:
            raise LabError(str(removed))


def start_nodes(nodes: Sequence[KubeNode], *, template: Path) -> None:
    """All side by side. Children are started from this thread: the kernel ties their life to it."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        for node in nodes:
            node.start(template=template)
        list(pool.map(lambda node: node.wait_containerd(), nodes))
    for node in nodes:
        node.start_kubelet()
        node.start_proxy()


def _build(
    lab: LabState,
    children: Children,
    programs: dict[str, Path],
    *,
    template: Path,
    nodes: int,
    spare: int,
    peer_nodes: int,
    dual: bool,
) -> Cluster:
    own = [f"node-{number}" for number in range(1, nodes + spare + 1)]
    others = [f"peer-{number}" for number in range(1, peer_nodes + 1)]
    names = [*own, *others]
    cgroup = f"kp-{lab.id}"
    lab.register_cgroup(cgroup)
    for name in ("", *names):
        cgroups.make_group(f"{cgroup}/{name}")
    # Of all pods together: without it a machine that is busy with much else starves the agents.
    cgroups.give_weight(cgroup, _WEIGHT)
    specs = [NodeSpec(name=name, zone=f"zone-{i % 2 + 1}") for i, name in enumerate(names)]
    controls = [NodeSpec(name=name) for name in (CONTROL, *([PEER_CONTROL] if others else []))]
    network = build_network(lab=lab, mode="root", specs=[*specs, *controls], ipv6=dual)
    ranges = {name: pod_range(number, dual=dual) for number, name in enumerate(names, start=1)}
    _route(network, ranges, dual=dual)
    place = _Place(lab=lab, children=children, programs=programs, template=template, network=network, ranges=ranges)
    cluster = _cluster(place, names=own, ready=nodes, control=CONTROL, folder=lab.bulk_folder(), dual=dual)
    if others:
        folder = lab.bulk_folder() / "peer"
        cluster.peer = _cluster(place, names=others, ready=peer_nodes, control=PEER_CONTROL, folder=folder, dual=dual)
    return cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """What the clusters of one test share."""

    lab: LabState
    children: Children
    programs: dict[str, Path]
    template: Path
    network: Network
    ranges: dict[str, PodRange]


def _cluster(place: _Place, *, names: Sequence[str], ready: int, control: str, folder: Path, dual: bool) -> Cluster:
    network, ranges = place.network, place.ranges
    folder.mkdir(parents=True, exist_ok=True)
    own = network.nodes[control]
    access = Access(folder=folder / "pki", names=[own.address, own.ctl_address, API_SERVICE])
    url, inside = f"https://{own.ctl_address}:{_PORT}", f"https://{own.address}:{_PORT}"
    kubeconfig = access.certificate_user("admin", groups=[ADMINISTRATORS], server=url)
    options = ApiOptions(
        bind="0.0.0.0",
        advertise=own.address,
        port=_PORT,
        services=f"{SERVICES},{SERVICES6}" if dual else str(SERVICES),
        etcd_url="http://127.0.0.1:2379",
        audit_log=folder / "audit.log",
        audit_policy=write_audit_policy(folder / "audit-policy.yaml"),
        aggregator_routing=True,
    )
    running = _start_control_plane(place.children, place.programs, options, access=access, control=own, url=url)
    kube_nodes = [
        KubeNode(
            node=network.nodes[name],
            pods=ranges[name],
            dual=dual,
            folder=folder / name,
            children=place.children,
            programs=place.programs,
            users=_node_users(access, name, server=inside),
            cgroup=f"kp-{place.lab.id}/{name}",
        )
        for name in names
    ]
    return Cluster(
        id=place.lab.id,
        folder=folder,
        network=network,
        access=access,
        url=url,
        kubeconfig=kubeconfig,
        audit_log=options.audit_log,
        commands=Kubectl(program=place.programs["kubectl"], kubeconfig=kubeconfig, folder=folder),
        dual=dual,
        nodes={node.name: node for node in kube_nodes[:ready]},
        spare=kube_nodes[ready:],
        template=place.template,
        faults=Faults({name: (network.nodes[name], ranges[name]) for name in ranges}),
        lab=place.lab,
        children=place.children,
        control=running,
    )


def _route(network: Network, ranges: dict[str, PodRange], *, dual: bool) -> None:
    for name, node in network.nodes.items():
        others = [(network.nodes[other], pods) for other, pods in ranges.items() if other != name]
        run_in(node, ["sh", "-es"], stdin=node_network_script(node, dual=dual, others=others))


def _node_users(access: Access, name: str, *, server: str) -> NodeUsers:
    return NodeUsers(
        kubelet=access.certificate_user(f"system:node:{name}", groups=["system:nodes"], server=server),
        proxy=access.certificate_user("system:kube-proxy", groups=[], server=server),
        ca=access.files.ca,
    )


def _start_control_plane(
    children: Children, programs: dict[str, Path], options: ApiOptions, *, access: Access, control: Node, url: str
) -> dict[str, ControlProgram]:
    folder, server = options.audit_log.parent, f"https://{control.address}:{_PORT}"
    manager = access.certificate_user("system:kube-controller-manager", groups=[], server=server)
    scheduler = access.certificate_user("system:kube-scheduler", groups=[], server=server)
    commands = {
        "etcd": etcd_arguments(folder=folder / "etcd", client_url=options.etcd_url, peer_url="http://127.0.0.1:2380"),
        "kube-apiserver": apiserver_arguments(options, access.files),
        "kube-controller-manager": controller_manager_arguments(manager, access.files, port=10257),
        "kube-scheduler": scheduler_arguments(scheduler),
    }
    running: dict[str, ControlProgram] = {}
    for name, arguments in commands.items():
        argv = [*enter(control), str(programs[name]), *arguments]
        start = partial(children.start, name, argv, log=folder / f"{name}.log")
        running[name] = ControlProgram(start=start, child=start())
        if name == "kube-apiserver":
            wait_ready(url, ca=access.files.ca, children=children.running())
    return running
