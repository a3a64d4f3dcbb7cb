"""The cluster that other tests stand on: its nodes, its pods' network, its service addresses, and how they break."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpatrol.lab.errors import CommandFailed
from kpatrol.lab.leftovers import clean_leftovers
from kpatrol.lab.state import base_folder
from tests.cluster.cluster import Cluster
from tests.cluster.installed import Installed
from tests.cluster.manifests import web_servers
from tests.integration.labs import leftovers

ROOT = Path(__file__).parents[2]
# Starting a cluster takes 15 s, on a machine that does much else minutes.
pytestmark = pytest.mark.timeout(900)
_ASK = "import urllib.request, sys; print(urllib.request.urlopen(sys.argv[1], timeout=float(sys.argv[2])).status)"
_PATIENCE_S = "20"


@pytest.fixture(scope="module")
def cluster(release: Installed) -> Iterator[Cluster]:
    running = release.cluster
    running.kubectl("apply", "-f", "-", stdin=web_servers())
    roll_out(running)
    yield running
    running.kubectl("delete", "-f", "-", stdin=web_servers())


def roll_out(cluster: Cluster) -> None:
    cluster.kubectl("rollout", "status", "daemonset/web", "--timeout=120s", timeout_s=130)


def pods(cluster: Cluster) -> dict[str, dict[str, list[str] | str]]:
    """Node → its web pod's name and addresses."""
    return {
        item["spec"]["nodeName"]: {
            "name": item["metadata"]["name"],
            "ips": [entry["ip"] for entry in item["status"].get("podIPs", [])],
        }
        for item in cluster.json("get", "pods", "-l", "app=web")["items"]
        if "deletionTimestamp" not in item["metadata"]
    }


def ask(cluster: Cluster, node: str, address: str, *, port: int = 80, timeout_s: str = _PATIENCE_S) -> bool:
    """Whether the pod on `node` gets the page from that address."""
    host = f"[{address}]" if ":" in address else address
    pod = str(pods(cluster)[node]["name"])
    try:
        said = cluster.kubectl("exec", pod, "--", "python3", "-c", _ASK, f"http://{host}:{port}/hostname", timeout_s)
    except CommandFailed as failed:
        if "urlopen error" in str(failed) or "timed out" in str(failed):
            return False
        raise  # kubectl's own failure
    return said.strip() == "200"


def service(cluster: Cluster) -> tuple[list[str], int]:
    """The cluster addresses of the Service `web` and its node port."""
    spec = cluster.json("get", "service", "web")["spec"]
    return spec["clusterIPs"], spec["ports"][0]["nodePort"]


def test_pods_reach_pods_service_addresses_and_node_ports_in_both_families(cluster: Cluster) -> None:
    addresses, node_port = service(cluster)
    assert len(addresses) == 2
    far = pods(cluster)["node-2"]["ips"]
    assert len(far) == 2
    assert all(ask(cluster, "node-1", address) for address in [*far, *addresses])
    nodes = [cluster.network.nodes[name] for name in ("node-1", "node-2")]
    wanted = [address for node in nodes for address in (node.address, node.address6) if address]
    assert all(ask(cluster, "node-1", address, port=node_port) for address in wanted)


def test_containers_are_held_as_their_pods_say_and_logs_are_read(cluster: Cluster) -> None:
    pod = str(pods(cluster)["node-1"]["name"])
    look = "id -u; ls /var/run/secrets 2>&1; touch /x 2>&1; grep CapBnd /proc/self/status"
    said = cluster.kubectl("exec", pod, "--", "sh", "-c", look)
    assert said.startswith("65532\n")
    assert "/var/run/secrets': No such file" in said
    assert "Read-only file system" in said
    assert "CapBnd:\t0000000000000000" in said
    assert "Serving HTTP" in cluster.kubectl("logs", pod)


WEB_OUTSIDE = """
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {type: LoadBalancer, ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  rules:
    - http: {paths: [{path: /hostname, pathType: Exact, backend: {service: {name: web, port: {number: 80}}}}]}
"""


def test_load_balancers_have_addresses_and_ingresses_are_served(cluster: Cluster) -> None:
    def addresses(kind: str, name: str) -> list[str]:
        status = cluster.json("get", kind, name)["status"]["loadBalancer"]
        return [entry["ip"] for entry in status.get("ingress", [])]

    cluster.kubectl("apply", "-f", "-", stdin=WEB_OUTSIDE)
    cluster.wait(lambda: len(addresses("service", "outside")) == 2, what="addresses of the load balancer")
    cluster.wait(lambda: len(addresses("ingress", "web")) == 2, what="the ingress's addresses")
    for address in [*addresses("service", "outside"), *addresses("ingress", "web")]:
        cluster.wait(lambda a=address: ask(cluster, "node-1", a, timeout_s="2"), what=f"the page from {address}")
    cluster.kubectl("delete", "ingress/web", "service/outside")


_RESOLVE = "import socket, sys; print(sorted({a[4][0] for a in socket.getaddrinfo(sys.argv[1], 80)}))"


def test_names_of_services_are_known_to_pods(cluster: Cluster) -> None:
    pod = str(pods(cluster)["node-1"]["name"])
    addresses, _ = service(cluster)

    def known() -> bool:
        for name in ("web", "web.default.svc.cluster.local"):
            said = cluster.kubectl("exec", pod, "--", "python3", "-c", _RESOLVE, name)
            if not all(repr(address) in said for address in addresses):
                return False
        return True

    cluster.wait(known, what="the Service's name")


def test_without_kube_proxys_rules_a_node_loses_services_and_keeps_pods(cluster: Cluster) -> None:
    node = cluster.nodes["node-1"]
    addresses, _ = service(cluster)
    far = pods(cluster)["node-2"]["ips"][0]
    node.flush_services()
    try:
        assert not ask(cluster, "node-1", addresses[0], timeout_s="2")
        assert ask(cluster, "node-1", far)
        assert ask(cluster, "node-2", addresses[0])
    finally:
        node.start_proxy()
    cluster.wait(lambda: ask(cluster, "node-1", addresses[0], timeout_s="2"), what="services are back")


def test_a_fault_drops_one_pairs_packets_and_nobody_elses(cluster: Cluster) -> None:
    here, far = pods(cluster)["node-1"]["ips"][0], pods(cluster)["node-2"]["ips"][0]
    number = cluster.begin_fault("pair node-1>node-2 loss=100% proto=tcp")
    try:
        assert not ask(cluster, "node-1", far, timeout_s="2")
        assert ask(cluster, "node-1", here)
    finally:
        count = cluster.end_fault(number)
    assert count.dropped == count.examined > 0
    assert ask(cluster, "node-1", far)


def test_a_node_whose_kubelet_died_is_told_and_comes_back(cluster: Cluster) -> None:
    node = cluster.nodes["node-2"]
    node.kill("kubelet")

    def ready() -> str:
        conditions = cluster.json("get", "node", "node-2")["status"]["conditions"]
        return str(next(c["status"] for c in conditions if c["type"] == "Ready"))

    cluster.wait(lambda: ready() == "Unknown", what="node-2 NotReady")
    # The pod goes on working all the while.
    assert ask(cluster, "node-1", pods(cluster)["node-2"]["ips"][0])
    node.start_kubelet()
    cluster.wait_nodes_ready()


def test_a_killed_cluster_is_removed_by_the_next_one() -> None:
    # The process below says its cluster's id and then waits to be killed.
    code = (
        "from tests.cluster.cluster import running_cluster\nimport time\n"
        "from tests.cluster.manifests import web_servers\n"
        "with running_cluster(nodes=1) as c:\n"
        "    c.kubectl('apply', '-f', '-', stdin=web_servers())\n"
        "    c.kubectl('rollout', 'status', 'daemonset/web', '--timeout=120s', timeout_s=130)\n"
        "    print(c.id, flush=True)\n    time.sleep(120)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as owner:
        assert owner.stdout is not None
        lab = owner.stdout.readline().strip()
        assert lab, "no cluster was started"
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert leftovers(lab)
    end = time.monotonic() + 60
    while leftovers(lab) and time.monotonic() < end:
        clean_leftovers(base_folder(os.environ))
        time.sleep(0.5)
    assert leftovers(lab) == []
