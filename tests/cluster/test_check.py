"""`kpatrol check` and `resume` on a real cluster: each fault with its rows, all good, nothing left behind.

A check that is stopped, killed, or whose API server starts anew is one of those that are needed anyhow.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from kpatrol.check.manifests import LABEL
from kpatrol.check.state import Kept
from tests.cluster.checking import (
    MESH,
    QUICK,
    assert_good,
    assert_nothing_left,
    counts,
    keys,
    not_good,
    run,
    start,
    until,
)
from tests.cluster.cluster import Cluster, running_cluster
from tests.cluster.images import image_name

NODES = ("node-1", "node-2", "node-3", "node-4")
# What is asked again where the machine is too busy takes its time.
pytestmark = pytest.mark.timeout(900)
PROTOCOLS = ("icmp", "tcp", "udp", "http")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(nodes=4, peer_nodes=2) as running:
        # A check asks the cluster's DNS of every node.
        running.kubectl("rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=120s", timeout_s=130)
        yield running


def both_ways(one: str, other: str, *protocols: str) -> set[tuple[str, str, str]]:
    return {(*ends, proto) for ends in ((one, other), (other, one)) for proto in protocols}


@contextmanager
def faulty(cluster: Cluster, *faults: str) -> Iterator[None]:
    """Faults on the pods' network, each of which must have dropped something."""
    numbers = [cluster.begin_fault(text) for text in faults]
    try:
        yield
    finally:
        dropped = [cluster.end_fault(number).dropped for number in numbers]
    assert all(dropped), dict(zip(faults, dropped, strict=True))


def nft(cluster: Cluster, node: str, name: str, hook: str, rule: str) -> None:
    lines = [f"table inet {name} {{", f"chain met {{ type filter hook {hook}; policy accept;", rule, "}", "}"]
    cluster.run_on(node, "nft", "-f", "-", stdin="\n".join(lines) + "\n")


@contextmanager
def deaf(cluster: Cluster, node: str) -> Iterator[None]:
    """What comes to the node's pods is dropped. The node itself hears: the streams to its agent go there."""
    rule = f"iifname data ip daddr {cluster.nodes[node].pods.ipv4} drop"
    nft(cluster, node, "deaf", "prerouting priority -350", rule)
    try:
        yield
    finally:
        cluster.run_on(node, "nft", "delete", "table", "inet", "deaf")


@contextmanager
def narrow(cluster: Cluster, node: str, other: str) -> Iterator[None]:
    """The way from one node's pods to another's has a lower MTU, and nobody is told: ICMP's word of it is dropped."""
    pods, via = cluster.nodes[other].pods.ipv4, cluster.nodes[other].node.address
    rule = "icmp type destination-unreachable icmp code frag-needed drop"
    nft(cluster, node, "silent", "output priority 0", rule)
    cluster.run_on(node, "ip", "route", "replace", str(pods), "via", via, "dev", "data", "mtu", "lock", "1400")
    try:
        yield
    finally:
        cluster.run_on(node, "ip", "route", "replace", str(pods), "via", via, "dev", "data")
        cluster.run_on(node, "nft", "delete", "table", "inet", "silent")


def test_each_fault_has_its_rows_and_its_reason_and_resume_asks_only_those(cluster: Cluster, tmp_path: Path) -> None:
    # What a killed check leaves is removed by the next one.
    same = ("--namespace", "kpatrol-check")
    killed = start(cluster, tmp_path, "check", *QUICK, *same)
    cluster.wait(lambda: cluster.json("get", "pods", "-n", "kpatrol-check")["items"], what="pods of the check")
    killed.kill()
    killed.communicate(timeout=30)
    assert cluster.json("get", "namespaces", "-l", LABEL)["items"]
    before = len(cluster.audit())

    pairs = faulty(cluster, "pair node-1>node-2 loss=100%", "pair node-2>node-4 loss=100% proto=udp")
    with pairs, deaf(cluster, "node-3"), narrow(cluster, "node-1", "node-4"):
        found = run(cluster, tmp_path, "check", *QUICK, *MESH, *same)
    assert found.code == 1, found.told
    assert "removing what an earlier check left" in found.told
    expected: dict[tuple[str, str, str], str] = {}
    for node in set(NODES) - {"node-3"}:
        expected |= dict.fromkeys(both_ways("node-3", node, *PROTOCOLS), "timeout")
    # One way is blocked: requests there, and the replies to what comes from there.
    expected |= dict.fromkeys(both_ways("node-1", "node-2", *PROTOCOLS), "timeout")
    expected |= dict.fromkeys(both_ways("node-2", "node-4", "udp"), "timeout")
    # What node-1 sends is too large, whoever began; a kernel's own echo replies alone may be cut in pieces.
    expected |= dict.fromkeys([*both_ways("node-1", "node-4", "udp"), ("node-1", "node-4", "icmp")], "mtu")
    assert not_good(found.json) == expected
    ways = {(p["src"], p["dst"]): p["way"] for p in found.json["pairs"] if p["proto"] == "udp"}
    assert (ways["node-2", "node-4"], ways["node-4", "node-2"]) == ("there", "back")
    asked = [event["requestURI"] for event in cluster.audit()[before:] if "OpenAPI-Gen" in event.get("userAgent", "")]
    assert 0 < len(asked) <= 12 * len(NODES) * found.tries, asked

    # All is mended. Stopped in its second wave, `resume` leaves what it has not asked to the next one.
    process = start(cluster, tmp_path, "resume", "--wave", "1")
    told = until(process, "wave 2 of 3")
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 2, told + rest
    assert "stopped; `kpatrol resume` goes on from here" in rest
    kept = msgspec.json.decode((tmp_path / "kpatrol-check.state.json").read_bytes(), type=Kept)
    assert 0 < len(kept.pairs) < len(expected)
    assert expected.keys() > set(kept.pairs)
    found = run(cluster, tmp_path, "resume")
    good = assert_good(found.code, found.json, found.told)
    assert keys(found.json) == set(kept.pairs)
    assert {p["change"] for p in found.json["pairs"]} == ({"fixed"} if good else {"fixed", "still_bad"})


@contextmanager
def without_image(cluster: Cluster, node: str) -> Iterator[None]:
    own = cluster.nodes[node]
    ctr = ["ctr", "--address", str(own.folder / "c.sock"), "--namespace", "k8s.io", "images"]
    name = f"docker.io/{image_name('agent')}"

    def do(*words: str) -> None:
        subprocess.run([*own.inside(), *ctr, *words], check=True, capture_output=True, timeout=60)

    do("tag", name, f"{name}-kept")
    do("rm", name)
    try:
        yield
    finally:
        do("tag", f"{name}-kept", name)


def test_an_image_that_one_node_misses_is_never_green_and_then_all_is_good(cluster: Cluster, tmp_path: Path) -> None:
    with without_image(cluster, "node-4"):
        found = run(cluster, tmp_path, "check", *QUICK)
    assert found.code == 2, found.told
    (apart,) = found.json["nodes_apart"]
    assert (apart["node"], apart["state"]) == ("node-4", "absent")
    assert apart["why"].startswith("ErrImageNeverPull")
    assert counts(found) == (3 * 2 * 4 + 3, 0, 0)

    # Of a node that had no agent nothing is known: `resume` asks everything, as a first check would. Meanwhile the API
    # server starts anew.
    process = start(
        cluster, tmp_path, "resume", "--requests", "25", "--json", "--html", "page.html", "--junit", "junit.xml"
    )
    told = until(process, "requests recorded")
    cluster.stop_apiserver()
    cluster.start_apiserver()
    out, rest = process.communicate(timeout=120)
    found_now = json.loads(out)
    assert_good(process.returncode, found_now, told + rest)
    assert len(found_now["pairs"]) == 4 * 3 * 4 + 4
    assert found_now["planned"] == found_now["stored"] + found_now["unsent"]
    assert found_now["unexplained"] == 0
    assert ElementTree.parse(tmp_path / "junit.xml").getroot().get("tests") == "52"
    assert "52" in (tmp_path / "page.html").read_text()


def test_between_two_clusters_the_blocked_direction_is_told(cluster: Cluster, tmp_path: Path) -> None:
    peer = cluster.peer
    assert peer is not None
    two = ("--peer-kubeconfig", str(peer.kubeconfig))
    with faulty(cluster, "pair node-2>peer-1 loss=100% proto=udp"):
        found = run(cluster, tmp_path, "check", *QUICK, *two, "--protocol", "udp", "--protocol", "tcp")
    assert found.code == 1, found.told
    assert len(found.json["pairs"]) == 2 * (4 * 2) * 2, "every node to every node of the other, there and back"
    there, back = ("node-2", "b/peer-1", "udp"), ("peer-1", "a/node-2", "udp")
    assert set(not_good(found.json)) == {there, back}
    ways = {(p["src"], p["dst"], p["proto"]): p["way"] for p in found.json["pairs"]}
    assert (ways[there], ways[back]) == ("there", "back")
    # Nor of the checks before this one.
    assert_nothing_left(cluster, peer)


def test_a_user_without_rights_is_told_which(cluster: Cluster, tmp_path: Path) -> None:
    jane = cluster.access.certificate_user("jane", groups=["devs"], server=cluster.url)
    result = subprocess.run(
        [sys.executable, "-m", "kpatrol", "check", "--kubeconfig", str(jane)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert "the user lacks these rights: list nodes, get namespaces, create namespaces" in result.stderr


def test_a_peer_that_cannot_be_reached_is_told_before_anything_is_made(cluster: Cluster, tmp_path: Path) -> None:
    closed = tmp_path / "closed.kubeconfig"
    closed.write_text(cluster.kubeconfig.read_text().replace(cluster.url, "https://127.0.0.1:1"))
    found = run(cluster, tmp_path, "check", "--peer-kubeconfig", str(closed))
    assert found.code == 2
    assert f"{closed} (https://127.0.0.1:1): cannot be reached" in found.told
    assert cluster.json("get", "namespaces", "-l", LABEL)["items"] == []
