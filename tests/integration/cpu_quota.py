"""A cgroup with a CPU quota, of whichever version this machine has; made and removed by the test."""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from producers.cgroup import mounts, text_of

PERIOD_US = 100_000


@contextlib.contextmanager
def cpu_quota(cores: float) -> Iterator[Path]:
    """The folder of a new cgroup that may use so much of a core; a process joins by `join`."""
    folder, second = _new_folder()
    folder.mkdir()
    try:
        quota = str(int(cores * PERIOD_US))
        if second:
            (folder / "cpu.max").write_text(f"{quota} {PERIOD_US}")
        else:
            (folder / "cpu.cfs_quota_us").write_text(quota)
        yield folder
    finally:
        _remove(folder)


def join(folder: Path) -> None:
    """Put this process into the cgroup."""
    (folder / "cgroup.procs").write_text(str(os.getpid()))


def _new_folder() -> tuple[Path, bool]:
    name = f"kpatrol-test-{os.getpid()}-{secrets.token_hex(3)}"
    found = mounts(text_of(Path("/proc/self/mountinfo")))
    for mount in found:
        if "cpu" in mount.controllers:
            return mount.point / name, False
    second = next(mount.point for mount in found if not mount.controllers)
    (second / "cgroup.subtree_control").write_text("+cpu")
    return second / name, True


def _remove(folder: Path) -> None:
    # The kernel lets the last process go a moment after it has ended.
    for _ in range(50):
        try:
            folder.rmdir()
            return
        except OSError:
            time.sleep(0.02)
    folder.rmdir()
