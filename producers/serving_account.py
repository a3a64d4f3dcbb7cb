"""What the responder received, sent by the same way as results: ripe runs every two seconds, all of a round at its end.

The judge compares both ends as soon as a round's results are there, so after the agent's own share has ended it looks
four times a second for sources that have fallen silent. A kill -9 loses at most the runs not yet ripe (see receipts);
what is judged then without them has no direction, and says so.
"""

import asyncio
import contextlib
import logging
import time

import pyarrow as pa

from producers.batches import receipts_envelope
from producers.config import Identity
from producers.metrics import Metrics
from producers.receipts import OLD_US, Receipts
from producers.share import Store

log = logging.getLogger(__name__)

EVERY_S = 2.0
# After a round: when first and how often it is looked, for how long, and how long a source must have been silent.
FIRST_S = 0.1
EAGER_S = 0.25
EAGER_FOR_S = 3.0
SILENT_S = 0.08


class ServingAccount:
    """Takes the receipts collected so far and puts them on their way."""

    def __init__(
        self, *, receipts: Receipts, identity: Identity, incarnation: int, store: Store, metrics: Metrics
    ) -> None:
        self._receipts = receipts
        self._identity = identity
        self._incarnation = incarnation
        self._store = store
        self._metrics = metrics
        self._next_seq = 0
        self._eager_until_s = 0.0
        self._round_over = asyncio.Event()

    async def run(self) -> None:
        """Send what is ripe until cancelled, and everything then."""
        try:
            while True:
                eager = time.monotonic() < self._eager_until_s
                await self._wait(EAGER_S if eager else EVERY_S)
                silent_us = int(SILENT_S * 1e6) if eager else OLD_US
                self._send(self._receipts.take_ripe(now_us=time.time_ns() // 1000, silent_us=silent_us))
        finally:
            self.flush()

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._round_over.wait()
                self._round_over.clear()
                # Others end within moments of us; one row for all of a source's rest, not two.
                await asyncio.sleep(FIRST_S)

    def round_over(self) -> None:
        """The agent's own share of a round has ended, so the others' shares end about now."""
        self._eager_until_s = time.monotonic() + EAGER_FOR_S
        self._round_over.set()

    def flush(self) -> None:
        """Put everything that was received since the last time on its way."""
        self._send(self._receipts.take())

    def _send(self, rows: "pa.RecordBatch | None") -> None:
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
