"""Tests marked `paced` measure what a machine distorts that does not keep time: they are played again when it did not.

A test that fails on a machine that kept time fails, and so does one that fails `TRIES` times.
"""

import threading
import time

import pytest
from _pytest.runner import runtestprotocol

TRIES = 3
# A sleeper that wakes so late had no CPU when it was due.
DISTURBED_S = 0.010
NAP_S = 0.005
# What has taken so long is not begun anew: one time limit is for all tries of a test.
LONGEST_S = 150.0
PATIENCE_S = 600


class Watch:
    """How late a thread was at the most that only sleeps and wakes."""

    def __init__(self) -> None:
        self.late_max_s = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._over.is_set():
            due_s = time.monotonic() + NAP_S
            time.sleep(NAP_S)
            self.late_max_s = max(self.late_max_s, time.monotonic() - due_s)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def run(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Run a test, again where the machine disturbed it; the last try's reports count."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for left in reversed(range(TRIES)):
        began_s = time.monotonic()
        with Watch() as watch:
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
        failed = any(report.failed for report in reports)
        if not (failed and left and watch.late_max_s > DISTURBED_S and time.monotonic() - began_s < LONGEST_S):
            break
        why = f"\n{item.nodeid}: failed while the machine was {watch.late_max_s * 1000:.0f} ms late; played again\n"
        item.config.get_terminal_writer().write(why)
        for report in reports:
            item.config.get_terminal_writer().write(report.longreprtext[-2000:])
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
