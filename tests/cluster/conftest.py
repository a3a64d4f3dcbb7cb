"""One cluster with kpatrol on it, by Helm, for all tests that only look at it or mend what they break. Its users come
last in this folder, and among them those that end nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import running_cluster
from tests.cluster.edge import edge
from tests.cluster.installed import NODES, Installed, installed
from tests.cluster.outside import outside
from tests.integration.labs import leftovers
from tests.order import sort_files

_HERE = Path(__file__).parent
_LAST = ("test_tasks", "test_check_task", "test_targets", "test_rounds", "test_nodes", "test_changes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the shared cluster side by side and in their order; everything else stays where it is."""
    sort_files(items, folder=_HERE, rank=_rank)


def _rank(file: str) -> int:
    return _LAST.index(file) + 1 if file in _LAST else 0


@pytest.fixture(scope="package")
def release() -> Iterator[Installed]:
    """Both address families, three nodes and one that may join, load balancers and an ingress controller. A task's
    minute has ten seconds there."""
    with (
        running_cluster(nodes=len(NODES), spare=1, dual=True) as cluster,
        outside(cluster) as services,
        edge(cluster),
        installed(cluster, services) as running,
    ):
        yield running
    assert leftovers(cluster.id) == []
