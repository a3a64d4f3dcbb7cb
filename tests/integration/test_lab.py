"""The whole pipe on one machine, as a user runs it: real Kafka, engine, namespaces, packets, faults."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.labs import EXAMPLES, TASKS, assert_adds_up, assert_sound, lab_id, leftovers, run_lab


@pytest.mark.paced
def test_two_percent_at_one_node_is_found_there_and_nothing_is_left(tmp_path: Path) -> None:
    run = run_lab(
        "-f", str(EXAMPLES / "reach-task.yaml"), "--agents", "5", "--rounds", "2", "--minute-s", "8",
        "--fault", "ingress node-3 loss=2%", logs=tmp_path,
    )  # fmt: skip
    rounds = run.rounds("netreach/reach-task")
    assert len(rounds) == 2
    assert_adds_up(rounds)
    # 5 agents × 4 peers × 20/s × 5 s, from the task and the membership alone.
    assert [r["planned"] for r in rounds] == [2000, 2000]
    assert sum(r["loss"]["lost"] for r in rounds) > 0
    found = {(f["element"], f["direction"]) for r in rounds for f in r["findings"]}
    assert ("node-3", "ingress") in found, run.report
    # An agent that was slow on a busy machine may say something else of itself.
    assert {f["element"] for r in rounds for f in r["findings"] if r["trust"] == "good"} <= {"node-3"}
    assert all(r["verdict_delay_s"] < 30 for r in rounds), [r["verdict_delay_s"] for r in rounds]
    assert run.code in (0, 1)
    (fault,) = run.report["faults"]
    assert 0 < fault["dropped"] < fault["examined"]
    assert run.leftovers() == []


@pytest.mark.paced
def test_every_way_to_fail_has_its_own_outcome(tmp_path: Path) -> None:
    run = run_lab(
        "-f", str(TASKS), "--agents", "3", "--minute-s", "10", logs=tmp_path,
    )  # fmt: skip
    assert_adds_up(run.rounds())
    outcomes = {t["task"]: t["rounds"][0]["requests"]["by_outcome"] for t in run.report["tasks"]}
    verdicts = {t["task"]: t["rounds"][0]["verdict"] for t in run.report["tasks"]}
    per_task = 3 * 10  # agents × 5/s × 2 s
    assert outcomes["apphttphealthy/good"] == {"ok": per_task}
    assert outcomes["apphttphealthy/good-tls"] == {"ok": per_task}
    assert outcomes["apphttphealthy/posted"] == {"ok": per_task}
    assert outcomes["apphttphealthy/wrong-certificate"] == {"tls_error": per_task}
    assert outcomes["apphttphealthy/server-error"] == {"http_error": per_task}
    assert outcomes["apphttphealthy/refused"] == {"refused": per_task}
    assert outcomes["apphttphealthy/no-such-name"] == {"dns_error": per_task}
    assert outcomes["apphttphealthy/too-slow"] == {"timeout": per_task}
    assert outcomes["netdns/good"] == {"ok": per_task}
    assert outcomes["netdns/no-such-name"] == {"ok": per_task}  # an answer is an answer: NXDOMAIN stands in `status`
    assert outcomes["netdns/over-tls"] == {"ok": per_task}
    good = {"apphttphealthy/good", "apphttphealthy/good-tls", "apphttphealthy/posted", "netdns/good", "netdns/over-tls"}
    assert {t for t in good if verdicts[t] != "succeed"} == set()
    bad = {f"apphttphealthy/{n}" for n in ("wrong-certificate", "server-error", "refused", "no-such-name", "too-slow")}
    assert {t for t in bad if verdicts[t] != "fail"} == set()
    # Pod addresses, cluster IP and node port of kdoctor's own example.
    (reach,) = run.rounds("netreach/reach-all")
    assert reach["planned"] == 3 * (2 + 2) * 30
    assert reach["verdict"] == "succeed", reach["why"]
    assert run.code == 1


def test_kafka_with_tls_users_and_permissions(tmp_path: Path) -> None:
    run = run_lab(
        "-f", str(EXAMPLES / "reach-task.yaml"), "--agents", "3", "--rounds", "1", "--kafka", "sasl_ssl", logs=tmp_path
    )
    assert_adds_up(run.rounds())
    assert_sound(run.rounds())
    assert run.code in (0, 2), run.report


def until_ready(lab: subprocess.Popen[str]) -> str:
    """What a lab says until all its parts are ready."""
    assert lab.stderr is not None
    told = ""
    for line in lab.stderr:
        told += line
        if line.startswith("ready after"):
            return told
    raise AssertionError(f"never ready:\n{told}")


def started(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kpatrol", "lab", "-f", str(EXAMPLES / "reach-task.yaml"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_the_next_lab_removes_what_a_killed_one_left_and_ctrl_c_leaves_nothing() -> None:
    with started("--agents", "2", "--keep") as lab:
        killed = lab_id(until_ready(lab))
        lab.send_signal(signal.SIGKILL)
        lab.wait()
    with started("--agents", "2") as lab:
        assert lab.stderr is not None
        told = until_ready(lab)
        assert leftovers(killed) == []
        lab.send_signal(signal.SIGINT)
        lab.stderr.read()
        assert lab.wait(timeout=120) == 2
    assert leftovers(lab_id(told)) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fault", "ingress node-9 loss=2%"], "node-9"),
        (["--fault", "ingress node-1 loss=200%"], "loss"),
        (["-f", "no-such-file.yaml"], "no-such-file.yaml"),
    ],
)
def test_bad_input_is_refused_before_anything_starts(arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "kpatrol", "lab", "-f", str(EXAMPLES / "reach-task.yaml"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
    assert lab_id(done.stderr) == ""
