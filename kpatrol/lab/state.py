"""The folder of one running lab and its manifest: everything that has to go when the lab goes.

- The manifest is a file of JSON lines, only ever appended to, one line a write: a kill loses one line at most.
- What has a name known beforehand (namespace, link, mount, folder) is written down before it is made.
- The owner holds a lock on the manifest; the kernel drops it when the owner dies in whatever way. Nothing else means
  "alive".
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kpatrol.lab.errors import LabError
from kpatrol.lab.processes import ProcessIdentity

EntryKind = Literal["boot", "process", "namespace", "link", "mount", "folder", "cgroup"]
MANIFEST = "manifest.jsonl"
# Holds the user's own id for a lab that was started again inside a user namespace, where it looks like root but is not.
USERNS_VARIABLE = "KPATROL_LAB_USERNS_UID"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a manifest."""

    kind: EntryKind
    name: str
    pid: int = 0
    started: str = ""


def base_folder(environment: Mapping[str, str]) -> Path:
    """Where this user's labs keep their small state: below $XDG_RUNTIME_DIR, else below /tmp."""
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    parent = Path(runtime) if runtime and os.access(runtime, os.W_OK) else Path("/tmp")
    return parent / f"kpatrol-{environment.get(USERNS_VARIABLE) or os.getuid()}"


def private_folder(path: Path) -> Path:
    """Make a folder that only this user can enter; refuse one that somebody else laid there."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise LabError(f"{path}: expected a folder of this user with mode 0700; remove it or repair it")
    return path


@contextmanager
def locked(base: Path) -> Iterator[None]:
    """One at a time among this user's labs: cleaning, and choosing what must not be chosen twice."""
    with (private_folder(base) / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def boot_id() -> str:
    """Changes with every boot of the machine, so that old pids mean nothing after one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except FileNotFoundError:
        return ""


def is_owned(folder: Path) -> bool:
    """Whether the lab of this folder has an owner that lives."""
    try:
        with (folder / MANIFEST).open("rb") as manifest:
            fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def read_manifest(path: Path) -> list[Entry]:
    """All whole lines of a manifest, in the order written."""
    entries = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            entries.append(Entry(**json.loads(line)))
        except (ValueError, TypeError):
            continue  # cut off in mid-write
    return entries


class LabState:
    """The folder of the lab of this process. `create` makes it, `close` gives up the ownership."""

    def __init__(self, *, base: Path, lab_id: str, manifest: int) -> None:
        self.base = base
        self.id = lab_id
        self.folder = base / f"lab-{lab_id}"
        self._manifest = manifest

    @classmethod
    def create(cls, base: Path) -> LabState:
        """Make `base`/lab-<id> and own it."""
        lab_id = secrets.token_hex(3)  # short: it is part of interface names, which have 15 characters
        with locked(base):
            folder = base / f"lab-{lab_id}"
            folder.mkdir(mode=0o700)
            manifest = os.open(folder / MANIFEST, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            fcntl.flock(manifest, fcntl.LOCK_EX)
        state = cls(base=base, lab_id=lab_id, manifest=manifest)
        state._write(Entry(kind="boot", name=boot_id()))
        return state

    def subfolder(self, name: str) -> Path:
        return private_folder(self.folder / name)

    def bulk_folder(self, parent: Path | None = None) -> Path:
        """A folder for what may grow large (Kafka's and ClickHouse's data), on disk: the runtime folder is memory."""
        if parent is None:
            parent = Path("/var/tmp") if os.access("/var/tmp", os.W_OK) else Path("/tmp")
        path = parent / f"{self.base.name}-lab-{self.id}"
        self._write(Entry(kind="folder", name=str(path)))
        return private_folder(path)

    def register_process(self, identity: ProcessIdentity, *, name: str) -> None:
        self._write(Entry(kind="process", name=name, pid=identity.pid, started=identity.started))

    def register_namespace(self, name: str) -> None:
        """A named network namespace in /run/netns."""
        self._write(Entry(kind="namespace", name=name))

    def register_link(self, name: str) -> None:
        """A network interface, bridges included, in the namespace of the lab's own process."""
        self._write(Entry(kind="link", name=name))

    def register_mount(self, path: Path) -> None:
        self._write(Entry(kind="mount", name=str(path)))

    def register_cgroup(self, name: str) -> None:
        """A control group below the root of every hierarchy; whatever runs in it is the lab's."""
        self._write(Entry(kind="cgroup", name=name))

    def entries(self) -> list[Entry]:
        return read_manifest(self.folder / MANIFEST)

    def close(self) -> None:
        """Stop owning it: from here on any cleaner may remove what the manifest names."""
        if self._manifest >= 0:
            os.close(self._manifest)
            self._manifest = -1

    def _write(self, entry: Entry) -> None:
        fields = {"kind": entry.kind, "name": entry.name, "pid": entry.pid, "started": entry.started}
        os.write(self._manifest, (json.dumps(fields) + "\n").encode())
