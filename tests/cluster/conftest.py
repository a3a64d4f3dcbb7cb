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

_HERE = Path(__file__).parent
_LAST = ("test_tasks", "test_check_task", "test_targets", "test_rounds", "test_nodes", "test_changes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the shared cluster side by side and in their order; everything else stays where it is."""
    places = [place for place, item in enumerate(items) if item.path.parent == _HERE]
    ordered = sorted((items[place] for place in places), key=_rank)
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


def _rank(item: pytest.Item) -> int:
    return _LAST.index(item.path.stem) + 1 if item.path.stem in _LAST else 0


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
