"""One agent's share of one round under load: rows become batches, batches go to the spool, all of it is accounted.

A share is done when every batch it sealed is settled (in Kafka, or lost with a cause). The same object stands for a
share that an earlier incarnation left behind: then there is nothing to run, only batches to settle.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from producers.batches import Batches
from producers.journal import Account, Began, Ended, Lost, Sealed
from producers.outbox import Outbox
from producers.rows import SealedBatch
from producers.spool import Spool

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Where sealed batches go."""

    spool: Spool
    outbox: Outbox


class Share:
    """A share's account and which of its batches are still under way."""

    def __init__(self, *, account: Account, under_way: Iterable[int] = ()) -> None:
        began = account.story.began
        if began is None:
            raise ValueError("a share without its beginning")
        self.began: Began = began
        self.account = account
        self._under_way = set(under_way)
        self._settled = asyncio.Event()
        self._look()

    @property
    def key(self) -> tuple[int, int]:
        """(round id, incarnation)."""
        return self.began.round_id, self.began.incarnation

    def sealed(self, *, batch_seq: int, rows: int) -> None:
        """A batch is in the spool and will be settled later."""
        self._under_way.add(batch_seq)
        self._settled.clear()
        self.account.write(Sealed(batch_seq=batch_seq, rows=rows))

    def settle(self, *, batch_seq: int, rows: int, cause: str) -> None:
        """A batch has arrived in Kafka, or with a cause never will."""
        if cause:
            self.lost(batch_seq=batch_seq, rows=rows, cause=cause)
        self._under_way.discard(batch_seq)
        self._look()

    def lost(self, *, batch_seq: int, rows: int, cause: str) -> None:
        """A batch will never reach Kafka."""
        log.error("event=batch_lost round=%d batch=%d rows=%d cause=%r", self.began.round_id, batch_seq, rows, cause)
        self.account.write(Lost(batch_seq=batch_seq, rows=rows, cause=cause))

    def end(self, ended: Ended) -> None:
        """The load is over."""
        self.account.write(ended)
        self._look()

    async def settled(self) -> None:
        """Return when no batch is under way any more."""
        await self._settled.wait()

    def _look(self) -> None:
        if not self._under_way:
            self._settled.set()


class Sealer:
    """Takes a share's sealed batches: numbers, encodes and spools them. Knows when it last did."""

    def __init__(self, *, share: Share, batches: Batches, store: Store, shift_us: int) -> None:
        self._share = share
        self._batches = batches
        self._store = store
        self._shift_us = shift_us
        self._next_seq = 0
        self.last_s = asyncio.get_running_loop().time()

    def take(self, batch: SealedBatch) -> None:
        """Put one batch on its way; one that the disk refuses is lost, with that cause."""
        seq, self._next_seq = self._next_seq, self._next_seq + 1
        self.last_s = asyncio.get_running_loop().time()
        envelope = self._batches.envelope(batch=batch, batch_seq=seq, shift_us=self._shift_us)
        round_id, incarnation = self._share.key
        try:
            entry = self._store.spool.append(
                kind="results",
                incarnation=incarnation,
                round_id=round_id,
                batch_seq=seq,
                rows=batch.rows,
                envelope=envelope,
            )
        except OSError as error:
            self._share.lost(batch_seq=seq, rows=batch.rows, cause=f"spool not writable: {error.strerror}")
            return
        self._share.sealed(batch_seq=seq, rows=batch.rows)
        self._store.outbox.put(entry, envelope)
        self._store.outbox.make_room()
