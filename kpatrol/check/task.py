"""A check where kpatrol is installed: a task of one round for the agents that are there, and its verdict.

The controller's status tells of nodes, not of pairs: a row is a node's whole share. The pairs are in the round's report
(`kpatrol report`, `kubectl get kdoctorreport`), which stays when the task is removed. `plan` and `rows_of` are pure.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from kpatrol.check.cluster import Cluster
from kpatrol.check.config import CheckConfig
from kpatrol.check.manifests import LABEL
from kpatrol.check.mesh import MESH_PROTOS
from kpatrol.check.pairs import PairRow, Status
from kpatrol.check.patience import patient, whole
from kpatrol.check.result import TASK, Result
from kpatrol.check.told import Told
from streams.judging import stats

POLL_S = 2.0
LEAST_INTERVAL_S = 5


def obstacle(config: CheckConfig) -> str:
    """Why a task cannot ask what is asked for; empty where it can."""
    reasons = {
        "two clusters": bool(config.peer_kubeconfig),
        f"mode {config.mode}": config.mode != "pod",
        "addresses of your own": bool(config.addresses),
        "no mesh": not set(config.protocols) & set(MESH_PROTOS),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def plan(config: CheckConfig, *, run: str) -> dict[str, Any]:
    """The NetPatrol: one round in which every request must be answered."""
    least_s = max(5 * config.timeout_ms / 1000, config.requests / config.rate, LEAST_INTERVAL_S)
    return {
        "apiVersion": "kpatrol.io/v1beta1",
        "kind": "NetPatrol",
        "metadata": {"name": f"kpatrol-check-{run}", "labels": {LABEL: run}},
        "spec": {
            "protocols": [name for name in MESH_PROTOS if name in config.protocols],
            "intervalSecond": math.ceil(least_s),
            "roundNumber": 1,
            "requestsPerRound": config.requests,
            "perRequestTimeoutInMS": config.timeout_ms,
            "degree": config.degree,
            "fullSizePacket": True,
            "ipv4": 4 in config.families,
            "ipv6": 6 in config.families,
            "thresholds": {"lossRate": 0.0, "meanDelayInMs": config.timeout_ms},
        },
    }


def rows_of(item: Mapping[str, Any], *, cluster: str) -> list[PairRow]:
    """A row for each node of a round that is over (`status.history[]`), the worst first."""
    # A round that nobody could judge makes no node good.
    good: tuple[Status, str] = ("unknown", "not_fit") if item["status"] == "unknown" else ("good", "")
    told: tuple[tuple[str, Status, str], ...] = (
        ("failedAgentNodeList", "bad", "task"),
        ("notReportAgentNodeList", "unknown", "not_heard"),
        ("succeedAgentNodeList", *good),
    )
    why = str(item.get("why", ""))
    found: dict[str, PairRow] = {}
    for name, status, reason in told:
        for node in item.get(name, ()):
            detail = why if status != "good" else ""
            found.setdefault(node, _row(cluster=cluster, node=node, status=status, reason=reason, detail=detail))
    if not found or (item["status"] != "succeed" and all(row.status == "good" for row in found.values())):
        whole: tuple[Status, str] = ("bad", "task") if item["status"] == "fail" else ("unknown", "not_heard")
        found["*"] = _row(cluster=cluster, node="*", status=whole[0], reason=whole[1], detail=why)
    return list(found.values())


def _row(*, cluster: str, node: str, status: Status, reason: str, detail: str) -> PairRow:
    return PairRow(
        cluster=cluster, src=node, dst="*", proto=TASK, address="", status=status, reason=reason, detail=detail,
        requests=0, ok=0, loss=stats.loss(sent=0, lost=0), p50_us=None,
    )  # fmt: skip


async def check_by_task(*, config: CheckConfig, cluster: Cluster, told: Told, run: str) -> Result:
    """Make the task, wait for its final verdict, remove it. Raises ClusterTrouble; the caller bounds the time."""
    task = plan(config, run=run)
    name = task["metadata"]["name"]
    await patient(cluster.remove_tasks)
    try:
        await whole(partial(cluster.create_task, task))
        told.step(f"cluster {cluster.name}: kpatrol is installed; its agents run netpatrol/{name}")
        if "dns" in config.protocols:
            told.step("names are not asked by a patrol: `--standalone` asks them too")
        item = await _verdict(cluster, name, told)
    finally:
        if not config.keep:
            await asyncio.shield(patient(partial(cluster.remove_tasks, run)))
    told.step(f"its pairs: kpatrol report netpatrol/{name}")
    return Result(rows=rows_of(item, cluster=cluster.name), apart=(), verdicts=())


async def _verdict(cluster: Cluster, name: str, told: Told) -> Mapping[str, Any]:
    shown = ""
    while True:
        status = (await patient(partial(cluster.task, name))).get("status") or {}
        history = status.get("history") or [{}]
        if history[0].get("final"):
            found: Mapping[str, Any] = history[0]
            return found
        line = "; ".join(status.get("reasons") or []) or f"the round is {history[0].get('status', 'not planned yet')}"
        if line != shown:
            shown = line
            told.step(line)
        await asyncio.sleep(POLL_S)
