"""Reading a topic without a consumer group: every reader sees everything, from the start or from the end.

Used by agents (rounds, members), the controller (reports, verdicts, rounds) and the judge (members).
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from topics.connection import KafkaConnection
from topics.spec import InvalidMessage, Topic

R = TypeVar("R")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed(Generic[R]):
    """A decoded record and where it stood; `caught_up` is true from the end that was seen at the start on.

    `record` is None for the marker that says "caught up" where a topic (or its rest) was empty.
    """

    record: R | None
    partition: int
    offset: int
    timestamp_ms: int
    caught_up: bool


async def follow(
    topic: Topic[R], *, kafka: KafkaConnection, from_start: bool = True, client_id: str = "kpatrol"
) -> AsyncIterator[Followed[R]]:
    """Yield every record of all partitions for ever. Undecodable records are logged and passed over.

    With `from_start` it begins at the oldest record; else at the end. Raises KafkaError when the cluster cannot be
    reached: the caller decides how to go on. Close the iterator to stop.
    """
    consumer = AIOKafkaConsumer(
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        client_id=client_id,
        max_partition_fetch_bytes=4 << 20,
        **kafka.client_options(),
    )
    try:
        await consumer.start()
        partitions = await _partitions(consumer, topic.name)
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        if not from_start:
            # To the ends asked for just now: what comes after is told.
            for tp in partitions:
                consumer.seek(tp, ends[tp])
        behind = {tp for tp in partitions if from_start and await _position(consumer, tp) < ends[tp]}
        if not behind:
            yield Followed(record=None, partition=-1, offset=-1, timestamp_ms=0, caught_up=True)
        while True:
            fetched = await consumer.getmany(timeout_ms=500, max_records=500)
            was_behind = bool(behind)
            for tp, messages in fetched.items():
                for message in messages:
                    if message.offset + 1 >= ends[tp]:
                        behind.discard(tp)
                    try:
                        record = topic.decode(message.value)
                    except InvalidMessage as error:
                        log.error("%s %s/%s: %s", topic.name, message.partition, message.offset, error)
                        continue
                    yield Followed(
                        record=record,
                        partition=message.partition,
                        offset=message.offset,
                        timestamp_ms=message.timestamp,
                        caught_up=not behind,
                    )
            # Compacted partitions may end below the end offset: the position tells.
            behind -= {tp for tp in set(behind) if await consumer.position(tp) >= ends[tp]}
            if was_behind and not behind:
                yield Followed(record=None, partition=-1, offset=-1, timestamp_ms=0, caught_up=True)
    finally:
        await consumer.stop()


async def _position(consumer: AIOKafkaConsumer, tp: TopicPartition) -> int:
    starts = await consumer.beginning_offsets([tp])
    return int(starts[tp])


async def _partitions(consumer: AIOKafkaConsumer, name: str) -> list[TopicPartition]:
    for _ in range(60):
        try:
            await consumer._client.force_metadata_update()
            found = consumer.partitions_for_topic(name) or await _ask(consumer, name)
        except KafkaError:
            found = None
        if found:
            return [TopicPartition(name, p) for p in sorted(found)]
        await asyncio.sleep(0.5)
    raise KafkaError(f"topic {name} does not exist: run `kpatrol topics apply`")


async def _ask(consumer: AIOKafkaConsumer, name: str) -> set[int] | None:
    metadata = await consumer._client.fetch_all_metadata()
    partitions = metadata.partitions_for_topic(name)
    return set(partitions) if partitions else None
