"""Removes what labs left: those that ended in order (`tear_down`) and those that were killed (`clean_leftovers`).

Both ways run the same code over the manifest, so the way a kill is cleaned up after is tried by every lab that ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from kpatrol.lab import cgroups
from kpatrol.lab.commands import run_command
from kpatrol.lab.errors import LabError
from kpatrol.lab.processes import ProcessIdentity, identity_of, is_alive, marked_processes
from kpatrol.lab.state import MANIFEST, Entry, LabState, boot_id, locked, read_manifest

_KILL_WAIT_S = 5.0
_NAMESPACES = Path("/run/netns")
# Takes a name, removes the thing, and says whether it was there.
_Remover = Callable[[str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What was removed of one lab, and what could not be, in words."""

    lab: str
    processes: int = 0
    namespaces: int = 0
    links: int = 0
    mounts: int = 0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = {"processes": self.processes, "namespaces": self.namespaces}
        counts |= {"interfaces": self.links, "mounts": self.mounts}
        parts = [f"{count} {what}" for what, count in counts.items() if count] or ["its folder"]
        return f"lab {self.lab}: removed {', '.join(parts)}" + "".join(f"; {why}" for why in self.failures)


def clean_leftovers(base: Path) -> list[Removed]:
    """Remove everything of labs whose owner is dead; running labs are not touched."""
    with locked(base):
        return [removed for folder in sorted(base.glob("lab-*")) if (removed := _clean_if_dead(folder))]


def tear_down(lab: LabState) -> Removed:
    """Remove everything the manifest of this lab still names, then its folder."""
    with locked(lab.base):
        removed = _remove(lab.id, lab.folder, lab.entries())
        lab.close()
    return removed


def _clean_if_dead(folder: Path) -> Removed | None:
    lab_id = folder.name.removeprefix("lab-")
    try:
        manifest = (folder / MANIFEST).open("rb")
    except FileNotFoundError:  # killed between making the folder and the manifest
        return _remove(lab_id, folder, [])
    with manifest:
        try:
            fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return _remove(lab_id, folder, read_manifest(folder / MANIFEST))


def _remove(lab_id: str, folder: Path, entries: list[Entry]) -> Removed:
    """Processes first (they hold the rest), then mounts from the deepest up, namespaces, interfaces, folders."""
    same_boot = any(entry.kind == "boot" and entry.name == boot_id() for entry in entries)
    failures: list[str] = []
    processes = _kill_all(lab_id, entries) if same_boot else 0
    mounts = _remove_each(sorted(_names(entries, "mount"), reverse=True), _unmount, failures)
    namespaces = _remove_each(_names(entries, "namespace"), _delete_namespace, failures)
    links = _remove_each(_names(entries, "link"), _delete_link, failures)
    _remove_each(_names(entries, "cgroup"), _remove_cgroup, failures)
    for path in [*map(Path, _names(entries, "folder")), folder]:
        shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            failures.append(f"cannot remove {path}")
    return Removed(
        lab=lab_id,
        processes=processes,
        namespaces=namespaces,
        links=links,
        mounts=mounts,
        failures=failures,
    )


def _names(entries: Iterable[Entry], kind: str) -> list[str]:
    return list(dict.fromkeys(entry.name for entry in entries if entry.kind == kind))


def _remove_each(names: Iterable[str], remove: _Remover, failures: list[str]) -> int:
    count = 0
    for name in names:
        try:
            count += remove(name)
        except LabError as failed:
            failures.append(str(failed))
    return count


def _kill_all(lab_id: str, entries: list[Entry]) -> int:
    """Kill until nothing of the lab is left: a process may have started another in between."""
    recorded = [ProcessIdentity(entry.pid, entry.started) for entry in entries if entry.kind == "process"]
    killed: set[ProcessIdentity] = set()
    end = time.monotonic() + _KILL_WAIT_S
    while time.monotonic() < end:
        left = {*filter(is_alive, recorded), *marked_processes(lab_id), *_in_cgroups(entries)}
        if not left:
            break
        for identity in left - killed:
            _kill(identity)
        killed |= left
        time.sleep(0.02)
    return len(killed)


def _in_cgroups(entries: Iterable[Entry]) -> list[ProcessIdentity]:
    pids = {pid for name in _names(entries, "cgroup") for pid in cgroups.processes_of(name)}
    return [identity for pid in pids if (identity := identity_of(pid)) is not None]


def _remove_cgroup(name: str) -> bool:
    """A process that is ending holds its group for a while yet, and one that just began is ended too."""
    end = time.monotonic() + _KILL_WAIT_S
    while True:
        try:
            return cgroups.remove_group(name)
        except OSError as failed:
            if time.monotonic() >= end:
                raise LabError(f"cannot remove the control group {name}: {failed}") from failed
        for pid in cgroups.processes_of(name):
            if (identity := identity_of(pid)) is not None:
                _kill(identity)
        time.sleep(0.05)


def _kill(identity: ProcessIdentity) -> None:
    try:
        # Group first: descendants that hid their environment go with the leader.
        if os.getpgid(identity.pid) == identity.pid:
            os.killpg(identity.pid, signal.SIGKILL)
        else:
            os.kill(identity.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _unmount(path: str) -> bool:
    # Field 2 of each line; blanks in paths are written as octal there, and our folders have none.
    if not any(line.split()[1] == path for line in Path("/proc/self/mounts").read_text().splitlines()):
        return False
    run_command(["umount", "--lazy", path])
    return True


def _delete_namespace(name: str) -> bool:
    if not (_NAMESPACES / name).exists():
        return False
    run_command(["ip", "netns", "delete", name])
    return True


def _delete_link(name: str) -> bool:
    if not _is_link(name):
        return False
    try:
        run_command(["ip", "link", "delete", name])
    except LabError:
        # The kernel clears a deleted namespace in its own time, and the other end of a pair goes with its peer.
        if _is_link(name):
            raise
        return False
    return True


def _is_link(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True
