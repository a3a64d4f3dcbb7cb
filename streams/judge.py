"""The judge: round-progress-v1 into round verdicts; python -m streams judge.

One agent takes what has come within TAKE_S, has it folded and judged (`judge_rounds`), and only then acknowledges, in
order. The table `rounds` holds the state; a timer only sends events: the deadlines that have passed, and nudges for
rounds that wait for ClickHouse. Memberships are followed in the background, without a group.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from typing import Any

import faust
import mode
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams import telemetry
from streams.app import end_after
from streams.clickhouse import Attempts, ClickHouse
from streams.dead_letter import Outgoing, Run, Source, dead_letter
from streams.faust_topics import faust_topic
from streams.judge_rounds import Judge
from streams.judging import pair_table, served
from streams.judging.pair_table import PairTable
from streams.judging.served import Served
from streams.memory import keep_freed_memory
from streams.parts import Parts
from streams.publish import Publisher
from streams.round_store import RoundStore, RoundTable
from streams.rounds import RoundKey
from topics import mesh_members, probe_results, round_progress, round_verdicts
from topics.connection import KafkaConnection
from topics.follow import follow
from topics.mesh_members import Memberships
from topics.round_progress import RoundDeadline, RoundProgress
from topics.round_verdicts import RoundVerdict
from topics.spec import InvalidMessage
from topics.task_rounds import RoundScheduled

TAKE = 200
TAKE_S = 0.05
TICK_S = 1.0
CLICKHOUSE_TIMEOUT_S = 8.0
CRASH_LIMIT_S = 15.0
REJOIN_S = 2.0
log = logging.getLogger(__name__)


class Members(mode.Service):  # type: ignore[misc]
    """mesh-members-v1 in memory; started when all that was there at the start has been read."""

    def __init__(self, *, kafka: KafkaConnection, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kafka = kafka
        self._caught_up = asyncio.Event()
        self.known = Memberships()

    async def on_start(self) -> None:
        """Read on in the background and wait for the present end."""
        self.add_future(self._follow())
        await self._caught_up.wait()

    async def _follow(self) -> None:
        while not self.should_stop:
            try:
                await self._read()
            except (KafkaError, OSError) as error:
                log.warning("mesh-members-v1: %s; reading it again in %.0f s", error, REJOIN_S)
                await self.sleep(REJOIN_S)

    async def _read(self) -> None:
        async for followed in follow(mesh_members.TOPIC, kafka=self._kafka, client_id="kpatrol-judge-members"):
            if followed.record is not None:
                self.known.add(followed.record)
            if followed.caught_up:
                self._caught_up.set()


def end_of_window_ms(round_: RoundScheduled) -> int:
    """When the last request of a round was planned at the latest, in milliseconds; a request has its planned time."""
    return max(round_.start_us + int(round_.duration_s * 1e6), round_.deadline_us) // 1000 + 1


def read_pairs(database: ClickHouse, round_: RoundScheduled) -> PairTable:
    """The pair table of a round. Blocks. Raises ClickHouseAway, ClickHouseRefused."""
    found = database.pair_table(
        round_id=round_.round_id, round_at_ms=round_.start_us // 1000, until_ms=end_of_window_ms(round_)
    )
    raw_rows = int(found.column("round_rows")[0].as_py()) if found.num_rows else 0
    return pair_table.from_arrow(table=found, raw_rows=raw_rows)


def read_served(database: ClickHouse, round_: RoundScheduled) -> Served:
    """What the serving side counted in a round. Blocks. Raises ClickHouseAway, ClickHouseRefused."""
    return served.from_arrow(
        database.served(
            round_id=round_.round_id, round_at_ms=round_.start_us // 1000, until_ms=end_of_window_ms(round_)
        )
    )


async def end_offsets(kafka: KafkaConnection) -> dict[int, int]:
    """Ends of probe-results-v1 by partition. Raises KafkaError."""
    consumer = AIOKafkaConsumer(group_id=None, enable_auto_commit=False, **kafka.client_options())
    await consumer.start()
    try:
        name = probe_results.TOPIC.name
        metadata = await consumer._client.fetch_all_metadata()
        partitions = [TopicPartition(name, p) for p in sorted(metadata.partitions_for_topic(name) or ())]
        return {tp.partition: end for tp, end in (await consumer.end_offsets(partitions)).items()}
    finally:
        await consumer.stop()


async def take_messages(messages: Sequence[Any], *, judge: Judge, run: Run, publisher: Publisher, parts: Parts) -> None:
    """Decode and judge; when this returns the messages may be acknowledged, else none of them."""
    topic = round_progress.TOPIC
    parts.metrics.add("kpatrol_records_total", len(messages), topic=topic.name)
    good: list[tuple[RoundProgress, int]] = []
    for message in messages:
        source = Source(partition=message.partition, offset=message.offset, key=message.key, value=message.value)
        try:
            good.append((topic.decode(message.value), message.partition))
            run.see([True])
        except InvalidMessage as error:
            log.error("%s %s/%s: %s", topic.name, source.partition, source.offset, error)
            await publisher.send([dead_letter(topic=topic, source=source, error=str(error))])
            parts.metrics.add("kpatrol_dead_letters_total", topic=topic.name)
            run.see([False], str(error))
    await judge.take(good)


class Office:
    """The judge within its Faust app: what the agent and the timer share."""

    def __init__(self, *, app: faust.App, parts: Parts, members: Members) -> None:
        self._app = app
        self._parts = parts
        self._open = False
        config = parts.config
        self._database = ClickHouse(
            url=config.clickhouse_url,
            password=config.clickhouse_password,
            ca_file=config.clickhouse_ca_file,
            timeout_s=CLICKHOUSE_TIMEOUT_S,
            attempts=Attempts(count=1),
        )
        topic = round_progress.TOPIC
        self.table = RoundTable(
            app,
            name="rounds",
            partitions=topic.partitions,
            key_type=bytes,
            value_type=bytes,
        )
        app.tables.add(self.table)
        self.publisher = Publisher(kafka=config.kafka, client_id="kpatrol-judge")
        self.judge = Judge(
            store=RoundStore(self.table),
            read_pairs=lambda round_: asyncio.to_thread(read_pairs, self._database, round_),
            read_served=lambda round_: asyncio.to_thread(read_served, self._database, round_),
            publish=self._publish,
            find_members=lambda ref: members.known.get(group=ref.group, epoch=ref.epoch, digest=ref.digest),
            now_us=lambda: time.time_ns() // 1000,
        )

    async def _publish(self, verdict: RoundVerdict) -> None:
        topic = round_verdicts.TOPIC
        await self.publisher.send([Outgoing(topic=topic.name, key=topic.key(verdict), value=topic.encode(verdict))])

    async def work(self, stream: Any) -> None:
        """The agent."""
        run = Run()
        try:
            async with self.publisher:
                self._open = True
                async for events in stream.noack().noack_take(TAKE, within=TAKE_S):
                    messages = [event.message for event in events]
                    with telemetry.processing(
                        topic=round_progress.TOPIC.name, group="kpatrol-judge", records=len(messages)
                    ):
                        await take_messages(
                            messages, judge=self.judge, run=run, publisher=self.publisher, parts=self._parts
                        )
                    for event in events:
                        await stream.ack(event)
        except Exception as error:
            self._open = False
            log.critical("%s: %s: %s", round_progress.TOPIC.name, type(error).__name__, error)
            end_after(CRASH_LIMIT_S)
            raise

    async def tick(self) -> None:
        """The timer: events for the rounds of our partitions, sent to the topic that we read."""
        if self._app.rebalancing or not self._app.tables.actives_ready or not self._open:
            return
        wanted = self.judge.due(self._partitions())
        if not wanted:
            return
        try:
            ends = await end_offsets(self._parts.config.kafka) if any(passed for _, passed in wanted) else {}
            await self.publisher.send([self._deadline(key, ends if passed else {}) for key, passed in wanted])
        except KafkaError as error:
            log.warning("deadlines of %d rounds: %s; sending them again", len(wanted), error)

    def _deadline(self, key: RoundKey, ends: dict[int, int]) -> Outgoing:
        topic = round_progress.TOPIC
        event = RoundDeadline(task_uid=key[0], round_id=key[1], at_us=self.judge.now_us(), end_offsets=ends)
        return Outgoing(topic=topic.name, key=topic.key(event), value=topic.encode(event))

    def _partitions(self) -> list[int]:
        name = round_progress.TOPIC.name
        return sorted(tp.partition for tp in self._app.consumer.assignment() if tp.topic == name)

    def assigned(self, partitions: Collection[int]) -> None:
        """Partitions have come or gone: keep nothing in memory that is not ours."""
        self.table.forget_others(partitions)
        self.judge.forget_all()


def attach(app: faust.App, parts: Parts) -> Sequence[Any]:
    """Add the judge's agent, table and timer; see app.ServiceModule."""
    keep_freed_memory()
    members = Members(kafka=parts.config.kafka)
    office = Office(app=app, parts=parts, members=members)
    topic = round_progress.TOPIC

    async def on_assigned(_: Any, assigned: Any, **__: Any) -> None:
        office.assigned({tp.partition for tp in assigned if tp.topic == topic.name})

    async def judge(stream: Any) -> None:
        await office.work(stream)

    async def tick() -> None:
        await office.tick()

    app.on_partitions_assigned.connect(on_assigned)
    app.agent(faust_topic(app, topic), name="judge", concurrency=1)(judge)
    app.timer(TICK_S)(tick)
    return (members,)
