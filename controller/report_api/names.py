"""A report's name and the task that it speaks of: ``netreach-reach-task``, or the task's name alone. Pure."""

from __future__ import annotations

from collections.abc import Collection


def report_name(task: str) -> str:
    """The report's name of a task (``kind/name``, kind in lower case)."""
    return task.replace("/", "-", 1)


def tasks_named(name: str, tasks: Collection[str]) -> list[str]:
    """The tasks (``kind/name``) that a report's name stands for: one by its full name, or all that bear the name."""
    whole = [task for task in tasks if report_name(task) == name]
    return whole or sorted(task for task in tasks if task.partition("/")[2] == name)


def hint(name: str, tasks: Collection[str]) -> str:
    """What to say to somebody who asked for a name that is not there."""
    if not tasks:
        return "no task has run yet: a report exists from the first round on"
    near = sorted(report_name(task) for task in tasks if _like(name, task))
    known = near or sorted(report_name(task) for task in tasks)
    more = f" and {len(known) - 5} more" if len(known) > 5 else ""
    return f"a report is called <kind>-<task>; there are: {', '.join(known[:5])}{more}"


def _like(name: str, task: str) -> bool:
    short = task.partition("/")[2]
    return short in name or name in report_name(task)
