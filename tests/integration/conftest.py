"""In which order two processes take the files of this folder: the long ones first, so that none is left for the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.order import sort_files

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
    sort_files(items, folder=_HERE, rank=_rank)


def _rank(file: str) -> int:
    return _FIRST.index(file) if file in _FIRST else len(_FIRST)
