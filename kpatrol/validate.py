"""``kpatrol validate``: the answer the API server would give, without one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

import msgspec

from controller.tasks import Limits, Task, TaskFileErrors, load_paths, task_key

GOOD = 0
BAD_INPUT = 2


def validate(
    paths: Sequence[Path], *, json: bool = False, limits: Limits | None = None, out: IO[str] | None = None
) -> int:
    """Checks task files and folders as one set and prints what was found; the exit code: 0 good, 2 bad.

    As JSON: ``{"valid": …, "tasks": [{"task", "kind", "name"}], "problems": [{"file", "line", "task", "field",
    "found", "allowed"}]}``. A set without any task is bad: nothing was checked.
    """
    stream = out or sys.stdout
    try:
        tasks: list[Task] = load_paths(paths, limits=limits)
        problems: list[dict[str, object]] = []
        text = "".join(f"{task_key(task)}: valid\n" for task in tasks) or "no task in these files\n"
    except TaskFileErrors as errors:
        tasks = []
        problems = [asdict(problem) for problem in errors.problems]
        text = f"{errors}\n{len(problems)} problem{'s' if len(problems) > 1 else ''}, nothing would be scheduled\n"
    good = bool(tasks)
    listed = [{"task": task_key(task), "kind": task.KIND, "name": task.metadata.name} for task in tasks]
    answer = {"valid": good, "tasks": listed, "problems": problems}
    stream.write(msgspec.json.encode(answer).decode() + "\n" if json else text)
    return GOOD if good else BAD_INPUT
