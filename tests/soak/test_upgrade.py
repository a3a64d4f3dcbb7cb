"""`helm upgrade` and `helm rollback` on a real cluster while a task runs: every pod of the release is replaced twice,
rounds go on, none is lost or repeated, nobody is blamed for it (three minutes)."""

from __future__ import annotations

import json
import time

import pytest

from tests.cluster.cluster import running_cluster
from tests.cluster.helm import CHART
from tests.cluster.installed import NODES, Installed, installed, reach
from tests.cluster.outside import NAMESPACE, outside

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]
ROLES = ("agent", "controller", "streams")
LEAD_S = 3


def test_verdicts_go_on_while_the_release_is_upgraded_and_rolled_back() -> None:
    with (
        running_cluster(nodes=len(NODES)) as cluster,
        outside(cluster) as services,
        installed(cluster, services, "--set", "feature.enableIPv6=false") as release,
        release.task(reach("upgraded", rounds=-1, endpoint=True)) as key,
    ):
        goes_on(release, key)
        first = pods(release)
        said = [f"{role}.podAnnotations.upgrade=second" for role in ROLES] + [f"controller.leadTimeSeconds={LEAD_S}"]
        words = [word for value in said for word in ("--set", value)]
        release.helm.run("upgrade", "kpatrol", str(CHART), "--namespace", NAMESPACE, "--reuse-values", *words)
        release.roll_out()
        goes_on(release, key)
        second = pods(release)
        assert not first & second
        assert lead_time(release) == str(LEAD_S)

        release.helm.run("rollback", "kpatrol", "1", "--namespace", NAMESPACE)
        release.roll_out()
        goes_on(release, key)
        assert not second & pods(release)
        assert lead_time(release) != str(LEAD_S)

        verdicts = release.whole(key)
        history = json.loads(release.helm.run("history", "kpatrol", "--namespace", NAMESPACE, "--output", "json"))
    assert [entry["status"] for entry in history] == ["superseded", "superseded", "deployed"]
    for verdict in verdicts:
        assert verdict.planned == verdict.stored + verdict.unsent + verdict.declared_missing, verdict
        assert (verdict.unexplained, verdict.duplicates) == (0, 0), verdict
        assert verdict.verdict != "fail", (verdict.why, verdict.accounts)
        assert (verdict.loss.lost, [finding.sentence for finding in verdict.findings]) == (0, []), verdict


def goes_on(release: Installed, key: str) -> None:
    """A round of all agents that begins from now on succeeds."""
    release.wait_members()
    began_us = time.time() * 1e6

    def good() -> bool:
        later = [v for v in release.verdicts(key) if v.start_us > began_us]
        return any(v.verdict == "succeed" and len(v.succeeded_nodes) == len(NODES) for v in later)

    release.cluster.wait(good, what="a round that succeeds", timeout_s=180)


def pods(release: Installed) -> set[str]:
    """The pods that belong to agents, controller, sink, judge, alarms and rollup."""
    listed = release.cluster.json("get", "pods", "-n", NAMESPACE, "--field-selector=status.phase=Running")["items"]
    return {str(pod["metadata"]["name"]) for pod in listed if "deletionTimestamp" not in pod["metadata"]}


def lead_time(release: Installed) -> str:
    """What the controller is told."""
    spec = release.cluster.json("get", "deployment", "kpatrol-controller", "-n", NAMESPACE)["spec"]
    env = {entry["name"]: entry.get("value") for entry in spec["template"]["spec"]["containers"][0]["env"]}
    return str(env["KPATROL_LEAD_TIME_S"])
