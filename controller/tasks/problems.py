"""What is wrong with a task file, said so that it can be mended without reading anything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """One mistake. ``field`` is empty when the document as a whole is meant."""

    file: str
    line: int
    task: str
    field: str
    found: str
    allowed: str

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        task = f"{self.task}: " if self.task else ""
        return f"{self.file}:{self.line}: {task}{field}found {self.found}, allowed: {self.allowed}"


class TaskFileErrors(Exception):
    """Raised with every problem of a set of task files; nothing of the set may then be scheduled."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))
