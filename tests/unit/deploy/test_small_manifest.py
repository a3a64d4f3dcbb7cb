"""deploy/small.yaml as it lies there: what `kubectl apply -f` would bring into a cluster."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.tasks import load_tasks
from producers.config import NAMES
from tests.unit.deploy.pods import containers, faults

ROOT = Path(__file__).parents[3]
MAKERS = ("Deployment", "DaemonSet", "StatefulSet", "Job")


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [d for d in yaml.load_all((ROOT / "deploy" / "small.yaml").read_text(), Loader=loader) if d]


def pods(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"{d['kind']}/{d['metadata']['name']}": d["spec"]["template"] for d in documents if d["kind"] in MAKERS}


def test_every_container_is_as_little_as_it_can_be(documents: list[dict[str, Any]]) -> None:
    found = pods(documents)
    assert len(found) == 10
    assert {name: wrong for name, pod in found.items() if (wrong := faults(pod))} == {}


def test_only_those_who_speak_to_the_api_server_have_a_token(documents: list[dict[str, Any]]) -> None:
    with_token = {
        n for n, pod in pods(documents).items() if pod["spec"].get("automountServiceAccountToken") is not False
    }
    assert {name.rpartition("-")[0] for name in with_token} == {"Job/kpatrol-bootstrap"}
    accounts = {d["metadata"]["name"]: d for d in documents if d["kind"] == "ServiceAccount"}
    assert accounts["kpatrol-agent"]["automountServiceAccountToken"] is False


def test_no_secret_is_in_the_file(documents: list[dict[str, Any]]) -> None:
    assert [d["metadata"]["name"] for d in documents if d["kind"] == "Secret"] == []
    assert "PRIVATE KEY" not in (ROOT / "deploy" / "small.yaml").read_text()


def test_everything_of_a_namespace_is_in_ours(documents: list[dict[str, Any]]) -> None:
    spaces = {d["metadata"].get("namespace", "") for d in documents}
    assert spaces == {"", "kpatrol"}
    assert {d["kind"] for d in documents if not d["metadata"].get("namespace")} == {"Namespace", "PriorityClass"}


def test_its_task_is_one_that_the_controller_takes(documents: list[dict[str, Any]]) -> None:
    (tasks,) = (d["data"] for d in documents if d["metadata"]["name"] == "kpatrol-tasks")
    kinds = [type(task).__name__ for text in tasks.values() for task in load_tasks(text, file="reach.yaml")]
    assert kinds == ["NetReach"]


def test_no_role_has_a_star(documents: list[dict[str, Any]]) -> None:
    roles = [d for d in documents if d["kind"] in ("Role", "ClusterRole")]
    assert roles
    words = [word for role in roles for rule in role["rules"] for part in rule.values() for word in part]
    assert "*" not in words


def test_an_agent_is_told_only_what_it_reads(documents: list[dict[str, Any]]) -> None:
    (agent,) = (pod for name, pod in pods(documents).items() if name == "DaemonSet/kpatrol-agent")
    (container,) = containers(agent["spec"])
    told = {variable["name"] for variable in container["env"]}
    assert told - NAMES == set()


def test_each_pod_has_an_account_and_probes_where_it_serves(documents: list[dict[str, Any]]) -> None:
    accounts = {d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount"}
    for name, pod in pods(documents).items():
        assert pod["spec"]["serviceAccountName"] in accounts
        # The roll-up job serves nothing: whatever goes wrong ends it, and every query of its has an end.
        if not name.startswith("Job/") and name != "Deployment/kpatrol-rollup":
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert probe in pod["spec"]["containers"][0], (name, probe)
        for container in containers(pod["spec"]):
            assert "memory" in container["resources"]["limits"], (name, container["name"])
