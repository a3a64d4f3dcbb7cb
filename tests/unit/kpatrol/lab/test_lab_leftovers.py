"""What a lab leaves behind is found by its manifest and by the mark of its children."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kpatrol.lab.errors import LabError
from kpatrol.lab.leftovers import clean_leftovers, tear_down
from kpatrol.lab.processes import LAB_ID_VARIABLE, ProcessIdentity, identity_of, is_alive, spawn
from kpatrol.lab.state import MANIFEST, Entry, LabState, base_folder, read_manifest

SLEEP = ["sleep", "60"]
ENVIRONMENT = {"PATH": os.environ["PATH"]}

# A lab that starts a child which starts another in a session of its own, says so, and is killed.
KILLED_LAB = """
import os, sys, time
from pathlib import Path
from kpatrol.lab.processes import spawn
from kpatrol.lab.state import LabState
lab = LabState.create(Path(sys.argv[1]))
script = "setsid sleep 61 & echo $! > grandchild; exec sleep 62"
child = spawn(register=lab, name="c", argv=["sh", "-c", script], environment=dict(os.environ),
              log=lab.folder / "c.log", folder=lab.folder)
lab.bulk_folder(Path(sys.argv[2]))
while not (lab.folder / "grandchild").exists() or not (lab.folder / "grandchild").read_text().strip():
    time.sleep(0.002)
print(child.pid, (lab.folder / "grandchild").read_text().strip(), flush=True)
time.sleep(60)
"""


def test_a_killed_lab_leaves_nothing_after_the_next_start(tmp_path: Path) -> None:
    base, bulk = tmp_path / "base", tmp_path / "bulk"
    bulk.mkdir()
    command = [sys.executable, "-c", KILLED_LAB, str(base), str(bulk)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout is not None
        pids = [int(word) for word in lab.stdout.readline().split()]
        assert clean_leftovers(base) == []  # it lives, so it is left alone
        assert all(identity_of(pid) for pid in pids)
        lab.kill()
    removed = clean_leftovers(base)
    assert [r.failures for r in removed] == [[]]
    assert removed[0].processes >= 1  # the grandchild, which nothing but its mark ties to the lab
    assert [identity_of(pid) for pid in pids] == [None, None]
    assert list(base.glob("lab-*")) == []
    assert list(bulk.iterdir()) == []
    assert clean_leftovers(base) == []


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_LAB, str(tmp_path / "base"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout is not None
        child, grandchild = (int(word) for word in lab.stdout.readline().split())
        lab.kill()
    end = time.monotonic() + 30
    while identity_of(child) and time.monotonic() < end:
        time.sleep(0.002)
    assert identity_of(child) is None
    os.kill(grandchild, signal.SIGKILL)


def test_an_orderly_end_removes_what_still_runs(tmp_path: Path) -> None:
    lab = LabState.create(tmp_path)
    child = spawn(
        register=lab, name="sleeper", argv=SLEEP, environment=ENVIRONMENT, log=lab.folder / "log", folder=lab.folder
    )
    removed = tear_down(lab)
    assert removed.processes == 1
    assert asyncio.run(child.wait(timeout_s=30)) == -signal.SIGKILL
    assert not lab.folder.exists()
    assert "removed 1 processes" in str(removed)


def test_a_reused_pid_is_not_killed(tmp_path: Path) -> None:
    lab = LabState.create(tmp_path)
    with subprocess.Popen(SLEEP) as stranger:
        lab.register_process(ProcessIdentity(stranger.pid, "1"), name="gone long ago")
        assert tear_down(lab).processes == 0
        assert stranger.poll() is None
        stranger.kill()


def test_a_process_of_another_boot_is_not_killed(tmp_path: Path) -> None:
    lab = LabState.create(tmp_path)
    with subprocess.Popen(SLEEP, env={**ENVIRONMENT, LAB_ID_VARIABLE: lab.id}) as stranger:
        manifest = lab.folder / MANIFEST
        manifest.write_text(manifest.read_text().replace(lab.entries()[0].name, "another boot"))
        assert tear_down(lab).processes == 0
        assert stranger.poll() is None
        stranger.kill()


def test_a_line_cut_off_in_mid_write_spoils_no_other(tmp_path: Path) -> None:
    lab = LabState.create(tmp_path)
    lab.register_namespace("kp-1")
    with (lab.folder / MANIFEST).open("a") as manifest:
        manifest.write('{"kind": "link", "na')
    assert read_manifest(lab.folder / MANIFEST)[1:] == [Entry(kind="namespace", name="kp-1")]
    lab.close()


def test_names_of_things_that_are_gone_do_no_harm(tmp_path: Path) -> None:
    lab = LabState.create(tmp_path)
    lab.register_namespace("kp-no-such")
    lab.register_link("kpnosuch")
    lab.register_mount(tmp_path / "nothing")
    removed = tear_down(lab)
    assert (removed.namespaces, removed.links, removed.mounts, removed.failures) == (0, 0, 0, [])


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "kpatrol"
    open_to_all.mkdir(mode=0o755)
    with pytest.raises(LabError, match="mode 0700"):
        LabState.create(open_to_all)


def test_the_state_folder_follows_the_users_runtime_folder(tmp_path: Path) -> None:
    uid = os.getuid()
    assert base_folder({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / f"kpatrol-{uid}"
    assert base_folder({}) == Path(f"/tmp/kpatrol-{uid}")
    assert base_folder({"KPATROL_LAB_USERNS_UID": "1234"}) == Path("/tmp/kpatrol-1234")


def test_a_child_is_stopped_by_term_and_shows_its_last_words(tmp_path: Path) -> None:
    lab = LabState.create(tmp_path)
    script = "trap 'echo bye; exit 3' TERM; echo ready; while true; do sleep 0.01; done"
    child = spawn(register=lab, name="c", argv=["sh", "-c", script], environment=ENVIRONMENT, log=lab.folder / "log")
    identity = identity_of(child.pid)
    assert identity is not None
    while "ready" not in child.last_lines():
        time.sleep(0.002)
    assert child.is_running()
    assert asyncio.run(child.stop(grace_s=30)) == 3
    assert child.last_lines(1) == "bye"
    assert not is_alive(identity)
    tear_down(lab)


def test_a_child_that_ignores_term_is_killed(tmp_path: Path) -> None:
    lab = LabState.create(tmp_path)
    script = "trap '' TERM; echo ready; while true; do sleep 0.01; done"
    child = spawn(register=lab, name="c", argv=["sh", "-c", script], environment=ENVIRONMENT, log=lab.folder / "log")
    while "ready" not in child.last_lines():
        time.sleep(0.002)
    assert asyncio.run(child.stop(grace_s=0.05)) == -signal.SIGKILL
    tear_down(lab)
