"""The sink: every record of six topics into ClickHouse, once; python -m streams sink.

Each topic has one agent of the same shape: take what has come within FLUSH_S, decode, dead-letter what cannot be
read, store, announce, and only then acknowledge, in order. Anything that fails for good ends the process with
nothing acknowledged. probe-results-v1 is stored exactly once (`flush`); the small topics go to tables that replace
equal identities (`rows`).
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import faust
import mode
import pyarrow as pa

from streams import telemetry
from streams.app import end_after
from streams.dead_letter import Outgoing, Run, Source, dead_letter
from streams.expand import Delivered, TargetTables, deliver, expand
from streams.faust_topics import faust_topic
from streams.flush import Insert, StoredRounds, announcements, plan_flush
from streams.metrics import Metrics
from streams.parts import Parts
from streams.patience import GaveUp, Patience
from streams.publish import Publisher
from streams.rows import ROWS, Located, Tables, ToRows, tables_of
from streams.sink_store import SinkStore
from topics import probe_results, round_progress
from topics.spec import InvalidMessage, Topic

FLUSH_RECORDS = 100
FLUSH_S = 0.2
CRASH_LIMIT_S = 15.0
T = TypeVar("T")
log = logging.getLogger(__name__)


class Store(Protocol):
    """What the sink needs of ClickHouse; every call blocks. Raises ClickHouseAway or ClickHouseRefused."""

    def ping(self) -> None:
        """Return when it answers and has the tables."""

    def insert(self, *, table: str, rows: pa.Table, token: str) -> None:
        """Insert rows in one block; the same token twice inserts once."""

    def stored_batches(self, rounds: Mapping[int, int]) -> Sequence[tuple[int, str, int, int]]:
        """(round id, agent, incarnation, batch_seq) of the batches it has; `rounds` is id to start in microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Came(Generic[T]):
    """A flush's records decoded: the good ones, and the rest on their way to the dead-letter topic."""

    good: tuple[T, ...]
    dead: tuple[Outgoing, ...]
    valid: tuple[bool, ...]
    error: str = ""


class Keeper(Protocol[T]):
    """How one topic is decoded and stored."""

    @property
    def topic(self) -> Topic[Any]:
        """The topic."""

    def decode(self, source: Source, timestamp_ms: int) -> T:
        """One record. Raises InvalidMessage."""

    async def store(self, items: Sequence[T], positions: Mapping[int, int]) -> Sequence[Outgoing]:
        """Put the items into ClickHouse; what is to be announced then. `positions` as in BatchesStored."""


@dataclass(kw_only=True)
class ProbeKeeper:
    """probe-results-v1 into `probe`, each batch exactly once, and BatchesStored for the judge.

    `generation` counts the group's rebalances; `now_us` is the wall clock.
    """

    database: Store
    patience: Patience
    metrics: Metrics
    generation: Callable[[], int]
    now_us: Callable[[], int]
    known: StoredRounds = field(default_factory=StoredRounds)
    targets: TargetTables = field(default_factory=TargetTables)
    topic: Topic[Any] = probe_results.TOPIC

    def decode(self, source: Source, timestamp_ms: int) -> Delivered:
        """One batch, checked. Raises InvalidMessage."""
        batch = self.topic.decode(source.value)
        return deliver(batch, partition=source.partition, offset=source.offset, tables=self.targets)

    async def store(self, items: Sequence[Delivered], positions: Mapping[int, int]) -> Sequence[Outgoing]:
        """Insert what ClickHouse does not have; name every batch of the flush to the judge."""
        self.known.begin(self.generation())
        asked = self.known.unknown(items)
        if asked:
            found = await self.patience("read back", lambda: self.database.stored_batches(asked))
            self.known.learn(asked, found)
        flush = plan_flush(items, stored=self.known.rounds)
        for insert in flush.inserts:
            await self._insert(insert)
        self.metrics.add("kpatrol_repeated_batches_total", len(flush.repeats))
        stored = announcements(items, repeats=flush.repeats, positions=positions, at_us=self.now_us())
        progress = round_progress.TOPIC
        return [Outgoing(topic=progress.name, key=progress.key(s), value=progress.encode(s)) for s in stored]

    async def _insert(self, insert: Insert) -> None:
        rows = await asyncio.to_thread(expand, insert.batches)
        if rows.num_rows:
            table = pa.Table.from_batches([rows])
            await _timed_insert(self, table="probe", rows=table, token=insert.token)
        self.known.add(insert.batches)


@dataclass(kw_only=True)
class RowKeeper:
    """One of the small topics into its tables."""

    topic: Topic[Any]
    to_rows: ToRows
    database: Store
    patience: Patience
    metrics: Metrics

    def decode(self, source: Source, timestamp_ms: int) -> Located:
        """One record that fits its table. Raises InvalidMessage."""
        record = self.topic.decode(source.value)
        item = Located(record=record, partition=source.partition, offset=source.offset, timestamp_ms=timestamp_ms)
        tables_of([item], to_rows=self.to_rows)
        return item

    async def store(self, items: Sequence[Located], positions: Mapping[int, int]) -> Sequence[Outgoing]:
        """Insert the items, a table after the other; nothing is announced."""
        tables: Tables = await asyncio.to_thread(tables_of, items, to_rows=self.to_rows)
        names = sorted(f"{i.partition}/{i.offset}/{i.timestamp_ms}" for i in items)
        digest = hashlib.sha1("\n".join((self.topic.name, *names)).encode(), usedforsecurity=False).hexdigest()
        for table, rows in tables.items():
            await _timed_insert(self, table=table, rows=rows, token=f"{table}:{digest}")
        return ()


async def _timed_insert(keeper: ProbeKeeper | RowKeeper, *, table: str, rows: pa.Table, token: str) -> None:
    began_s = time.monotonic()
    with telemetry.inserting(table=table, rows=rows.num_rows):
        await keeper.patience(
            f"insert into {table}", lambda: keeper.database.insert(table=table, rows=rows, token=token)
        )
    keeper.metrics.add("kpatrol_insert_seconds_total", time.monotonic() - began_s, table=table)
    keeper.metrics.add("kpatrol_inserts_total", table=table)
    keeper.metrics.add("kpatrol_rows_stored_total", rows.num_rows, table=table)


def decode_all(keeper: Keeper[T], messages: Sequence[Any]) -> Came[T]:
    """Decode a flush's messages (Kafka's, with partition, offset, key, value, timestamp in seconds)."""
    good: list[T] = []
    dead: list[Outgoing] = []
    valid: list[bool] = []
    last = ""
    for message in messages:
        if message.value is None:
            continue  # a tombstone of a compacted topic: nothing was said
        source = Source(partition=message.partition, offset=message.offset, key=message.key, value=message.value)
        try:
            good.append(keeper.decode(source, int(message.timestamp * 1000)))
            valid.append(True)
        except InvalidMessage as error:
            last = str(error)
            log.error("%s %s/%s: %s", keeper.topic.name, source.partition, source.offset, last)
            dead.append(dead_letter(topic=keeper.topic, source=source, error=last))
            valid.append(False)
    return Came(good=tuple(good), dead=tuple(dead), valid=tuple(valid), error=last)


def positions(messages: Sequence[Any]) -> dict[int, int]:
    """Next offset of every partition of a flush."""
    ends: dict[int, int] = {}
    for message in messages:
        ends[message.partition] = max(ends.get(message.partition, 0), message.offset + 1)
    return ends


async def flush_events(
    messages: Sequence[Any], *, keeper: Keeper[T], run: Run, publisher: Publisher, metrics: Metrics
) -> None:
    """Store and announce a flush; when this returns its events may be acknowledged, else none of them."""
    metrics.add("kpatrol_records_total", len(messages), topic=keeper.topic.name)
    came = await asyncio.to_thread(decode_all, keeper, messages)
    run.see(came.valid, came.error)
    outgoing = list(came.dead)
    metrics.add("kpatrol_dead_letters_total", len(came.dead), topic=keeper.topic.name)
    if came.good:
        outgoing += await keeper.store(came.good, positions(messages))
    await publisher.send(outgoing)


def _add_agent(app: faust.App, *, keeper: Keeper[Any], parts: Parts) -> None:
    async def keep(stream: Any) -> None:
        run = Run()
        try:
            async with Publisher(kafka=parts.config.kafka, client_id="kpatrol-sink") as publisher:
                async for events in stream.noack().noack_take(FLUSH_RECORDS, within=FLUSH_S):
                    messages = [event.message for event in events]
                    with telemetry.processing(topic=keeper.topic.name, group="kpatrol-sink", records=len(messages)):
                        await flush_events(messages, keeper=keeper, run=run, publisher=publisher, metrics=parts.metrics)
                    for event in events:
                        await stream.ack(event)
        except Exception as error:
            log.critical("%s: %s: %s", keeper.topic.name, type(error).__name__, error)
            # Faust may wait for what will never be acknowledged; there is nothing to save.
            end_after(0.0 if isinstance(error, GaveUp) else CRASH_LIMIT_S)
            raise

    app.agent(faust_topic(app, keeper.topic), name=f"sink-{keeper.topic.name}", concurrency=1)(keep)


class Gate(mode.Service):  # type: ignore[misc]
    """Holds the start until ClickHouse answers: a member that cannot store must not join the group."""

    def __init__(self, *, database: Store, parts: Parts, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._database = database
        self._patience = Patience(
            hold=parts.hold,
            metrics=parts.metrics,
            leaving=lambda: "the process is stopping" if self.should_stop else "",
        )

    async def on_start(self) -> None:
        """Wait. Raises GaveUp when the process is told to stop, or ClickHouse refuses for long."""
        await self._patience("waiting for ClickHouse", self._database.ping)


def attach(app: faust.App, parts: Parts) -> Sequence[Any]:
    """Add the sink's agents; see app.ServiceModule."""

    def leaving() -> str:
        if app.should_stop:
            return "the process is stopping"
        return "a rebalance has begun" if app.rebalancing else ""

    def patience() -> Patience:
        return Patience(hold=parts.hold, metrics=parts.metrics, leaving=leaving)

    database: Store = SinkStore(parts.config)
    probes = ProbeKeeper(
        database=database,
        patience=patience(),
        metrics=parts.metrics,
        generation=lambda: int(app.consumer_generation_id),
        now_us=lambda: time.time_ns() // 1000,
    )
    _add_agent(app, keeper=probes, parts=parts)
    for topic, to_rows in ROWS.values():
        keeper = RowKeeper(topic=topic, to_rows=to_rows, database=database, patience=patience(), metrics=parts.metrics)
        _add_agent(app, keeper=keeper, parts=parts)
    return (Gate(database=database, parts=parts),)
