"""What holds for every test: properties are searched without a clock, a test that hangs fails, a busy machine is no
reason to."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import paced

# A busy machine makes an example slow, not wrong. Where CI is set the same examples are tried on every run.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

# The first test of a file in tests/cluster waits for a whole Kubernetes to come up; soaks take minutes.
_PATIENCE_S = {"cluster": 900, "soak": 3600}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of the slow folders, and those of several tries, their own time limit, where they say none."""
    root = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(root).parts[0] if item.path.is_relative_to(root) else ""
        tries = paced.PATIENCE_S if item.get_closest_marker("paced") else 0
        patience_s = max(tries, _PATIENCE_S.get(folder, 0))
        if patience_s and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(patience_s))


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Play a test marked `paced` again where the machine did not keep time."""
    if item.get_closest_marker("paced") is None:
        return None
    paced.run(item, nextitem)
    return True
