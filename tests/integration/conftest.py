"""In which order two processes take the files of this folder: the long ones first, so that none is left for the end."""

from __future__ import annotations

from pathlib import Path

import pytest

_HERE = Path(__file__).parent
# From half a minute on, the longest first. Without `-n` the order does not matter.
_FIRST = (
    "test_chaos",
    "test_lab",
    "test_agent",
    "test_scale_out",
    "test_late_rounds",
    "test_sink_with_kafka",
    "test_judge",
    "test_lab_substrate",
    "test_rollup",
    "test_parked",
    "test_hooks",
    "test_stop",
    "test_alarms_app",
    "test_controller",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files as above, everything else where it is; tests of a file stay side by side."""
    places = [place for place, item in enumerate(items) if item.path.parent == _HERE]
    ordered = sorted((items[place] for place in places), key=_rank)
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


def _rank(item: pytest.Item) -> int:
    return _FIRST.index(item.path.stem) if item.path.stem in _FIRST else len(_FIRST)
