"""Control groups made for a lab: what runs in them is the lab's, whoever started it (a container's processes carry no
mark of ours in their environment)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """The folders that groups are made in: one of version 2, or one for each controller of version 1."""
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    # Some are links to others (cpu → cpu,cpuacct).
    return sorted({folder.resolve() for folder in _ROOT.iterdir() if (folder / "cgroup.procs").exists()})


def make_group(name: str) -> None:
    """Make it in every hierarchy. In version 1 a cpuset must be given its CPUs before it can hold anything."""
    for folder in hierarchies():
        group = folder
        for part in Path(name).parts:
            group /= part
            group.mkdir(exist_ok=True)
            for setting in ("cpuset.cpus", "cpuset.mems"):
                own = group / setting
                if own.exists() and not own.read_text().strip():
                    own.write_text((group.parent / setting).read_text())


def give_weight(name: str, times: int) -> None:
    """Let the group have this many times a usual share of the CPU where it is short: a group counts as one process
    among all that run outside of groups, however many run in it."""
    settings = (("cpu.weight", min(10_000, 100 * times)), ("cpu.shares", min(262_144, 1024 * times)))
    for folder in hierarchies():
        for setting, value in settings:
            own = folder / name / setting
            if own.exists():
                own.write_text(str(value))


def processes_of(name: str) -> set[int]:
    """The process ids in the group and below."""
    found: set[int] = set()
    for group in folders_of(name):
        try:
            found |= {int(word) for word in (group / "cgroup.procs").read_text().split()}
        except OSError:
            continue  # gone meanwhile
    return found


def remove_group(name: str) -> bool:
    """Remove it, from the deepest up; false when it was not there. Raises OSError while something runs in it."""
    groups = list(folders_of(name))
    for group in groups:
        group.rmdir()
    return bool(groups)


def folders_of(name: str) -> Iterator[Path]:
    """The group's folders in all hierarchies, from the deepest up."""
    for folder in hierarchies():
        top = folder / name
        if top.is_dir():
            below = [path for path in top.rglob("*") if path.is_dir()]
            yield from sorted(below, key=lambda path: len(path.parts), reverse=True)
            yield top
