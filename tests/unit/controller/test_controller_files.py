"""The folder of tasks, the folder of statuses, the configuration, and what a start with bad files does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from controller.addressbook import BadAddressBook, read_address_book
from controller.config import ControllerConfig
from controller.source_files import StatusFolder, TaskFolder, status_file, task_uid
from controller.status import go_duration, memory_from, rfc3339
from controller.tasks import Limits, TaskFileErrors
from tests.unit.controller.controller_world import ENDPOINT_ONLY, World, net_reach, tasks
from topics.connection import BadConfiguration


def folder(path: Path, **files: str) -> TaskFolder:
    for name, text in files.items():
        (path / f"{name}.yaml").write_text(text)
    return TaskFolder(path, Limits())


def test_a_uid_is_of_the_content_not_of_the_file(tmp_path: Path) -> None:
    (task,) = tasks(net_reach()).values()
    same = folder(tmp_path, other="# moved, with a comment\n" + net_reach()).tasks()["netreach/reach"]
    (labelled,) = tasks(net_reach().replace("{name: reach}", "{name: reach, labels: {a: b}}")).values()
    (changed,) = tasks(net_reach(rounds=4)).values()
    (renamed,) = tasks(net_reach(name="other")).values()
    assert task_uid(task) == task_uid(same) == task_uid(labelled) == task.metadata.uid
    assert len({task_uid(task), task_uid(changed), task_uid(renamed)}) == 3


def test_a_default_written_out_is_no_change() -> None:
    (task,) = tasks(net_reach()).values()
    (written,) = tasks(net_reach(target="{endpoint: true, ipv4: true, ipv6: false}")).values()
    assert task_uid(task) == task_uid(written)


def test_the_fingerprint_changes_with_a_file_and_not_with_a_stranger(tmp_path: Path) -> None:
    source = folder(tmp_path, a=net_reach())
    before = source.fingerprint()
    (tmp_path / ".a.yaml.swp").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    assert source.fingerprint() == before
    (tmp_path / "b.yaml").write_text(net_reach(name="b"))
    assert source.fingerprint() != before


def test_a_folder_with_one_bad_file_gives_no_task(tmp_path: Path) -> None:
    source = folder(tmp_path, a=net_reach(), b=net_reach(name="b", rounds=0))
    with pytest.raises(TaskFileErrors, match=r"b\.yaml:5: NetReach/b: spec\.schedule\.roundNumber: found 0"):
        source.tasks()


def test_a_status_survives_the_file(tmp_path: Path) -> None:
    world = World(desired=tasks(net_reach(target=ENDPOINT_ONLY)))
    world.run(100)
    state = StatusFolder(tmp_path)
    for key, document in world.statuses.items():
        state.write(key, document)
    (read,) = state.read().values()
    assert read == world.statuses["netreach/reach"]
    carried = memory_from(read)
    assert carried is not None
    uid, memory = carried
    assert (memory.last_number, memory.first_seen_us) == (2, world.observed.memory[uid].first_seen_us)


def test_strangers_in_the_state_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text("[1]")
    (tmp_path / "broken.json").write_text("{")
    state = StatusFolder(tmp_path)
    state.write_problems([])
    state.write_controller({"ready": True})
    assert state.read() == {}


def test_tasks_of_two_kinds_never_share_a_status_file() -> None:
    assert status_file("netreach/a-b") == "netreach-a-b.json"
    assert status_file("netreach/a") != status_file("netdns/a")


def test_the_status_has_kdoctors_shape(tmp_path: Path) -> None:
    world = World(desired=tasks(net_reach(target=ENDPOINT_ONLY, rounds=1)))
    world.run(20)
    document = json.loads(json.dumps(world.statuses["netreach/reach"]))
    assert document["apiVersion"] == "kdoctor.io/v1beta1"
    assert document["spec"]["schedule"]["schedule"] == "0 1"
    assert {"expectedRound", "doneRound", "finish", "finishTime", "lastRoundStatus", "history", "resource"} <= document[
        "status"
    ].keys()
    assert {
        "status",
        "roundNumber",
        "startTimeStamp",
        "deadLineTimeStamp",
        "endTimeStamp",
        "duration",
        "expectedActorNumber",
        "succeedAgentNodeList",
        "failedAgentNodeList",
        "notReportAgentNodeList",
    } <= document["status"]["history"][0].keys()


@pytest.mark.parametrize(
    ("duration_us", "text"),
    [
        (0, "0s"), (250, "250µs"), (1_500, "1.5ms"), (10_400_000, "10.4s"), (75_250_000, "1m15.25s"),
        (3_600_000_000, "1h0m0s"), (60_000_000, "1m0s"),
    ],
)  # fmt: skip
def test_durations_are_written_as_go_writes_them(duration_us: int, text: str) -> None:
    assert go_duration(duration_us) == text


def test_times_are_utc_to_the_second() -> None:
    assert rfc3339(1_790_000_000_999_999) == "2026-09-21T14:13:20Z"


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    (tmp_path / "tasks").mkdir(exist_ok=True)
    return {
        "KPATROL_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "KPATROL_TASK_DIR": str(tmp_path / "tasks"),
        "KPATROL_STATE_DIR": str(tmp_path / "state"),
    } | more


def test_the_configuration_has_defaults(tmp_path: Path) -> None:
    config = ControllerConfig.from_env(environment(tmp_path))
    assert (config.settings.lead_time_us, config.settings.expected_agents, config.settings.minute_s) == (
        2_000_000,
        1,
        60,
    )
    assert config.limits.max_qps["NetReach"] == 20
    assert config.state_dir.is_dir()


def test_the_ceiling_is_raised_for_every_kind(tmp_path: Path) -> None:
    config = ControllerConfig.from_env(environment(tmp_path, KPATROL_MAX_QPS="5000"))
    assert set(config.limits.max_qps.values()) == {5000}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("KPATROL_LEAD_TIME_S", "soon", "KPATROL_LEAD_TIME_S: found 'soon', allowed: number from 0.1 to 600"),
        ("KPATROL_MINUTE_S", "61", "KPATROL_MINUTE_S: found '61', allowed: number from 0.5 to 60"),
        ("KPATROL_EXPECTED_AGENTS", "nan", "KPATROL_EXPECTED_AGENTS: found 'nan', allowed: number from 1 to 100000"),
        ("KPATROL_TASK_DIR", "", "KPATROL_TASK_DIR: not set, expected a folder"),
        ("KPATROL_TASK_DIR", "/nowhere", "KPATROL_TASK_DIR: found '/nowhere', expected a folder that exists"),
        ("KPATROL_LOG_LEVEL", "loud", "KPATROL_LOG_LEVEL: found 'LOUD', allowed: DEBUG, INFO, WARNING, ERROR"),
        ("KPATROL_KAFKA_BOOTSTRAP", "", "KPATROL_KAFKA_BOOTSTRAP: not set, expected host:port[,host:port…]"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, name: str, value: str, message: str) -> None:
    with pytest.raises(BadConfiguration) as caught:
        ControllerConfig.from_env(environment(tmp_path) | {name: value})
    assert str(caught.value) == message


def test_an_address_book_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "book.json"
    path.write_text('{"clusterip": {}}')
    with pytest.raises(BadAddressBook, match="unknown field `clusterip`"):
        read_address_book(path)
    path.write_text('{"cluster_ip": {"4": "10.0.0.1"}, "secrets": {"a/b": {"ca_file": "/x"}}}')
    assert read_address_book(path).secrets["a/b"].ca_file == "/x"


def test_a_start_with_bad_files_says_all_and_schedules_nothing(tmp_path: Path) -> None:
    env = environment(tmp_path)
    folder(tmp_path / "tasks", a=net_reach(), b=net_reach(name="b", rounds=0, schedule='"never"'))
    done = subprocess.run(
        [sys.executable, "-m", "controller"], env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "spec.schedule.schedule: found" in done.stderr
    assert "spec.schedule.roundNumber: found 0" in done.stderr
    problems = json.loads((tmp_path / "state" / "problems.json").read_text())["problems"]
    assert {p["field"] for p in problems} == {"spec.schedule.schedule", "spec.schedule.roundNumber"}
