"""Tasks by kubectl on a real cluster: applied, run by agents as Helm installs them, told in columns and status."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kpatrol.lab.errors import CommandFailed
from tests.cluster.cluster import running_cluster
from tests.cluster.images import ROOT
from tests.cluster.installed import AGENT, Installed, installed
from tests.cluster.outside import NAMESPACE, outside
from tests.integration.labs import leftovers

# Starting all of it takes a minute, on a machine that does much else several.
pytestmark = pytest.mark.timeout(1200)
NODES = ("node-1", "node-2", "node-3")
TASK = ROOT / "docs" / "examples" / "reach-task.yaml"


@pytest.fixture(scope="module")
def release() -> Iterator[Installed]:
    with (
        running_cluster(nodes=len(NODES)) as cluster,
        outside(cluster) as services,
        installed(cluster, services, "--set", "controller.source=kubernetes") as running,
    ):
        wait = ("rollout", "status", "deployment/kpatrol-controller", "-n", NAMESPACE, "--timeout=300s")
        cluster.kubectl(*wait, timeout_s=310)
        yield running
    assert leftovers(cluster.id) == []


def status(release: Installed) -> dict[str, Any]:
    found: dict[str, Any] = release.cluster.json("get", "netreach", "reach-task").get("status", {})
    return found


def test_a_task_of_kdoctor_is_run_and_told_in_its_columns_and_its_status(release: Installed) -> None:
    cluster = release.cluster
    cluster.kubectl("apply", "-f", str(TASK))
    cluster.wait(lambda: status(release).get("doneRound", 0) >= 1, what="the first round done", timeout_s=300)
    head, row = cluster.kubectl("get", "netreach").splitlines()[:2]
    assert head.split() == ["NAME", "FINISH", "EXPECTEDROUND", "DONEROUND", "LASTROUNDSTATUS", "SCHEDULE"]
    assert row.split()[:2] == ["reach-task", "false"]
    told = status(release)
    first = next(entry for entry in told["history"] if entry["roundNumber"] == 1)
    assert first["expectedActorNumber"] == len(NODES)
    assert first["notReportAgentNodeList"] == []
    assert first["status"] == "succeed"
    assert sorted(first["succeedAgentNodeList"]) == list(NODES)
    assert told["resource"]["runtimeName"] == AGENT


def test_a_bad_task_is_refused_by_the_api_server_with_its_field(release: Installed) -> None:
    bad = (
        TASK.read_text().replace("name: reach-task", "name: bad").replace("durationInSecond: 5", "durationInSecond: 0")
    )
    with pytest.raises(CommandFailed, match="durationInSecond"):
        release.cluster.kubectl("apply", "-f", "-", stdin=bad)


def test_when_the_leader_is_killed_the_other_goes_on_without_repeating_a_round(release: Installed) -> None:
    cluster = release.cluster
    lease = cluster.json("get", "lease", "kpatrol-controller", "-n", NAMESPACE)
    leader = str(lease["spec"]["holderIdentity"]).rsplit("_", 1)[0]
    before = status(release)["doneRound"]
    cluster.kubectl("delete", "pod", "-n", NAMESPACE, leader, "--grace-period=0", "--force")

    def taken_over() -> bool:
        holder = cluster.json("get", "lease", "kpatrol-controller", "-n", NAMESPACE)["spec"]["holderIdentity"]
        return not str(holder).startswith(leader)

    cluster.wait(taken_over, what="another leader")
    cluster.wait(lambda: status(release)["doneRound"] > before, what="a round of the new leader's", timeout_s=300)
    numbers = [entry["roundNumber"] for entry in status(release)["history"]]
    assert len(numbers) == len(set(numbers))
