"""`kpatrol check` where kpatrol is installed: a task of its agents, judged by its controller (15 s a check)."""

from __future__ import annotations

from pathlib import Path

import pytest

from kpatrol.check.manifests import LABEL
from tests.cluster.checking import keys, not_good, run
from tests.cluster.installed import NODES, Installed

pytestmark = pytest.mark.timeout(900)
TINY = ("--requests", "5", "--rate", "5", "--timeout-ms", "800", "--protocol", "tcp", "--protocol", "udp")


def test_a_check_is_a_task_of_the_agents_that_are_there(release: Installed, tmp_path: Path) -> None:
    number = release.cluster.begin_fault("pair node-1>node-2 loss=100% proto=udp")
    try:
        found = run(release.cluster, tmp_path, "check", *TINY)
    finally:
        count = release.cluster.end_fault(number)
    assert count.dropped > 0
    assert "kpatrol is installed; its agents run netpatrol/kpatrol-check-" in found.told
    assert keys(found.json) == {(node, "*", "task") for node in NODES}
    assert found.code == 1, (found.told, found.json)
    bad = not_good(found.json)
    assert ("node-1", "*", "task") in bad, found.json
    assert ("node-3", "*", "task") not in bad, found.json
    # It made nothing but its task, and that is gone.
    listed = ("netpatrols", "daemonsets", "namespaces")
    assert {kind: release.cluster.json("get", kind, "-A", "-l", LABEL)["items"] for kind in listed} == {
        kind: [] for kind in listed
    }
