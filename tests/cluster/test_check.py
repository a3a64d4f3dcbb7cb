"""`kpatrol check` and `resume` on a real cluster: healthy, each fault with its rows, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kpatrol.check.manifests import LABEL
from tests.cluster.cluster import Cluster, running_cluster

QUICK = ("--requests", "5", "--rate", "5", "--timeout-ms", "800", "--image-pull-policy", "Never")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(nodes=4) as running:
        # A check asks the cluster's DNS of every node.
        running.kubectl("rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=120s", timeout_s=130)
        yield running


def start(cluster: Cluster, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KPATROL_", "KUBE"))}
    return subprocess.Popen(
        [sys.executable, "-m", "kpatrol", *arguments, "--kubeconfig", str(cluster.kubeconfig)],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment | {"LANG": "C"},
    )  # fmt: skip


def run(cluster: Cluster, folder: Path, *arguments: str) -> tuple[int, Any, str]:
    """(exit code, the JSON it printed, what it told meanwhile). Said again where the machine itself was not fit."""
    for _ in range(4):
        process = start(cluster, folder, *arguments, "--json")
        out, told = process.communicate(timeout=240)
        found = json.loads(out) if out else None
        if found is None or not {p["reason"] for p in found["pairs"]} & {"not_fit", "not_sent"}:
            break
    return process.returncode, found, told


def not_good(found: Any) -> dict[tuple[str, str, str], str]:
    return {(p["src"], p["dst"], p["proto"]): p["reason"] for p in found["pairs"] if p["status"] != "good"}


def assert_nothing_left(cluster: Cluster) -> None:
    cluster.wait(lambda: not cluster.json("get", "namespaces", "-l", LABEL)["items"], what="the check's namespace gone")
    assert cluster.json("get", "daemonsets", "-A", "-l", LABEL)["items"] == []


def test_healthy_then_a_node_that_hears_nothing_then_repaired(cluster: Cluster, tmp_path: Path) -> None:
    before = len(cluster.audit())
    code, found, told = run(cluster, tmp_path, "check", *QUICK)
    assert code == 0, (told, not_good(found or {"pairs": []}))
    asked = [event["requestURI"] for event in cluster.audit()[before:] if "OpenAPI-Gen" in event.get("userAgent", "")]
    assert 0 < len(asked) <= 12 * 4, asked
    assert (found["good"], found["bad"], found["unknown"]) == (4 * 3 * 4 + 4, 0, 0)
    assert found["planned"] == found["stored"]
    assert found["unexplained"] == 0
    assert_nothing_left(cluster)

    fault = cluster.begin_fault("ingress node-3 loss=100% proto=udp")
    code, found, told = run(cluster, tmp_path, "check", *QUICK)
    count = cluster.end_fault(fault)
    assert code == 1, told
    assert count.dropped > 0
    bad = not_good(found)
    # What is asked of node-3, and the replies to what it asks; the DNS server stands on one node or another.
    server = cluster.json("get", "pods", "-n", "kube-system", "-l", "k8s-app=kube-dns")["items"][0]["spec"]["nodeName"]
    ends = {
        (p["src"], p["dst"], p["proto"]): (p["src"], server if p["proto"] == "dns" else p["dst"])
        for p in found["pairs"]
    }
    cut = {pair for pair, (src, dst) in ends.items() if src != dst and "node-3" in (src, dst)}
    assert set(bad) == {pair for pair in cut if pair[2] in ("udp", "dns")}
    assert set(bad.values()) == {"timeout"}

    code, found, told = run(cluster, tmp_path, "resume", *QUICK)
    assert code == 0, told
    assert {(p["src"], p["dst"], p["proto"]) for p in found["pairs"]} == set(bad)
    assert {p["change"] for p in found["pairs"]} == {"fixed"}
    code, _, _ = run(cluster, tmp_path, "resume", *QUICK)
    assert code == 0
    assert_nothing_left(cluster)


def test_an_image_that_is_missing_cannot_be_green(cluster: Cluster, tmp_path: Path) -> None:
    process = start(cluster, tmp_path, "check", "--image", "kpatrol/none:1", "--wait-s", "5", *QUICK)
    out, told = process.communicate(timeout=120)
    assert process.returncode == 2, out
    assert "no agent is ready: node-1: ErrImageNeverPull" in told
    assert_nothing_left(cluster)


def test_what_a_killed_check_left_is_removed_by_the_next(cluster: Cluster, tmp_path: Path) -> None:
    process = start(cluster, tmp_path, "check", *QUICK)
    cluster.wait(lambda: cluster.json("get", "pods", "-n", "kpatrol-check")["items"], what="pods of the check")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert cluster.json("get", "namespaces", "-l", LABEL)["items"]
    code, found, told = run(cluster, tmp_path, "check", *QUICK)
    assert code == 0, told
    assert "removing what an earlier check left" in told
    assert found["bad"] == 0

    process = start(cluster, tmp_path, "check", *QUICK)
    cluster.wait(lambda: cluster.json("get", "pods", "-n", "kpatrol-check")["items"], what="pods of the check")
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 2, told
    assert_nothing_left(cluster)


def test_a_user_without_rights_is_told_which(cluster: Cluster, tmp_path: Path) -> None:
    jane = cluster.access.certificate_user("jane", groups=["devs"], server=cluster.url)
    result = subprocess.run(
        [sys.executable, "-m", "kpatrol", "check", "--kubeconfig", str(jane)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert "the user lacks these rights: list nodes, create namespaces" in result.stderr
