"""The task files of a lab: checked first, all or nothing, then laid into the folder that the controller reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from controller.tasks import Limits, NetPatrol, Task, TaskFileErrors, load_paths, task_key
from kpatrol.lab.errors import LabError

KINDS_OF_TARGETS = {"AppHttpHealthy": "web", "Netdns": "dns"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabTask:
    """A task as the lab runs it: `rounds` of it, -1 for ever."""

    key: str
    kind: str
    rounds: int


def check(files: Sequence[Path], *, limits: Limits | None) -> list[Task]:
    """All tasks of the files. Raises LabError with every problem at once."""
    if not files:
        raise LabError("no task: say --file FILE (a YAML file or a folder of them)")
    try:
        return load_paths(files, limits=limits)
    except TaskFileErrors as errors:
        raise LabError(str(errors)) from errors


def lab_tasks(tasks: Sequence[Task], *, rounds: int | None) -> list[LabTask]:
    """What the lab will run; `rounds` overrides the tasks' own number."""
    return [LabTask(key=task_key(t), kind=type(t).__name__, rounds=rounds or _own_rounds(t)) for t in tasks]


def _own_rounds(task: Task) -> int:
    return task.spec.round_number if isinstance(task, NetPatrol) else task.spec.schedule.round_number


def lay_out(files: Sequence[Path], *, folder: Path, rounds: int | None) -> None:
    """Copy the files' documents into the folder, one file each, with the number of rounds overridden if asked."""
    for number, document in enumerate(_documents(files)):
        if rounds is not None:
            _limit(document, rounds)
        (folder / f"task-{number:03}.yaml").write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def _limit(document: dict[str, Any], rounds: int) -> None:
    spec = document["spec"] = document.get("spec") or {}
    if document.get("kind") == NetPatrol.__name__:
        spec["roundNumber"] = rounds
    else:
        spec["schedule"] = (spec.get("schedule") or {}) | {"roundNumber": rounds}


def _documents(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in files:
        members = sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]
        for member in members:
            yield from (d for d in yaml.safe_load_all(member.read_text()) if d)
