"""What every stream service is built of and shares: its settings, its metrics, and the word that it waits."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic

from streams.config import StreamsConfig
from streams.metrics import Metrics

EXIT_RESTART = 75  # EX_TEMPFAIL: start me again


class Hold:
    """Says that the service waits for something outside itself, so the watchdog does not take that for a fault."""

    def __init__(self) -> None:
        self._waits: dict[object, tuple[str, float]] = {}

    @property
    def reason(self) -> str:
        """What it waits for, empty when it does not wait."""
        return ", ".join(reason for reason, _ in list(self._waits.values()))

    @property
    def seconds(self) -> float:
        """For how long it has waited, 0 when it does not wait."""
        return max((monotonic() - since_s for _, since_s in list(self._waits.values())), default=0.0)

    @contextlib.contextmanager
    def waiting(self, reason: str) -> Iterator[None]:
        """Wait for `reason` within the block; several may wait at once."""
        wait = object()
        self._waits[wait] = (reason, monotonic())
        try:
            yield
        finally:
            del self._waits[wait]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a service is built of; handed to its `attach`."""

    config: StreamsConfig
    metrics: Metrics
    hold: Hold
