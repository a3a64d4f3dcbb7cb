"""Control groups of a lab: what runs in them is found and goes, whatever its environment says."""

import os
import subprocess
from pathlib import Path

import pytest

from kpatrol.lab import cgroups
from kpatrol.lab.leftovers import tear_down
from kpatrol.lab.state import LabState


def test_a_process_in_a_labs_group_goes_with_the_lab(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not all(os.access(folder, os.W_OK) for folder in cgroups.hierarchies()):
        pytest.skip("making control groups needs root")
    lab = LabState.create(tmp_path / "labs")
    name = f"kp-{lab.id}"
    lab.register_cgroup(name)
    cgroups.make_group(f"{name}/inner")
    with subprocess.Popen(["sleep", "60"]) as child:
        for folder in cgroups.hierarchies():
            (folder / name / "inner" / "cgroup.procs").write_text(str(child.pid))
        assert cgroups.processes_of(name) == {child.pid}
        removed = tear_down(lab)
        assert child.wait(timeout=30) == -9
    assert removed.processes == 1
    assert removed.failures == []
    assert not any((folder / name).exists() for folder in cgroups.hierarchies())
