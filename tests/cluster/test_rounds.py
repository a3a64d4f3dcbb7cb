"""Rounds on a real cluster: packets between real pods, and faults seen where they are (3 s for each round)."""

from __future__ import annotations

import pytest

from tests.cluster.installed import NODES, Installed, PairCount, reach

pytestmark = pytest.mark.timeout(900)


def failing(pairs: list[PairCount]) -> set[tuple[str, str]]:
    """Source node and layer of what failed."""
    return {(pair.src_node, pair.layer) for pair in pairs if pair.ok < pair.requests}


# TCP is told to within two packets a round: on a busy machine one is sent again that was not lost.
NOISE = 2
SERVICES = reach("services", endpoint=True, clusterIP=True, nodePort=True)


def test_a_round_reaches_pods_the_service_and_node_ports(release: Installed) -> None:
    pairs = release.pairs(release.good(SERVICES))
    assert {pair.layer for pair in pairs} == {"pod", "cluster_ip", "node_port"}
    assert failing(pairs) == set()
    assert {(p.src_node, p.dst_node) for p in pairs if p.layer == "pod"} == {
        (a, b) for a in NODES for b in NODES if a != b
    }
    assert sum(p.forward_lost + p.reverse_lost for p in pairs) <= NOISE


def test_loss_on_one_nodes_way_in_is_in_that_nodes_numbers_and_nowhere_else(release: Installed) -> None:
    number = release.cluster.begin_fault("ingress node-2 loss=2%")
    there = back = rounds = 0
    try:
        # Two packets in a hundred: now and then a whole round has none on one of the ways.
        for _ in range(4):
            pairs = release.pairs(release.once(reach("lossy", qps=60, duration_s=4, endpoint=True)))
            there += sum(p.forward_lost for p in pairs if p.dst_node == "node-2")
            back += sum(p.reverse_lost for p in pairs if p.src_node == "node-2")
            others = [p for p in pairs if "node-2" not in (p.src_node, p.dst_node)]
            assert sum(p.forward_lost + p.reverse_lost for p in others) <= NOISE, others
            astray = sum(p.reverse_lost for p in pairs if p.dst_node == "node-2")
            # An acknowledgment that is lost, and nothing after it, looks like a lost answer.
            assert astray <= 2 * NOISE, pairs
            rounds += 1
            if there and back:
                break
    finally:
        count = release.cluster.end_fault(number)
    assert there > 0
    assert back > 0
    assert count.dropped >= there + back - NOISE * rounds


def test_without_kube_proxys_rules_one_nodes_services_fail_and_its_pods_do_not(release: Installed) -> None:
    node = release.cluster.nodes["node-1"]
    with release.task(SERVICES.replace("perRequestTimeoutInMS: 3000", "perRequestTimeoutInMS: 1500")) as key:
        node.flush_services()
        try:
            (verdict,) = release.verdicts(key)
        finally:
            node.start_proxy()
        report = release.cluster.json("get", "kdoctorreport", "netreach-services")
        status = release.status(key)
    assert verdict.verdict == "fail"
    pairs = release.pairs(verdict)
    assert failing(pairs) == {("node-1", "cluster_ip"), ("node-1", "node_port")}
    # But for those that may have gone before the rules did.
    assert all(p.ok < 0.3 * p.requests for p in pairs if (p.src_node, p.layer) == ("node-1", "cluster_ip"))
    # The status, the report and its findings say so.
    assert (status["lastRoundStatus"], status["history"][0]["failedAgentNodeList"]) == ("fail", ["node-1"])
    agents = {agent["nodeName"]: agent for agent in report["report"]["latestRoundReport"]}
    assert {node: agent["roundResult"] for node, agent in agents.items()} == {
        "node-1": "fail", "node-2": "succeed", "node-3": "succeed",
    }  # fmt: skip
    failed = [d["name"] for d in agents["node-1"]["taskNetReach"]["roundTaskDetail"] if not d["requestSucceed"]]
    assert sorted(name.partition("V4IP")[0] for name in failed) == ["AgentCluster", "AgentNodePort"]
    assert report["overview"]["result"] == "fail"
    assert "node-1" in str(report["overview"]["findings"])
    assert "node-2" not in str(report["overview"]["findings"])
