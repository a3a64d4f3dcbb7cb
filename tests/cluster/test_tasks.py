"""Tasks as users of kdoctor write them, by kubectl on a real cluster: run by agents as Helm installs them, told in
columns, status, report and lines (a round's 10 s and the start of it)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from kpatrol.lab.errors import CommandFailed
from tests.cluster.installed import AGENT, NODES, Installed, reach
from tests.cluster.outside import NAMESPACE
from tests.unit.controller.test_report_document import expected, paths

# Starting all of it takes a minute, on a machine that does much else several.
pytestmark = pytest.mark.timeout(900)
TASKS = list(yaml.safe_load_all((Path(__file__).parent / "tasks" / "kdoctor.yaml").read_text()))
KEYS = [f"{task['kind'].lower()}/{task['metadata']['name']}" for task in TASKS]
DURATION_S = 10.0
# What a verdict says that is no success only because this machine had no CPU for the agents, round after round.
NOT_FIT = "the instrument could not send"
# Where a task has no failure its reasons are left out, as kdoctor does.
WITHOUT_FAILURE = ("reasonsForFailure", "failureReason", "FailureReason", "FailedReason")


@pytest.fixture(scope="module")
def done(release: Installed) -> Iterator[Installed]:
    """All four have run their round; once more where the machine, busy with much else, was not fit to say."""
    wanted = dict(zip(KEYS, TASKS, strict=True))
    for _ in range(4):
        for key, task in wanted.items():
            release.cluster.kubectl("delete", key, "--ignore-not-found")
            release.apply(yaml.safe_dump(task))
        said = {key: release.wait_done(key) for key in wanted}
        wanted = {key: task for key, task in wanted.items() if said[key]["lastRoundStatus"] == "unknown"}
        print({key: said[key]["history"][0]["why"] for key in wanted})
        if not wanted:
            break
    yield release
    for key in KEYS:
        release.cluster.kubectl("delete", key)


def told(release: Installed, key: str) -> dict[str, Any]:
    report: dict[str, Any] = yaml.safe_load(
        release.cluster.kubectl("get", "kdoctorreport", key.replace("/", "-"), "-o", "yaml")
    )
    return report


@pytest.mark.parametrize("key", KEYS)
def test_columns_and_status_are_those_of_kdoctor(done: Installed, key: str) -> None:
    head, row = done.cluster.kubectl("get", key).splitlines()
    assert head.split() == ["NAME", "FINISH", "EXPECTEDROUND", "DONEROUND", "LASTROUNDSTATUS", "SCHEDULE"]
    status = done.status(key)
    result = status["lastRoundStatus"]
    assert result == "succeed" or NOT_FIT in status["history"][0]["why"], status
    assert row.split() == [key.partition("/")[2], "true", "1", "1", result, "0", "1"], status
    assert (status["resource"]["runtimeName"], status["resource"]["runtimeType"]) == (AGENT, "DaemonSet")
    assert status["finishTime"]
    (item,) = status["history"]
    assert (item["roundNumber"], item["status"], item["expectedActorNumber"]) == (1, result, len(NODES))
    assert result == "unknown" or sorted(item["succeedAgentNodeList"]) == list(NODES)
    assert item["failedAgentNodeList"] == item["notReportAgentNodeList"] == []
    began, ended = (datetime.fromisoformat(item[name]) for name in ("startTimeStamp", "endTimeStamp"))
    # The verdict is there soon after the round, on a busy machine somewhat later; time stamps are whole seconds.
    assert DURATION_S - 1 <= (ended - began).total_seconds() <= DURATION_S + 30


@pytest.mark.parametrize("key", KEYS)
def test_the_report_has_every_field_of_kdoctors(done: Installed, key: str) -> None:
    report = told(done, key)
    task = next(t for t, k in zip(TASKS, KEYS, strict=True) if k == key)
    kind = task["kind"]
    served = set(paths(report))
    missing = [path for path in expected(kind) if path not in served]
    assert [path for path in missing if path.rpartition(".")[2] not in WITHOUT_FAILURE] == []
    assert report["metadata"]["name"] == key.replace("/", "-")
    assert report["status"] == {
        "totalRoundNumber": 1, "roundFinishedNumber": 1, "status": "Finished", "roundNumber": 1,
    }  # fmt: skip
    assert (report["task"]["name"], report["task"]["kind"]) == (task["metadata"]["name"], kind)
    agents = report["report"]["latestRoundReport"]
    assert {agent["nodeName"]: agent["podName"] for agent in agents} == done.agents()
    older = report["spec"]
    assert (older["TaskName"], older["TaskType"], older["Status"]) == (task["metadata"]["name"], kind, "Finished")
    assert [agent["PodName"] for agent in older["Report"]] == [agent["podName"] for agent in agents]
    # Whole seconds' worth of requests to each target, all of them good.
    part = {"NetReach": "taskNetReach", "AppHttpHealthy": "taskAppHealthy", "Netdns": "taskNetDns"}[kind]
    for agent in agents:
        fit = agent["roundResult"] == "succeed"
        assert fit or NOT_FIT in report["overview"]["why"]
        details = agent[part]["roundTaskDetail"]
        assert agent[part]["targetNumber"] == len(details) >= 1
        for detail in details:
            metrics = detail["requestTargetMetrics"]
            assert (detail["requestSucceedRate"], metrics["errors"]) == (1, {})
            unsent = metrics["unsentCounts"]
            assert metrics["requestCounts"] == metrics["successCounts"] == 100 - unsent
            assert (detail["requestSucceed"], metrics["existsNotSendRequests"]) == (not unsent, unsent > 0)
            assert not (fit and unsent)


def test_a_netreachs_targets_have_kdoctors_names(done: Installed) -> None:
    agents = told(done, "netreach/task")["report"]["latestRoundReport"]
    by_node = {agent["nodeName"]: {d["name"] for d in agent["taskNetReach"]["roundTaskDetail"]} for agent in agents}
    pods = done.agent_pods()
    service = done.cluster.json("get", "service", f"{AGENT}-ipv4", "-n", NAMESPACE)
    port = next(p for p in service["spec"]["ports"] if p["name"] == "http")
    balancer = service["status"]["loadBalancer"]["ingress"][0]["ip"]
    ingress = done.cluster.json("get", "ingress", AGENT, "-n", NAMESPACE)["status"]["loadBalancer"]["ingress"][0]["ip"]
    for node, names in by_node.items():
        others = {p["metadata"]["name"]: p["status"]["podIP"] for n, p in pods.items() if n != node}
        assert names == {
            *(f"AgentPodV4IP_{name}_{address}" for name, address in others.items()),
            f"AgentClusterV4IP_{service['spec']['clusterIP']}:80",
            f"AgentNodePortV4IP_{pods[node]['status']['hostIP']}_{port['nodePort']}",
            f"AgentLoadbalancerV4IP_{balancer}:80",
            f"AgentIngress_v4_http://{ingress}/kdoctoragent",
        }


def test_reports_are_listed_and_answer_to_the_older_name(done: Installed) -> None:
    lines = done.cluster.kubectl("get", "kdoctorreport").splitlines()
    assert lines[0].split() == ["NAME", "CREATED", "AT"]
    assert {line.split()[0] for line in lines[1:]} >= {key.replace("/", "-") for key in KEYS}
    by_task = yaml.safe_load(done.cluster.kubectl("get", "kdoctorreport", "reach-task", "-o", "yaml"))
    assert by_task["spec"]["TaskName"] == "reach-task"
    # Whichever of the two controllers is asked says the same.
    assert all(told(done, KEYS[0]) == told(done, KEYS[0]) for _ in range(6))


def test_each_verdict_is_one_line_of_the_leaders(done: Installed) -> None:
    # A task that was made anew has a first round again, with another start.
    said = ("TaskName", "RoundNumber", "Revision", "StartTimeStamp")
    lines = Counter(tuple(line[name] for name in said) for line in done.verdict_lines())
    assert {(key.replace("/", "."), 1) for key in KEYS} <= {line[:2] for line in lines}
    assert {line: count for line, count in lines.items() if count != 1} == {}


def test_helm_test_says_that_the_release_works(release: Installed) -> None:
    assert "Succeeded" in release.helm.run("test", "kpatrol", "--namespace", NAMESPACE, "--timeout", "150s")


def test_a_bad_task_is_refused_by_the_api_server_with_its_field(release: Installed) -> None:
    with pytest.raises(CommandFailed, match="durationInSecond"):
        release.apply(reach("bad", duration_s=0, endpoint=True))


def test_agents_hold_no_token_and_no_right_and_answer_on_port_80(release: Installed) -> None:
    for node, pod in release.agents().items():
        look = "id -u; ls /var/run/secrets 2>&1; touch /x 2>&1; grep CapBnd /proc/self/status; cat /proc/net/tcp*"
        said = release.cluster.kubectl("exec", "-n", NAMESPACE, pod, "--", "sh", "-c", look)
        assert said.startswith("65532\n")
        assert "/var/run/secrets': No such file" in said
        assert "Read-only file system" in said
        assert "CapBnd:\t0000000000000000" in said
        assert ":0050 00000000" in said, f"{node} does not listen on port 80"
