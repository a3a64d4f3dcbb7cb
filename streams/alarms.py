"""The alarms: round-verdicts-v1 into alarms-v1; python -m streams alarms.

One agent folds each verdict into its task's alarms (`alarm_rules`), publishes the transitions, notes them in the table
`alarms`, and only then acknowledges. After a crash a transition may be told again, equal to the first: consumers
know it by (alarm_id, transition).
"""

import asyncio
import logging
from collections.abc import MutableMapping, Sequence
from typing import Any

import faust
import msgspec

from streams.alarm_rules import TaskAlarms, end, fold
from streams.app import end_after
from streams.dead_letter import Outgoing, Run, Source, dead_letter
from streams.faust_topics import faust_topic
from streams.parts import Parts
from streams.publish import Publisher
from streams.round_store import MAX_VALUE_BYTES, RoundTable, ValueTooLarge
from streams.silences import Silence, SilencesFile
from streams.task_ends import TaskEnds
from streams.watchdog import is_busy
from topics import alarms, round_verdicts
from topics.alarms import AlarmRecord
from topics.round_verdicts import RoundVerdict
from topics.spec import InvalidMessage
from topics.task_rounds import FOLLOW_UP

TAKE = 50
TAKE_S = 0.2
CRASH_LIMIT_S = 15.0
ENDS_S = 2.0
_state = msgspec.json.Decoder(TaskAlarms)
log = logging.getLogger(__name__)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What one verdict leads to; `value` is None where it says nothing new."""

    key: bytes
    value: bytes | None
    outgoing: tuple[Outgoing, ...]


def take_verdict(
    rows: MutableMapping[bytes, bytes], verdict: RoundVerdict, partition: int, silences: Sequence[Silence] = ()
) -> Step:
    """Fold a verdict into its task's alarms: what to tell, then what to write. Raises ValueTooLarge."""
    key = b"%d/%s" % (partition, verdict.task_uid.encode())
    if verdict.kind == FOLLOW_UP:  # one round that looks closer at what may be an alarm already
        return Step(key=key, value=None, outgoing=())
    stored = rows.get(key)
    state = _state.decode(stored) if stored is not None else TaskAlarms()
    new, records = fold(state, verdict, silences)
    if new is state:
        return Step(key=key, value=None, outgoing=())
    return _step(key, new, records, task=verdict.task)


def take_end(rows: MutableMapping[bytes, bytes], task_uid: str, at_us: int, partition: int) -> Step:
    """Close the alarms of a task that was deleted; nothing where it has none or that is known already."""
    key = b"%d/%s" % (partition, task_uid.encode())
    stored = rows.get(key)
    if stored is None:
        return Step(key=key, value=None, outgoing=())
    state = _state.decode(stored)
    new, records = end(state, at_us=at_us, why="the task was deleted")
    if new is state:
        return Step(key=key, value=None, outgoing=())
    return _step(key, new, records, task=task_uid)


def _step(key: bytes, state: TaskAlarms, records: Sequence[AlarmRecord], *, task: str) -> Step:
    value = msgspec.json.encode(state)
    if len(value) > MAX_VALUE_BYTES:
        raise ValueTooLarge(f"alarms of {task}: {len(value)} bytes, at most {MAX_VALUE_BYTES} are safe")
    topic = alarms.TOPIC
    outgoing = tuple(Outgoing(topic=topic.name, key=topic.key(r), value=topic.encode(r)) for r in records)
    return Step(key=key, value=value, outgoing=outgoing)


async def take_messages(
    messages: Sequence[Any],
    *,
    rows: MutableMapping[bytes, bytes],
    publisher: Publisher,
    run: Run,
    parts: Parts,
    silences: Sequence[Silence] = (),
) -> None:
    """Tell and note what the messages lead to; when this returns they may be acknowledged, else none of them."""
    topic = round_verdicts.TOPIC
    parts.metrics.add("kpatrol_records_total", len(messages), topic=topic.name)
    for message in messages:
        source = Source(partition=message.partition, offset=message.offset, key=message.key, value=message.value)
        try:
            verdict = topic.decode(message.value)
            run.see([True])
        except InvalidMessage as error:
            log.error("%s %s/%s: %s", topic.name, source.partition, source.offset, error)
            await publisher.send([dead_letter(topic=topic, source=source, error=str(error))])
            parts.metrics.add("kpatrol_dead_letters_total", topic=topic.name)
            run.see([False], str(error))
            continue
        step = take_verdict(rows, verdict, message.partition, silences)
        await publisher.send(step.outgoing)
        if step.value is not None:
            rows[step.key] = step.value


def attach(app: faust.App, parts: Parts) -> Sequence[Any]:
    """Add the alarms' agent and table; see app.ServiceModule."""
    topic = round_verdicts.TOPIC
    table = RoundTable(
        app,
        name="alarms",
        partitions=topic.partitions,
        key_type=bytes,
        value_type=bytes,
    )
    app.tables.add(table)
    silences = SilencesFile(path=parts.config.silences_file)
    ends = TaskEnds(kafka=parts.config.kafka)

    one_at_a_time = asyncio.Lock()

    async def close_ended() -> None:
        """Of ends that are known already nothing comes; of partitions that are not ours there are no rows."""
        if is_busy(app) or not publishers:
            return
        async with one_at_a_time:
            for uid, at_us in sorted(ends.heard.items()):
                for partition in range(topic.partitions):
                    step = take_end(table.rows(), uid, at_us, partition)
                    await publishers[0].send(step.outgoing)
                    if step.value is not None:
                        table.rows()[step.key] = step.value

    publishers: list[Publisher] = []

    async def raise_alarms(stream: Any) -> None:
        run = Run()
        try:
            async with Publisher(kafka=parts.config.kafka, client_id="kpatrol-alarms") as publisher:
                publishers[:] = [publisher]
                async for events in stream.noack().noack_take(TAKE, within=TAKE_S):
                    messages = [event.message for event in events]
                    async with one_at_a_time:
                        await take_messages(
                            messages,
                            rows=table.rows(),
                            publisher=publisher,
                            run=run,
                            parts=parts,
                            silences=silences.now(),
                        )
                    for event in events:
                        await stream.ack(event)
        except Exception as error:
            log.critical("%s: %s: %s", topic.name, type(error).__name__, error)
            end_after(CRASH_LIMIT_S)
            raise

    async def on_assigned(_: Any, assigned: Any, **__: Any) -> None:
        table.forget_others({tp.partition for tp in assigned if tp.topic == topic.name})

    app.on_partitions_assigned.connect(on_assigned)
    app.timer(ENDS_S)(close_ended)
    app.agent(faust_topic(app, topic), name="alarms", concurrency=1)(raise_alarms)
    return (ends,)
