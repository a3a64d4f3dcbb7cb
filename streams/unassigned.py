"""A group leader that knew no partitions has given nobody anything, and nothing will make it look again.

Seen after a broker's restart: the join came before the metadata, every partition was left out, and the worker stayed up
owning nothing. The assignor says so in its log and nowhere else; a fresh start joins with fresh metadata.
"""

import logging
import os
import threading
from collections.abc import Callable

from streams.parts import EXIT_RESTART

ASSIGNORS = "aiokafka.coordinator.assignors.roundrobin"
WAIT_S = 1.0
log = logging.getLogger(__name__)


def _restart() -> None:
    log.critical("partitions were assigned without metadata: ending, to join again")
    os._exit(EXIT_RESTART)


class WithoutMetadata(logging.Handler):
    """Ends the process a moment after the assignor has said that it knew no partitions of a topic."""

    def __init__(self, *, end: Callable[[], None] = _restart, wait_s: float = WAIT_S) -> None:
        super().__init__(level=logging.WARNING)
        self._end = end
        self._wait_s = wait_s
        self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        """Look at one record of the assignor."""
        if self._told or "No partition metadata" not in record.getMessage():
            return
        self._told = True
        timer = threading.Timer(self._wait_s, self._end)
        timer.daemon = True
        timer.start()


def watch() -> None:
    """From now on."""
    logging.getLogger(ASSIGNORS).addHandler(WithoutMetadata())
