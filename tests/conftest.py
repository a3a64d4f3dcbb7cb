"""What holds for every test: properties are searched without a clock, a test that hangs fails, a busy machine is no
reason to, and what was played again is told."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import paced

# A busy machine makes an example slow, not wrong. Where CI is set the same examples are tried on every run.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

# The first test of a file in tests/cluster waits for a whole Kubernetes to come up; soaks take minutes.
_PATIENCE_S = {"cluster": 900, "integration": 600, "soak": 3600}
_REAL_PARTS = {"cluster", "integration"}
_PLAYED = pytest.StashKey[paced.Played]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of the slow folders, and those of several tries, their own time limit, where they say none."""
    for item in items:
        folder = _folder(item)
        tries = paced.PATIENCE_S if item.get_closest_marker("paced") else 0
        patience_s = max(tries, _PATIENCE_S.get(folder, 0))
        if patience_s and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(patience_s))


def pytest_configure(config: pytest.Config) -> None:
    """What was played again is kept with the run."""
    config.stash[_PLAYED] = paced.Played()
    if hasattr(config, "workerinput"):
        # One of several processes (`-n 2`) is told the terminal's size; what a test starts writes into a pipe as ever.
        for name in ("COLUMNS", "LINES"):
            os.environ.pop(name, None)


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Play a test again where there is a reason to (tests/paced.py)."""
    marked = item.get_closest_marker("paced") is not None
    if not marked and _folder(item) not in _REAL_PARTS:
        return None
    paced.run(item, nextitem, paced=marked, played=item.config.stash[_PLAYED])
    return True


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several processes hands over what it played again."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["played_again"] = session.config.stash[_PLAYED].again


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a process of several has handed over is named with the rest."""
    handed_over = getattr(node, "workeroutput", None) or {}
    node.config.stash[_PLAYED].again += handed_over.get("played_again", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what was played again: each is a bug of the test or of the product until somebody has looked."""
    for test, why, said in config.stash[_PLAYED].again:
        terminalreporter.section(f"played again ({why}): {test}", yellow=True)
        terminalreporter.write_line(said)


def _folder(item: pytest.Item) -> str:
    root = Path(__file__).parent
    return item.path.relative_to(root).parts[0] if item.path.is_relative_to(root) else ""
