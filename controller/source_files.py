"""Tasks from a folder of YAML files, status as JSON files beside: the place of custom resources where there are none.

A task's uid is made of its kind, name and spec (defaults filled in): a changed spec is a new task, a comment or a
label is not, and the same spec after a restart is the same task, which goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from controller.members import Site
from controller.plan import Ground
from controller.status import Document
from controller.tasks import Limits, Problem, Task, load_paths, task_key
from controller.tasks.load import SUFFIXES
from controller.tasks.schema import to_plain
from topics.cluster_events import ClusterEvent

_NAMESPACE = uuid.UUID("6b0c6a0e-6c5f-5d0b-9d53-0c1f6a3f5b11")
PROBLEMS_FILE = "problems.json"
CONTROLLER_FILE = "controller.json"
_OWN_FILES = (PROBLEMS_FILE, CONTROLLER_FILE)


def task_uid(task: Task) -> str:
    """UUIDv5 of kind, name and spec."""
    spec = json.dumps(to_plain(task.spec), sort_keys=True, separators=(",", ":"))
    return str(uuid.uuid5(_NAMESPACE, f"{task_key(task)}/{hashlib.sha256(spec.encode()).hexdigest()}"))


def with_uid(task: Task) -> Task:
    """The task with the uid of its content; one written in the file belongs to another cluster's object."""
    return replace(task, metadata=replace(task.metadata, uid=task_uid(task)))


@dataclass(frozen=True, slots=True)
class TaskFolder:
    """The folder that tasks are read from."""

    path: Path
    limits: Limits

    def fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        """Changes when a task file does: names, times and sizes."""
        found = []
        for entry in os.scandir(self.path):
            if entry.name.endswith(SUFFIXES) and not entry.name.startswith("."):
                stat = entry.stat()
                found.append((entry.name, stat.st_mtime_ns, stat.st_size))
        return tuple(sorted(found))

    def tasks(self) -> dict[str, Task]:
        """Task key → task, all or none. Raises TaskFileErrors."""
        return {task_key(task): with_uid(task) for task in load_paths([self.path], limits=self.limits)}

    def book(self) -> None:
        """A folder knows of no addresses: those of the settings hold."""

    def sites(self) -> Mapping[str, Site]:
        """Agents say themselves where they stand."""
        return {}

    def grounds(self, tasks: Sequence[Task], *, finished: Mapping[str, str]) -> Mapping[str, Ground]:
        """The shared agents run every task."""
        return {}

    def cluster_events(self, at_us: int) -> Sequence[ClusterEvent]:
        """Nothing is watched."""
        return ()


@dataclass(frozen=True, slots=True)
class StatusFolder:
    """The folder that statuses are written to: ``<kind>-<name>.json`` in lower case, each replaced in one step."""

    path: Path

    def write(self, key: str, document: Document) -> None:
        """Writes the status of a task."""
        self._replace(status_file(key), document)

    def remove(self, key: str) -> None:
        """Takes away the status of a task that is gone."""
        (self.path / status_file(key)).unlink(missing_ok=True)

    def read(self) -> dict[str, Document]:
        """Task key → status written earlier. A file that is none of ours is left alone."""
        found: dict[str, Document] = {}
        for path in sorted(self.path.glob("*.json")):
            document = _document(path) if path.name not in _OWN_FILES else None
            if document is not None:
                found[f"{document['kind'].lower()}/{document['metadata']['name']}"] = document
        return found

    def write_problems(self, problems: Sequence[Problem]) -> None:
        """Says why the task files are refused; with none, that they are not."""
        fields = ("file", "line", "task", "field", "found", "allowed")
        listed = [{name: getattr(problem, name) for name in fields} for problem in problems]
        self._replace(PROBLEMS_FILE, {"problems": listed})

    def write_controller(self, facts: Mapping[str, Any]) -> None:
        """Says how the controller itself is: ready, members, epoch."""
        self._replace(CONTROLLER_FILE, facts)

    def _replace(self, name: str, document: Mapping[str, Any]) -> None:
        temporary = self.path / f".{name}.{os.getpid()}"
        temporary.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        temporary.replace(self.path / name)


def status_file(key: str) -> str:
    """Name of a task's status file: kinds have no hyphen, so two tasks never share one."""
    return f"{key.replace('/', '-', 1)}.json"


def _document(path: Path) -> Document | None:
    try:
        document: Any = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    ours = isinstance(document, dict) and {"kind", "metadata", "status", "kpatrol"} <= document.keys()
    return document if ours else None
