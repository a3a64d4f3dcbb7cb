"""Which failed tests are played again; each is told at the end of the run, with the reason and what it had said.

Tests marked `paced` measure what a machine distorts that does not keep time: they are played again when it did not,
and fail when they fail `TRIES` times.

Tests of real parts (brokers, engines, clusters, dozens of processes) are played once more whatever the reason, but no
more than `MOST_UNEXPLAINED` of a process: one that fails twice fails, and so does the run of a product that fails
now here and now there. Unit tests are never played again.
"""

import threading
import time
from dataclasses import dataclass, field

import pytest
from _pytest.runner import runtestprotocol

TRIES = 3
# A sleeper that wakes so late had no CPU when it was due.
DISTURBED_S = 0.010
NAP_S = 0.005
# What has taken so long is not begun anew: one time limit is for all tries of a test.
LONGEST_S = 150.0
PATIENCE_S = 600
MOST_UNEXPLAINED = 3


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


@dataclass
class Played:
    """What was played again in this process: (test, why, what it had said)."""

    again: list[tuple[str, str, str]] = field(default_factory=list)
    unexplained: int = 0


def run(item: pytest.Item, nextitem: pytest.Item | None, *, paced: bool, played: Played) -> None:
    """Run a test, again where there is a reason to; the last try's reports count."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    tries, unexplained = 0, 0
    while True:
        tries += 1
        began_s = time.monotonic()
        with Watch() as watch:
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if not any(report.failed for report in reports):
            break
        late = watch.late_max_s > DISTURBED_S and time.monotonic() - began_s < LONGEST_S
        if paced and late and tries < TRIES:
            why = f"the machine was {watch.late_max_s * 1000:.0f} ms late"
        elif not unexplained and played.unexplained < MOST_UNEXPLAINED:
            why, unexplained = "once more", 1
            played.unexplained += 1
        else:
            break
        said = "\n".join(report.longreprtext[-4000:] for report in reports if report.failed)
        played.again.append((item.nodeid, why, said))
        if any(report.failed and report.when == "setup" for report in reports):
            # What a fixture of the file or of the run could not set up is remembered as failed, unless all ends.
            item.session._setupstate.teardown_exact(None)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
