"""From the spool to Kafka: oldest first, a bounded number on the way at a time, each dropped from the spool when
Kafka has it. Receipts go the same way as results: a direction judged from receipts we lost ourselves would be wrong.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from producers.publish import Sender, Unpublishable
from producers.spool import Entry, Envelope, Spool, TornRecord

log = logging.getLogger(__name__)

Settled = Callable[[Entry, str], None]


class Outbox:
    """Sends what the spool holds. `on_settled(entry, cause)` is called once an entry: cause is empty when it arrived,
    else why it never will. It is set after building, since who listens needs the outbox first."""

    on_settled: Settled

    def __init__(self, *, spool: Spool, publisher: Sender) -> None:
        self._spool = spool
        self._publisher = publisher
        self._waiting: deque[Entry] = deque(spool.entries())
        self._fresh: dict[int, Envelope] = {}
        self._room = asyncio.Semaphore(spool.window)
        self._arrived = asyncio.Event()
        self._gone = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()

    def put(self, entry: Entry, envelope: Envelope) -> None:
        """Queue an entry that the spool has just taken. The first few keep their bytes, the rest are read again."""
        self._waiting.append(entry)
        if len(self._fresh) < self._spool.window:
            self._fresh[entry.order] = envelope
        self._arrived.set()

    def make_room(self) -> None:
        """Give up the oldest entries that are not on their way until the spool is within its bound."""
        for entry in self._spool.excess():
            self._fresh.pop(entry.order, None)
            self._settle(entry, "spool evicted")

    async def empty(self) -> None:
        """Return when nothing waits and nothing is under way."""
        while len(self._spool):
            self._gone.clear()
            await self._gone.wait()

    async def run(self) -> None:
        """Send until cancelled. What is on its way then stays in the spool."""
        try:
            while True:
                await self._room.acquire()
                entry = await self._next()
                self._spool.hold(entry)
                task = asyncio.create_task(self._deliver(entry))
                self._under_way.add(task)
                task.add_done_callback(self._delivered)
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _next(self) -> Entry:
        while True:
            while self._waiting:
                entry = self._waiting.popleft()
                if entry in self._spool:
                    return entry
            self._arrived.clear()
            await self._arrived.wait()

    async def _deliver(self, entry: Entry) -> None:
        cause = ""
        try:
            envelope = self._fresh.pop(entry.order, None) or self._spool.read(entry)
            await self._publisher.send(
                topic=envelope.topic, key=envelope.key, value=envelope.value, headers=envelope.headers
            )
        except TornRecord as error:
            cause = "spool record torn"
            log.error("event=spool_record_torn file=%s why=%r", entry.name, str(error))
        except Unpublishable as error:
            cause = "record refused by Kafka"
            log.error("event=record_refused file=%s why=%r", entry.name, str(error))
        self._settle(entry, cause)

    def _settle(self, entry: Entry, cause: str) -> None:
        # First on record, then off the disk: a crash between the two repeats, and forgets nothing.
        self.on_settled(entry, cause)
        self._spool.remove(entry)
        self._gone.set()

    def _delivered(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        self._room.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            # Left in the spool for the next start; nothing here can mend a bug.
            log.error("event=delivery_failed why=%r", error, exc_info=error)
