"""Rounds on a real cluster: agents as Helm installs them, packets between real pods, faults seen where they are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpatrol.reading.store import CannotRead
from tests.cluster.cluster import running_cluster
from tests.cluster.installed import AGENT, MINUTE_S, Installed, PairCount, file_controller, installed
from tests.cluster.outside import NAMESPACE, outside
from tests.integration.labs import leftovers

# Starting all of it takes a minute, on a machine that does much else several.
pytestmark = pytest.mark.timeout(1200)
TASK = "netreach/reach"
REACH = Path(__file__).parent / "tasks" / "reach.yaml"
NODES = ("node-1", "node-2", "node-3")
# A round that is under way when something changes is not looked at.
SETTLED_S = 1.0


@pytest.fixture(scope="module")
def release() -> Iterator[Installed]:
    with (
        running_cluster(nodes=len(NODES)) as cluster,
        outside(cluster) as services,
        installed(cluster, services) as running,
        file_controller(running, tasks=[REACH]),
    ):
        yield running
    assert leftovers(cluster.id) == []


def next_round(release: Installed) -> tuple[str, list[PairCount]]:
    """Verdict and pairs of the first round that begins from now on."""
    verdict = release.round_after(time.time() + SETTLED_S, task=TASK)
    assert verdict.planned == verdict.stored + verdict.unsent + verdict.declared_missing
    assert (verdict.unexplained, verdict.duplicates, verdict.not_reported_nodes) == (0, 0, ())
    return verdict.verdict, release.pairs(verdict)


def good_round(release: Installed) -> list[PairCount]:
    """The pairs of a round that succeeds; on a machine that is busy with much else the first ones may say "unknown"."""
    for _ in range(6):
        verdict, pairs = next_round(release)
        if verdict == "succeed":
            return pairs
        assert verdict == "unknown", pairs
    raise AssertionError("six rounds without a verdict")


def layers(pairs: list[PairCount]) -> set[str]:
    return {pair.layer for pair in pairs}


def failing(pairs: list[PairCount]) -> set[tuple[str, str]]:
    """Source node and layer of what failed."""
    return {(pair.src_node, pair.layer) for pair in pairs if pair.ok < pair.requests}


def test_agents_hold_no_token_and_no_right_and_answer_on_port_80(release: Installed) -> None:
    for node, pod in release.agents().items():
        look = "id -u; ls /var/run/secrets 2>&1; touch /x 2>&1; grep CapBnd /proc/self/status; cat /proc/net/tcp"
        said = release.cluster.kubectl("exec", "-n", NAMESPACE, pod, "--", "sh", "-c", look)
        assert said.startswith("65532\n")
        assert "/var/run/secrets': No such file" in said
        assert "Read-only file system" in said
        assert "CapBnd:\t0000000000000000" in said
        assert ":0050 00000000:0000 0A" in said, f"{node} does not listen on port 80"


def test_every_agent_reports(release: Installed) -> None:
    def reported() -> bool:
        try:
            return {row[0] for row in release.store.rows("SELECT node FROM v_agent")} == set(NODES)
        except CannotRead:
            return False

    release.cluster.wait(reported, what="reports of all agents")


def test_a_round_reaches_pods_the_service_and_node_ports(release: Installed) -> None:
    pairs = good_round(release)
    assert layers(pairs) == {"pod", "cluster_ip", "node_port"}
    assert failing(pairs) == set()
    assert {(p.src_node, p.dst_node) for p in pairs if p.layer == "pod"} == {
        (a, b) for a in NODES for b in NODES if a != b
    }
    assert sum(p.forward_lost + p.reverse_lost for p in pairs) == 0


def test_loss_on_one_nodes_way_in_is_in_that_nodes_numbers_and_nowhere_else(release: Installed) -> None:
    number = release.cluster.begin_fault("ingress node-2 loss=2%")
    there = back = 0
    try:
        # Two packets in a hundred: now and then a whole round has none on one of the ways.
        for _ in range(8):
            _, pairs = next_round(release)
            to_pods = [pair for pair in pairs if pair.layer == "pod"]
            there += sum(p.forward_lost for p in to_pods if p.dst_node == "node-2")
            back += sum(p.reverse_lost for p in to_pods if p.src_node == "node-2")
            others = [p for p in to_pods if "node-2" not in (p.src_node, p.dst_node)]
            assert sum(p.forward_lost + p.reverse_lost for p in others) == 0, others
            assert sum(p.reverse_lost for p in to_pods if p.dst_node == "node-2") == 0, to_pods
            if there and back:
                break
    finally:
        count = release.cluster.end_fault(number)
    assert there > 0
    assert back > 0
    assert count.dropped >= there + back


def test_without_kube_proxys_rules_one_nodes_services_fail_and_its_pods_do_not(release: Installed) -> None:
    node = release.cluster.nodes["node-1"]
    node.flush_services()
    try:
        verdict, pairs = next_round(release)
    finally:
        node.start_proxy()
    assert verdict == "fail"
    broken = failing(pairs)
    assert ("node-1", "cluster_ip") in broken
    assert ("node-1", "node_port") in broken
    assert not any(layer == "pod" for _, layer in broken), broken
    assert all(p.ok == 0 for p in pairs if (p.src_node, p.layer) == ("node-1", "cluster_ip"))


def test_a_killed_agent_comes_back_and_what_it_owed_is_declared(release: Installed) -> None:
    """The container's process is killed in mid-round; its spool outlives it."""
    cluster = release.cluster
    last = release.round_after(time.time() - 60, task=TASK)
    into_s = (time.time() - last.start_us / 1e6) % MINUTE_S
    time.sleep(MINUTE_S - into_s + 1.5)
    began_s = time.time() - 3
    pod = cluster.json("get", "pod", "-n", NAMESPACE, release.agents()["node-3"])
    cluster.nodes["node-3"].kill_container(pod["status"]["containerStatuses"][0]["containerID"])
    verdict = release.round_after(began_s, task=TASK)
    assert verdict.planned == verdict.stored + verdict.unsent + verdict.declared_missing
    assert verdict.unexplained == 0

    def restarted() -> bool:
        listed = cluster.json("get", "pod", "-n", NAMESPACE, release.agents()["node-3"])
        return bool(listed["status"]["containerStatuses"][0]["restartCount"] == 1)

    cluster.wait(restarted, what="the agent's container started again")
    cluster.kubectl("rollout", "status", f"daemonset/{AGENT}", "-n", NAMESPACE, "--timeout=120s", timeout_s=130)
    assert failing(good_round(release)) == set()
