"""The one file of the small profile on a real cluster: how long until the first matrix is seen, and what it says."""

from __future__ import annotations

import json
import time

import pytest

from kpatrol.lab.errors import CommandFailed
from tests.cluster.cluster import Cluster, running_cluster
from tests.cluster.images import ROOT

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]
FIRST_S = 300.0


def test_a_first_matrix_is_seen_within_five_minutes_of_one_apply() -> None:
    with running_cluster(nodes=3, engine=True, kafka=True) as cluster:
        began_s = time.monotonic()
        cluster.kubectl("apply", "-f", str(ROOT / "deploy" / "small.yaml"))
        first = wait_report(cluster, rounds=1)
        took_s = time.monotonic() - began_s
        print(f"first matrix after {took_s:.0f} s: {first['verdict']}, {first['why']}")
        print(cluster.kubectl("get", "pods", "-n", "kpatrol"))
        assert took_s < FIRST_S
        assert first["verdict"] == "succeed", first["why"]


def wait_report(cluster: Cluster, *, rounds: int) -> dict[str, str]:
    found: list[dict[str, str]] = []

    def told() -> bool:
        text = report(cluster)
        verdicts = [part for part in json.loads(text).get("rounds", []) if part.get("final")] if text else []
        found[:] = verdicts
        return len(found) >= rounds

    cluster.wait(told, what="the first report", timeout_s=600)
    return found[-1]


def report(cluster: Cluster) -> str:
    words = (
        "exec",
        "-n",
        "kpatrol",
        "deploy/kpatrol-sink",
        "--",
        "sh",
        "-c",
        "python3 -m kpatrol report --json || true",
    )
    try:
        return cluster.kubectl(*words)
    except CommandFailed:
        return ""
