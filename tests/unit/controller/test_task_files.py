"""Task files: what is accepted with which defaults, and what is refused with which words."""

from pathlib import Path

import pytest

from controller.tasks import (
    AppHttpHealthy,
    Limits,
    Netdns,
    NetPatrol,
    NetReach,
    Task,
    TaskFileErrors,
    load_paths,
    load_tasks,
    task_key,
)

HERE = Path(__file__).parent
BAD = sorted((HERE / "bad").glob("*.yaml"))
GOOD = sorted((HERE / "good").glob("*.yaml"))
PREFIX = "# expect: "


def refused(text: str, *, file: str = "task.yaml") -> list[str]:
    with pytest.raises(TaskFileErrors) as caught:
        load_tasks(text, file=file)
    return [str(problem) for problem in caught.value.problems]


def good(name: str) -> list[Task]:
    return load_tasks(HERE / "good" / f"{name}.yaml")


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_file_is_refused_with_file_line_field_found_and_allowed(path: Path) -> None:
    text = path.read_text()
    expected = [line.removeprefix(PREFIX) for line in text.splitlines() if line.startswith(PREFIX)]
    assert expected
    assert refused(text, file=path.name) == [f"{path.name}:{line}" for line in expected]
    assert all(": found " in line and ", allowed: " in line for line in expected)


def test_there_are_bad_files_for_at_least_forty_rules() -> None:
    assert len(BAD) >= 40


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_file_is_accepted(path: Path) -> None:
    assert load_tasks(path)


def test_all_files_of_a_folder_are_one_set() -> None:
    keys = [task_key(task) for task in load_paths([HERE / "good"])]
    assert len(keys) == len(set(keys))
    assert {"netreach/web", "apphttphealthy/web"} <= set(keys)


def test_one_bad_file_refuses_the_whole_set() -> None:
    with pytest.raises(TaskFileErrors) as caught:
        load_paths([HERE / "good", HERE / "bad" / "qps-zero.yaml"])
    assert [problem.field for problem in caught.value.problems] == ["spec.request.qps"]


def test_problems_of_all_files_come_at_once() -> None:
    with pytest.raises(TaskFileErrors) as caught:
        load_paths([HERE / "bad" / "qps-zero.yaml", HERE / "bad" / "not-yaml.yaml"])
    assert {Path(problem.file).name for problem in caught.value.problems} == {"qps-zero.yaml", "not-yaml.yaml"}


def test_one_name_twice_over_two_files_is_refused_naming_the_first(tmp_path: Path) -> None:
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text("apiVersion: kdoctor.io/v1beta1\nkind: NetReach\nmetadata: {name: a}\n")
    with pytest.raises(TaskFileErrors, match=r'two.yaml:1: .*"a" a second time, first in .*one.yaml:1, '):
        load_paths([tmp_path])


def test_a_wholly_absent_spec_takes_every_default() -> None:
    (task,) = good("netreach-nothing-written")
    assert isinstance(task, NetReach)
    assert task.spec.schedule.schedule == "0 1"
    assert task.spec.schedule.round_number == 1
    assert (task.spec.request.qps, task.spec.request.duration_s, task.spec.request.timeout_ms) == (10, 2, 500)
    assert (task.spec.expect.success_rate, task.spec.expect.mean_delay_ms) == (1.0, 5000)
    assert task.spec.target.endpoint
    assert task.spec.agent_spec is None


def test_defaults_inside_a_written_object_are_kdoctors_but_for_the_timeout() -> None:
    (task,) = good("netdns-minimal")
    assert isinstance(task, Netdns)
    assert (task.spec.request.qps, task.spec.request.duration_s, task.spec.request.timeout_ms) == (5, 2, 500)
    assert task.spec.request.domain == "kubernetes.default.svc.cluster.local"
    assert task.spec.request.protocol == "udp"
    assert task.spec.target.dns is not None
    assert task.spec.target.dns.test_ipv4


@pytest.mark.parametrize(
    ("schedule", "minutes"),
    [('"0 1"', 1), ('"0 60"', 60), ('"0 90"', 60), ('"*/5 * * * *"', 60), ('"0 5", roundTimeoutMinute: 3', 3)],
)
def test_the_round_timeout_follows_a_short_interval(schedule: str, minutes: int) -> None:
    head = "apiVersion: kdoctor.io/v1beta1\nkind: NetReach\nmetadata: {name: a}\n"
    (task,) = load_tasks(f"{head}spec: {{schedule: {{schedule: {schedule}}}}}")
    assert isinstance(task, NetReach)
    assert task.spec.schedule.round_timeout_minute == minutes


def test_own_agents_are_read_with_yaml_booleans_as_kubectl_reads_them() -> None:
    (task,) = good("netreach-own-agents")
    assert isinstance(task, NetReach)
    spec = task.spec.agent_spec
    assert spec is not None
    assert (spec.kind, spec.deployment_replicas, spec.host_network) == ("Deployment", 2, True)
    assert spec.env == ({"name": "HTTP_PROXY", "value": "http://proxy:3128"},)
    assert task.metadata.annotations == {"note": "yes"}


def test_what_kubectl_prints_is_accepted_again() -> None:
    (task,) = good("netreach-as-kubectl-prints-it")
    assert task.metadata.uid == "3a5f1d9e-8f64-4a3e-b9d7-7a3c2d1e0f55"


def test_a_host_without_scheme_becomes_http() -> None:
    urls = [task.spec.target.url for task in good("http-hosts") if isinstance(task, AppHttpHealthy)]
    assert urls[2] == "http://10.0.0.7:8080/healthz"
    assert urls[1] == "http://nginx.ns1.svc.cluster.local."


def test_a_merge_key_gives_way_to_what_is_written_beside_it() -> None:
    _, task = good("same-name-in-two-kinds")
    assert isinstance(task, AppHttpHealthy)
    assert (task.spec.request.qps, task.spec.request.duration_s) == (5, 4)


def test_a_patrol_is_a_full_mesh_by_default() -> None:
    mesh, ring = good("netpatrol")
    assert isinstance(mesh, NetPatrol)
    assert isinstance(ring, NetPatrol)
    assert (mesh.spec.degree, mesh.spec.protocols, mesh.spec.interval_s) == (0, ("udp", "tcp", "http"), 60)
    assert (ring.spec.degree, ring.spec.sizes_bytes, ring.spec.thresholds.loss_rate) == (20, (64, 1400), 0.001)


def test_the_ceiling_itself_is_accepted_and_can_be_raised() -> None:
    text = "apiVersion: kdoctor.io/v1beta1\nkind: NetReach\nmetadata: {name: a}\nspec: {request: {qps: %d}}"
    assert load_tasks(text % 20)
    assert load_tasks(text % 500, limits=Limits.with_max_qps(500))
    with pytest.raises(TaskFileErrors, match="from 1 to 500"):
        load_tasks(text % 501, limits=Limits.with_max_qps(500))


def test_a_file_that_cannot_be_read_is_a_problem_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(TaskFileErrors, match="no such file or directory, allowed: a readable file"):
        load_tasks(tmp_path / "gone.yaml")


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_bytes(b"kind: \xff\xfe")
    with pytest.raises(TaskFileErrors, match="byte 0xff at 6, allowed: UTF-8 text"):
        load_tasks(path)


def test_a_control_character_is_refused_with_its_line() -> None:
    assert refused("a: 1\nb: \x07\n") == [
        "task.yaml:2: found broken YAML (character U+0007), allowed: well-formed YAML"
    ]


def test_aliases_cannot_blow_up() -> None:
    layers = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
    assert refused("a0: &a0 [1]\n" + layers) == [
        "task.yaml:1: found broken YAML (more than 20000 values), allowed: well-formed YAML"
    ]


def test_an_empty_file_has_no_tasks() -> None:
    assert load_tasks("---\n# nothing\n---\n") == []
