"""The sink between a real Kafka and a real endpoint: killed twice, its ClickHouse away, its input repeated."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from kpatrol.lab.java import find_java
from kpatrol.lab.kafka import Kafka, KafkaFiles
from kpatrol.lab.kafka_jars import cache_folder, get_jars
from kpatrol.lab.state import LabState
from streams.clickhouse import ClickHouse, ClickHouseAway
from streams.migrate import Migration, Values
from tests.integration.endpoint_fixture import WRITER_PASSWORD, Endpoint, running_endpoint
from tests.unit.streams.batches import batch, head
from topics import agent_reports, probe_receipts, probe_results, round_progress, round_verdicts
from topics.apply import apply
from topics.connection import KafkaConnection
from topics.round_progress import BatchesStored
from topics.spec import InvalidMessage

AGENTS = 4
BATCHES = 50
ROWS = 40
ROUND_ID = 2**63 + 11
# Longer than a session of its group.
AWAY_S = 9.0
BATCH = tuple[str, int, int]


@asynccontextmanager
async def running_kafka(folder: Path) -> AsyncIterator[Kafka]:
    lab = LabState.create(folder)
    files = KafkaFiles(
        java=find_java(),
        jars=await asyncio.to_thread(get_jars, cache_folder(os.environ), say=print),
        folder=folder / "kafka",
    )
    kafka = await Kafka.start(lab=lab, files=files)
    try:
        yield kafka
    finally:
        await kafka.kill()
        lab.close()


@dataclass
class Sink:
    """The sink's process; every start has the same log."""

    environment: dict[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    exits: list[int] = field(default_factory=list)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streams", "sink"], env=self.environment, stdout=log, stderr=log
            )

    def end(self, how: Callable[["subprocess.Popen[bytes]"], None]) -> int:
        assert self.process is not None
        how(self.process)
        code = self.process.wait(60)
        self.process = None
        return code


@contextmanager
def running_sink(*, kafka: KafkaConnection, endpoint: Endpoint, folder: Path) -> Iterator[Sink]:
    password = folder / "password"
    password.write_text(WRITER_PASSWORD)
    environment = {
        **os.environ,
        "KPATROL_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "KPATROL_CLICKHOUSE_URL": f"http://writer@127.0.0.1:{endpoint.port}/kpatrol",
        "KPATROL_CLICKHOUSE_PASSWORD_FILE": str(password),
        "KPATROL_SESSION_TIMEOUT_S": "6",
    }
    sink = Sink(environment=environment, log=folder / "sink.log")
    sink.start()
    try:
        yield sink
    finally:
        if sink.process is not None:
            sink.end(subprocess.Popen.kill)


@dataclass
class Told:
    """What BatchesStored has named so far."""

    batches: dict[BATCH, int] = field(default_factory=dict)
    repeats: int = 0
    positions: dict[int, int] = field(default_factory=dict)

    def take(self, value: bytes) -> None:
        record = round_progress.TOPIC.decode(value)
        assert isinstance(record, BatchesStored)
        assert record.task_uid == "uid"
        self.repeats += record.duplicate_batches
        self.positions[record.partition] = max(self.positions.get(record.partition, 0), record.next_offset)
        for stored in record.batches:
            assert stored.round_id == ROUND_ID
            self.batches[(stored.agent, stored.incarnation, stored.batch_seq)] = stored.rows


def numbered(of: probe_results.BatchHead, batch_seq: int) -> probe_results.Batch:
    """A batch whose requests are numbered through the agent's share, as an agent does."""
    first = batch_seq * ROWS
    return batch(
        rows=ROWS,
        seed=batch_seq,
        of=of,
        seq=np.arange(first, first + ROWS, dtype=np.uint32),
        planned_us=np.arange(first, first + ROWS, dtype=np.uint64) * 1000,
    )


async def produce(kafka: KafkaConnection, start_us: int, pause_s: float) -> None:
    """All agents' batches, some of them published a second time, one record that nobody can read."""
    producer = AIOKafkaProducer(**kafka.producer_options())
    await producer.start()
    try:
        for seq in range(BATCHES):
            for name in (f"agent-{i}" for i in range(AGENTS)):
                of = head(round_id=ROUND_ID, start_us=start_us, agent=name, batch_seq=seq, node=name)
                value = probe_results.encode(numbered(of, seq))
                for _ in range(2 if seq % 10 == 3 else 1):
                    await producer.send_and_wait(
                        probe_results.TOPIC.name,
                        key=name.encode(),
                        value=value,
                        headers=probe_results.headers(of, ROWS),
                    )
            await asyncio.sleep(pause_s)
        await producer.send_and_wait(probe_results.TOPIC.name, key=b"agent-0", value=b"not a batch")
        for topic in (agent_reports.TOPIC, probe_receipts.TOPIC, round_verdicts.TOPIC):
            await producer.send_and_wait(topic.name, key=b"k", value=topic.encode(topic.example))
    finally:
        await producer.stop()


async def follow_progress(kafka: KafkaConnection, told: Told) -> None:
    consumer = AIOKafkaConsumer(auto_offset_reset="earliest", **kafka.client_options())
    await consumer.start()
    try:
        consumer.assign([TopicPartition(round_progress.TOPIC.name, p) for p in range(round_progress.TOPIC.partitions)])
        await consumer.seek_to_beginning()
        async for message in consumer:
            told.take(message.value)
    finally:
        await consumer.stop()


async def until(what: str, is_so: Callable[[], bool], *, within_s: float, sink: Sink) -> None:
    end = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end, f"{what}: not within {within_s} s\n{sink.log.read_text()[-3000:]}"
        await asyncio.sleep(0.1)


async def disturb(*, sink: Sink, endpoint: Endpoint, told: Told) -> None:
    """Two kill -9 of the sink and 9 s without ClickHouse, each while batches keep coming."""
    total = AGENTS * BATCHES
    for part in (0.15, 0.4):
        await until(f"{part:.0%} stored", lambda p=part: len(told.batches) >= p * total, within_s=90, sink=sink)  # type: ignore[misc]
        sink.end(subprocess.Popen.kill)
        sink.start()
    await until("60% stored", lambda: len(told.batches) >= 0.6 * total, within_s=90, sink=sink)
    await asyncio.to_thread(endpoint.kill)
    before = len(told.batches)
    await asyncio.sleep(AWAY_S)
    assert len(told.batches) <= before + 100, "something was announced without ClickHouse"
    assert sink.process is not None
    assert sink.process.poll() is None, "the sink did not wait for ClickHouse"
    await asyncio.to_thread(endpoint.start)


def ask(database: ClickHouse, sql: str) -> dict[str, Any]:
    try:
        return database.query_rows(sql)[0]
    except ClickHouseAway:
        return {}


def stored(database: ClickHouse) -> dict[str, Any]:
    return ask(
        database,
        f"SELECT count() AS rows, uniqExact(agent, incarnation, seq) AS distinct_rows, "
        f"uniqExact(agent, incarnation, batch_seq) AS batches, sum(dur_us) AS dur "
        f"FROM probe WHERE round_id = {ROUND_ID}",
    )


async def scenario(folder: Path, endpoint: Endpoint) -> None:
    database = ClickHouse(url=f"http://writer@127.0.0.1:{endpoint.port}/kpatrol", password=WRITER_PASSWORD)
    # The examples of the small topics are of a fixed day: let no TTL drop them.
    Migration(clickhouse=database, values=Values(raw_days=7_300, agent_days=7_300, round_days=7_300)).apply()
    async with running_kafka(folder) as broker:
        kafka = broker.connection("admin")
        await apply(kafka=kafka)
        told = Told()
        with running_sink(kafka=kafka, endpoint=endpoint, folder=folder) as sink:
            following = asyncio.create_task(follow_progress(kafka, told))
            producing = asyncio.create_task(produce(kafka, time.time_ns() // 1_000_000 * 1000, 0.4))
            await disturb(sink=sink, endpoint=endpoint, told=told)
            await producing
            await until("all stored", lambda: len(told.batches) == AGENTS * BATCHES, within_s=90, sink=sink)
            wanted = {(f"agent-{i}", 1, seq): ROWS for i in range(AGENTS) for seq in range(BATCHES)}
            assert told.batches == wanted
            assert told.repeats >= AGENTS * 5
            await until("the agent's report", lambda: ask(database, "SELECT count() AS n FROM agent")["n"] == 1,
                        within_s=60, sink=sink)  # fmt: skip
            await assert_dead_letter(kafka)
            assert sink.end(subprocess.Popen.terminate) == 0
            following.cancel()
        assert_rows(database, wanted)
        await assert_committed(kafka, told)
    database.close()


def assert_rows(database: ClickHouse, wanted: dict[BATCH, int]) -> None:
    """Raw rows without FINAL: each exactly once, and the small topics' rows are there."""
    durations = sum(sum(batch(rows=ROWS, seed=seq).rows.column("dur_us").to_pylist()) for seq in range(BATCHES))
    expected = len(wanted) * ROWS
    assert stored(database) == {
        "rows": expected,
        "distinct_rows": expected,
        "batches": len(wanted),
        "dur": durations * AGENTS,
    }
    for table in ("agent", "receipt", "round"):
        assert ask(database, f"SELECT count() AS n FROM {table}") == {"n": 1}


async def assert_dead_letter(kafka: KafkaConnection) -> None:
    consumer = AIOKafkaConsumer("probe-results-v1-dlq", auto_offset_reset="earliest", **kafka.client_options())
    await consumer.start()
    try:
        message = await asyncio.wait_for(consumer.getone(), 60)
    finally:
        await consumer.stop()
    assert message.value == b"not a batch"
    with pytest.raises(InvalidMessage) as refused:
        probe_results.decode(b"not a batch")
    assert dict(message.headers)["error"].decode() == str(refused.value)


async def assert_committed(kafka: KafkaConnection, told: Told) -> None:
    """Everything is acknowledged, and the judge was told how far."""
    consumer = AIOKafkaConsumer(group_id="kpatrol-sink", enable_auto_commit=False, **kafka.client_options())
    await consumer.start()
    try:
        partitions = [TopicPartition("probe-results-v1", p) for p in range(probe_results.TOPIC.partitions)]
        ends = {tp.partition: end for tp, end in (await consumer.end_offsets(partitions)).items() if end}
        committed = {tp.partition: await consumer.committed(tp) for tp in partitions if tp.partition in ends}
    finally:
        await consumer.stop()
    assert committed == ends
    # The unreadable record of agent-0 is the last of its partition and belongs to no task.
    assert sum(ends.values()) - sum(told.positions.values()) <= 1


def test_every_batch_is_stored_once_through_two_kills_and_an_outage(tmp_path: Path) -> None:
    with running_endpoint(tmp_path) as endpoint:
        asyncio.run(scenario(tmp_path, endpoint))
