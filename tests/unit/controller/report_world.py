# ruff: noqa: E501 - records as tables
"""Materials of reports for tests: a NetReach, an AppHttpHealthy and a Netdns round of two agents."""

from dataclasses import replace
from typing import Any

import msgspec

from controller.report_api.live import LiveTask
from controller.report_api.material import Material
from controller.report_api.store import Beside, TargetLine, TaskLine
from topics.round_verdicts import EXAMPLE, AgentAccount, Finding, Loss, RoundVerdict

START_US = 1_790_000_000_000_000
SPECS: dict[str, dict[str, Any]] = {
    "NetReach": {
        "schedule": {"schedule": "0 1", "roundNumber": 3, "roundTimeoutMinute": 1},
        "request": {"durationInSecond": 10, "qps": 10, "perRequestTimeoutInMS": 1500},
        "expect": {"successRate": 1.0, "meanAccessDelayInMs": 1500},
        "target": {"ipv4": True, "endpoint": True, "clusterIP": True, "nodePort": True, "ingress": True},
    },
    "AppHttpHealthy": {
        "schedule": {"schedule": "0 1", "roundNumber": 3, "roundTimeoutMinute": 1},
        "request": {"durationInSecond": 10, "qps": 10, "perRequestTimeoutInMS": 1500},
        "expect": {"successRate": 1.0, "meanAccessDelayInMs": 1500, "statusCode": 200},
        "target": {"host": "https://www.example.com/a?b=c", "method": "POST"},
    },
    "Netdns": {
        "schedule": {"schedule": "0 1", "roundNumber": 3, "roundTimeoutMinute": 1},
        "request": {"durationInSecond": 10, "qps": 10, "domain": "kubernetes.default.svc.cluster.local", "protocol": "udp"},
        "expect": {"successRate": 1.0, "meanAccessDelayInMs": 1500},
        "target": {"targetDns": {"testIPv4": True}},
    },
}  # fmt: skip


def line(**changes: Any) -> TargetLine:
    usual = TargetLine(
        agent="agent-a", node="worker-1", pod="kpatrol-agent-x1", target="AgentPodV4IP_kpatrol-agent-y2_10.0.0.2",
        dst="worker-2", address="10.0.0.2", port=80, protocol="http", layer="pod", size=0, finished=100, ok=100, unsent=0,
        statuses={200: 100}, errors={}, bytes=39295, first_us=START_US + 20_000, last_us=START_US + 10_004_307, agent_targets=2,
        packets_sent=210, packets_lost=0, mean_us=50294.117, min_us=200, max_us=90_000,
        quantiles_us=(50_000.0, 70_000.0, 80_000.0, 89_000.0),
    )  # fmt: skip
    return replace(usual, **changes)


def failing(**changes: Any) -> TargetLine:
    usual = line(
        agent="agent-b", node="worker-2", pod="kpatrol-agent-y2", target="AgentClusterV4IP_10.96.0.9:80", dst="cluster-ip",
        address="10.96.0.9", layer="cluster_ip", ok=97, statuses={200: 97, 0: 3}, errors={"timeout": 2, "refused": 1},
        packets_lost=4, agent_targets=1,
    )  # fmt: skip
    return replace(usual, **changes)


def verdict(kind: str, **changes: Any) -> RoundVerdict:
    accounts = tuple(
        AgentAccount(
            agent=agent, node=node, planned=200, stored=200, unsent=0, declared_missing=0, unexplained=0, cpu_us=529_510,
            cpu_peak_us=120_000, resident_bytes=101 << 20, finished_us=START_US + 10_049_239,
        )
        for agent, node in (("agent-a", "worker-1"), ("agent-b", "worker-2"))
    )  # fmt: skip
    loss = Loss(sent=210, lost=4, rate=4 / 210, low=0.01, high=0.05)
    usual = msgspec.structs.replace(
        EXAMPLE, round=2, task=f"{kind.lower()}/reach-task", kind=kind, start_us=START_US, at_us=START_US + 11_000_000,
        deadline_us=START_US + 60_000_000, verdict="fail", accounts=accounts, failed_nodes=("worker-2",), spec=SPECS[kind],
        succeeded_nodes=("worker-1",), created_us=START_US - 5_000_000,
        findings=(Finding(element="worker-2", direction="egress", kind="node", sentence="s", loss=loss, confidence=1.0),),
    )  # fmt: skip
    return msgspec.structs.replace(usual, **changes)


def history(kind: str, **changes: Any) -> TaskLine:
    usual = TaskLine(
        task=f"{kind.lower()}/reach-task", uid="4b2f", kind=kind, created_ms=START_US // 1000 - 5000,
        last_ms=START_US // 1000, newest=2, rounds=2, verdict="fail",
    )  # fmt: skip
    return replace(usual, **changes)


def live(kind: str, **changes: Any) -> LiveTask:
    usual = LiveTask(
        task=f"{kind.lower()}/reach-task", kind=kind, uid="4b2f", created_us=START_US - 5_000_000, spec=SPECS[kind],
        status={"expectedRound": 3, "doneRound": 2, "finish": False, "history": [{}]},
    )  # fmt: skip
    return replace(usual, **changes)


def material(kind: str = "NetReach", **changes: Any) -> Material:
    lines = [failing(), line(), line(target="AgentNodePortV4IP_172.18.0.3_31713", address="172.18.0.3", port=31713)]
    if kind == "AppHttpHealthy":
        named = {"target": "HttpAppHealthy target", "protocol": "https", "layer": "url", "port": 443}
        lines = [replace(item, **named) for item in lines[:2]]
    if kind == "Netdns":
        named = {
            "target": "typeA_10.96.0.10:53_kubernetes.default.svc.cluster.local",
            "protocol": "dns",
            "layer": "dns",
        }
        where = {"address": "10.96.0.10", "port": 53}
        lines = [
            failing(**named, **where, statuses={0: 98, 3: 2}, ok=97, errors={"timeout": 3}),
            line(**named, **where, statuses={0: 100}, agent_targets=1),
        ]
    usual = Material(
        name=f"{kind.lower()}-reach-task",
        history=history(kind),
        live=live(kind),
        verdict=verdict(kind),
        failed_rounds=(2,),
        lines=lines,
        beside=(Beside(task=f"{kind.lower()}/reach-task", kind=kind, start_us=START_US, spec=SPECS[kind]),),
    )
    return replace(usual, **changes)
