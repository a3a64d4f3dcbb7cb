"""What the responder received, sent every two seconds and after each round, by the same way as results.

A kill -9 loses at most the receipts of the last two seconds; nothing else does.
"""

import asyncio
import logging
from collections.abc import Callable

import pyarrow as pa

from producers.batches import receipts_envelope
from producers.config import Identity
from producers.metrics import Metrics
from producers.share import Store

log = logging.getLogger(__name__)

EVERY_S = 2.0


class ServingAccount:
    """Takes the receipts collected so far and puts them on their way."""

    def __init__(
        self,
        *,
        take: Callable[[], pa.RecordBatch | None],
        identity: Identity,
        incarnation: int,
        store: Store,
        metrics: Metrics,
    ) -> None:
        self._take = take
        self._identity = identity
        self._incarnation = incarnation
        self._store = store
        self._metrics = metrics
        self._next_seq = 0

    async def run(self) -> None:
        """Flush every `EVERY_S` until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(EVERY_S)
                self.flush()
        finally:
            self.flush()

    def flush(self) -> None:
        """Put what was received since the last time on its way, if anything."""
        rows = self._take()
        if rows is None or not rows.num_rows:
            return
        seq, self._next_seq = self._next_seq, self._next_seq + 1
        envelope = receipts_envelope(rows=rows, identity=self._identity, incarnation=self._incarnation, batch_seq=seq)
        try:
            entry = self._store.spool.append(
                kind="receipts",
                incarnation=self._incarnation,
                round_id=0,
                batch_seq=seq,
                rows=rows.num_rows,
                envelope=envelope,
            )
        except OSError as error:
            log.error("event=receipts_lost batch=%d rows=%d why=%r", seq, rows.num_rows, str(error))
            return
        self._metrics.add("receipt_batches_total")
        self._store.outbox.put(entry, envelope)
        self._store.outbox.make_room()
