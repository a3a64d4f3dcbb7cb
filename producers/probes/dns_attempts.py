"""DNS over UDP as a resolver asks: again after a timeout, over TCP after a truncated reply. Each attempt is a row.

An attempt has the whole timeout for itself and its own planned time, the moment at which it became due, so that what
the one before it took is not charged to it. Its row's number is that of the request plus ATTEMPT times `attempt`. A
reply over TCP is not asked for again.
"""

from collections.abc import Callable

from producers.probes.base import ATTEMPT, Setup
from producers.probes.datagram import Answer, DatagramChannel, Messages, Query
from producers.probes.stream import StreamChannel
from producers.rows import Row
from topics.outcome import Outcome

_ATTEMPT = 22


def as_attempts(report: Callable[[Row], None]) -> Callable[[Row], None]:
    """Reports rows of another channel under the attempt that their number says."""

    def told(row: Row) -> None:
        attempt = row[22] + row[0] // ATTEMPT
        report((*row[:_ATTEMPT], attempt, *row[_ATTEMPT + 1 :]))  # type: ignore[arg-type]

    return told


class AttemptsChannel(DatagramChannel):
    """`attempts` in all at a query over UDP; `tcp` (None: none) asks what came truncated."""

    def __init__(self, setup: Setup, messages: Messages, *, attempts: int, tcp: StreamChannel | None) -> None:
        super().__init__(setup, messages)
        self._attempts = attempts
        self._tcp = tcp

    def follow(self, query: Query, answer: Answer) -> Callable[[], None] | None:
        """A further attempt, where this one calls for it."""
        by_tcp = answer.error == "truncated" and self._tcp is not None
        late = answer.outcome is Outcome.timeout and query.seq // ATTEMPT + 1 < self._attempts
        if not (by_tcp or late):
            return None
        setup = self.setup
        number = setup.another(setup.index, query.seq)
        if number is None:
            return None
        way = self._tcp.send if by_tcp and self._tcp is not None else self.send

        def then() -> None:
            now_us = setup.clock()
            way(number, now_us - setup.start_us, now_us)

        return then

    def close(self) -> None:
        """Close the sockets and the connections."""
        super().close()
        if self._tcp is not None:
            self._tcp.close()
