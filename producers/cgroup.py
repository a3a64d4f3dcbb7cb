"""The process's own cgroups, version 1 or 2: what CPU it may use, what was withheld, what memory it may have.

/proc/self/cgroup says which cgroup we are in, /proc/self/mountinfo where that hierarchy is mounted and which cgroup is
the root of the mount: inside a container our own cgroup often *is* the root, and its path leads nowhere.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from producers.proc_texts import listed_counters, number, pressure_us

# Version 1 tells "no limit" as a number near the greatest of 64 bits.
_NO_LIMIT_BYTES = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A mounted hierarchy: `root` is the cgroup that stands at `point`; `controllers` is empty for version 2."""

    point: Path
    root: PurePosixPath
    controllers: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuShare:
    """What the cgroup says of the CPU. Times in µs since it was made; `limit_cores` is 0 where there is no quota."""

    throttled_us: int = 0
    throttled_periods: int = 0
    periods: int = 0
    pressure_us: int = 0
    limit_cores: float = 0.0


def mounts(mountinfo: str) -> list[Mount]:
    """The cgroup hierarchies of /proc/self/mountinfo."""
    found = []
    for line in mountinfo.splitlines():
        mounted, separator, kind = line.partition(" - ")
        fields, kinds = mounted.split(), kind.split()
        if not separator or len(fields) < 5 or len(kinds) < 3 or kinds[0] not in ("cgroup", "cgroup2"):
            continue
        controllers = frozenset() if kinds[0] == "cgroup2" else frozenset(kinds[2].split(","))
        found.append(
            Mount(point=Path(_unescaped(fields[4])), root=PurePosixPath(_unescaped(fields[3])), controllers=controllers)
        )
    return found


def folders(*, proc_cgroup: str, mounted: Iterable[Mount], controller: str) -> list[Path]:
    """The process's cgroup of that controller and those above it, up to the root of the mount, nearest first.

    A version-1 hierarchy that has the controller comes before version 2: a controller lives in one of them only.
    """
    known = list(mounted)
    found = []
    for line in sorted(proc_cgroup.splitlines(), key=lambda line: line.startswith("0::")):
        hierarchy, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        second = hierarchy == "0" and not names
        if not second and controller not in names.split(","):
            continue
        for mount in known:
            if controller in mount.controllers or (second and not mount.controllers):
                found += _upwards(_below(mount, path), mount.point)
    return list(dict.fromkeys(found))


def cpu_share(folder: Path | None) -> CpuShare:
    """What a cgroup says of the CPU now; zeros for what it does not say."""
    if folder is None:
        return CpuShare()
    stat = listed_counters(text_of(folder / "cpu.stat"))
    return CpuShare(
        # Version 2 says µs, version 1 ns.
        throttled_us=stat.get("throttled_usec", stat.get("throttled_time", 0) // 1000),
        throttled_periods=stat.get("nr_throttled", 0),
        periods=stat.get("nr_periods", 0),
        pressure_us=pressure_us(text_of(folder / "cpu.pressure")),
        limit_cores=_limit_cores(folder),
    )


def memory_limit_bytes(folder: Path | None) -> int:
    """Memory the cgroup may have, 0 where there is no limit."""
    if folder is None:
        return 0
    limit = number(text_of(folder / "memory.max")) or number(text_of(folder / "memory.limit_in_bytes"))
    return limit if limit < _NO_LIMIT_BYTES else 0


def cpu_folder(places: Sequence[Path]) -> Path | None:
    """The cgroup whose CPU figures concern the process: the nearest that has a quota, else the nearest there is.

    Only the cgroup that has the quota counts the throttling, and that may be the pod's instead of the container's.
    """
    there = [place for place in places if (place / "cpu.stat").is_file()]
    return next((place for place in there if _limit_cores(place)), there[0] if there else None)


def memory_folder(places: Sequence[Path]) -> Path | None:
    """The nearest cgroup with a limit on memory."""
    return next((place for place in places if memory_limit_bytes(place)), None)


def text_of(path: Path) -> str:
    """A file's text, empty where it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _limit_cores(folder: Path) -> float:
    quota, _, period = text_of(folder / "cpu.max").strip().partition(" ")
    if not quota:
        quota = text_of(folder / "cpu.cfs_quota_us").strip()
        period = text_of(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else 0.0


def _upwards(lowest: Path, top: Path) -> list[Path]:
    found = [lowest]
    while found[-1] != top and top in found[-1].parents:
        found.append(found[-1].parent)
    return found if found[-1] == top else [*found, top]


def _below(mount: Mount, path: str) -> Path:
    try:
        relative = PurePosixPath(path).relative_to(mount.root)
    except ValueError:
        # The path is seen from another cgroup namespace than the mount; what is at the mount's root is tried next.
        relative = PurePosixPath(path.lstrip("/"))
    return mount.point / relative


def _unescaped(field: str) -> str:
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
