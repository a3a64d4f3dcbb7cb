"""Which cgroup is ours, in every arrangement that hosts and containers have, and what it says."""

from pathlib import Path, PurePosixPath

import pytest

from producers import cgroup
from producers.cgroup import CpuShare

V1 = "32 31 0:29 / {root}/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "41 31 0:38 {top} {root}/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n"


def test_only_cgroup_hierarchies_are_mounts() -> None:
    text = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" + V1.format(root="/cg")
    (found,) = cgroup.mounts(text)
    assert (found.point, found.root) == (Path("/cg/cpu,cpuacct"), PurePosixPath("/"))
    assert found.controllers >= {"cpu", "cpuacct"}


def test_a_version_1_hierarchy_comes_first_and_the_way_leads_up_to_its_root() -> None:
    mounted = cgroup.mounts(V1.format(root="/cg") + V2.format(top="/", root="/cg"))
    places = cgroup.folders(proc_cgroup="0::/x\n3:cpu,cpuacct:/a/b\n", mounted=mounted, controller="cpu")
    assert [str(p) for p in places[:3]] == ["/cg/cpu,cpuacct/a/b", "/cg/cpu,cpuacct/a", "/cg/cpu,cpuacct"]
    assert str(places[-1]) == "/cg/unified"


def test_inside_a_container_the_cgroup_is_the_root_of_the_mount() -> None:
    mounted = cgroup.mounts(V2.format(top="/kubepods/pod1/c1", root="/cg"))
    places = cgroup.folders(proc_cgroup="0::/kubepods/pod1/c1\n", mounted=mounted, controller="cpu")
    assert [str(p) for p in places] == ["/cg/unified"]
    # A cgroup namespace of its own shows the process at the root.
    assert cgroup.folders(proc_cgroup="0::/\n", mounted=mounted, controller="cpu")[-1] == Path("/cg/unified")


def _group(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_the_cgroup_that_has_the_quota_counts(tmp_path: Path) -> None:
    pod = _group(tmp_path / "pod", cpu__stat="nr_throttled 7\nthrottled_usec 250\n", cpu__max="50000 100000\n")
    container = _group(tmp_path / "pod" / "c", cpu__stat="usage_usec 5\n", cpu__max="max 100000\n")
    assert cgroup.cpu_folder([container, pod]) == pod
    assert cgroup.cpu_folder([container]) == container
    assert cgroup.cpu_folder([tmp_path / "nowhere"]) is None


@pytest.mark.parametrize(
    ("files", "share"),
    [
        (
            {"cpu__stat": "nr_periods 9\nnr_throttled 2\nthrottled_usec 250\n", "cpu__max": "4000 100000\n"},
            CpuShare(throttled_us=250, throttled_periods=2, periods=9, limit_cores=0.04),
        ),
        (
            {
                "cpu__stat": "nr_periods 9\nnr_throttled 2\nthrottled_time 250000\n",
                "cpu__cfs_quota_us": "150000\n",
                "cpu__cfs_period_us": "100000\n",
            },
            CpuShare(throttled_us=250, throttled_periods=2, periods=9, limit_cores=1.5),
        ),
        ({"cpu__stat": "nr_periods 0\n", "cpu__cfs_quota_us": "-1\n", "cpu__cfs_period_us": "100000\n"}, CpuShare()),
        ({}, CpuShare()),
    ],
)
def test_both_versions_tell_throttling_and_quota(tmp_path: Path, files: dict[str, str], share: CpuShare) -> None:
    assert cgroup.cpu_share(_group(tmp_path / "g", **files)) == share


def test_a_limit_on_memory_may_be_absent_in_three_ways(tmp_path: Path) -> None:
    assert cgroup.memory_limit_bytes(_group(tmp_path / "a", memory__max="max\n")) == 0
    assert cgroup.memory_limit_bytes(_group(tmp_path / "b", memory__limit_in_bytes="9223372036854771712\n")) == 0
    assert cgroup.memory_limit_bytes(None) == 0
    limited = _group(tmp_path / "c", memory__max="83886080\n")
    assert cgroup.memory_folder([tmp_path / "a", limited]) == limited
