"""`kpatrol stop`: end what runs now and what is announced, and say what came of it.

Nothing but records: RoundCancelled to the agents (task-rounds-v1) and, round by round, to the judge (round-progress-v1,
where a round's events must stand under its task's key). The judge is told first, so that it knows why an agent's
account falls short. The global stop itself is one record for all agents; a round that was published while we read is
found in front of it and told to the judge afterwards. Rounds to come are not stopped: delete the task for that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from topics import round_progress, round_verdicts, task_rounds
from topics.connection import KafkaConnection
from topics.follow import follow
from topics.round_verdicts import RoundVerdict
from topics.spec import InvalidMessage, Topic
from topics.task_rounds import RoundCancelled, RoundScheduled, TaskRound


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A round that was told to stop, and the judge's final word on it; None where it did not come in time."""

    round: RoundScheduled
    verdict: RoundVerdict | None

    def row(self) -> dict[str, Any]:
        """For people and for `--json`."""
        verdict = self.verdict
        return {
            "task": self.round.task,
            "round": self.round.number,
            "stopped": verdict is not None,
            "planned": self.round.planned,
            "sent": verdict.stored if verdict else None,
            "unsent": verdict.unsent if verdict else None,
            "unexplained": verdict.unexplained if verdict else None,
            "why": verdict.why if verdict else "not confirmed in time",
        }


def open_rounds(records: Iterable[TaskRound], *, task: str, now_us: int) -> list[RoundScheduled]:
    """The rounds of a task (`kind/name`, a bare name or a uid; '' = all) that may still run, in the order published."""
    rounds: dict[int, RoundScheduled] = {}
    for record in records:
        if isinstance(record, RoundScheduled):
            rounds.setdefault(record.round_id, record)
        elif record.round_id:
            rounds.pop(record.round_id, None)
        elif not record.task_uid:
            rounds = {key: r for key, r in rounds.items() if r.deadline_us <= record.at_us}
        else:
            rounds = {key: r for key, r in rounds.items() if r.task_uid != record.task_uid}
    return [r for r in rounds.values() if r.deadline_us > now_us and is_meant(r, task)]


def is_meant(round_: RoundScheduled, task: str) -> bool:
    """Whether a round is of the task named."""
    return task in ("", round_.task, round_.task.rpartition("/")[2], round_.task_uid)


async def stop(*, kafka: KafkaConnection, task: str, reason: str, patience_s: float) -> list[Stopped]:
    """Stop all rounds, or those of one task, and wait for the verdicts on them. Raises KafkaError."""
    producer = AIOKafkaProducer(client_id="kpatrol-stop", **kafka.producer_options())
    await producer.start()

    async def send(topic: Topic[Any], record: RoundCancelled) -> None:
        await producer.send_and_wait(topic.name, topic.encode(record), key=topic.key(record))

    try:
        meant = await _unfinished(kafka, open_rounds(await _rounds(kafka), task=task, now_us=_now_us()))
        await _cancel(meant, send, round_progress.TOPIC, reason)
        if task:
            await _cancel(meant, send, task_rounds.TOPIC, reason)
        else:
            everything = RoundCancelled(round_id=0, task_uid="", reason=reason, at_us=_now_us())
            before = {r.round_id for r in meant}
            await send(task_rounds.TOPIC, everything)
            records = _before(await _rounds(kafka), everything)
            late = [r for r in open_rounds(records, task="", now_us=_now_us()) if r.round_id not in before]
            late = await _unfinished(kafka, late)
            await _cancel(late, send, round_progress.TOPIC, reason)
            meant += late
    finally:
        await producer.stop()
    told = await _verdicts(kafka, meant, patience_s=patience_s)
    return [Stopped(round=r, verdict=told.get(r.round_id)) for r in meant]


async def _cancel(
    rounds: Sequence[RoundScheduled],
    send: Callable[[Topic[Any], RoundCancelled], Awaitable[None]],
    topic: Topic[Any],
    reason: str,
) -> None:
    for round_ in rounds:
        record = RoundCancelled(round_id=round_.round_id, task_uid=round_.task_uid, reason=reason, at_us=_now_us())
        await send(topic, record)


def _before(records: Sequence[TaskRound], last: RoundCancelled) -> list[TaskRound]:
    """What stands in front of our own record."""
    return list(records[: records.index(last)]) if last in records else list(records)


async def _rounds(kafka: KafkaConnection) -> list[TaskRound]:
    """All of task-rounds-v1 up to its end as it is now."""
    found: list[TaskRound] = []
    async with aclosing(follow(task_rounds.TOPIC, kafka=kafka, client_id="kpatrol-stop")) as records:  # type: ignore[type-var]
        async for followed in records:
            if followed.record is not None:
                found.append(followed.record)
            if followed.caught_up:
                break
    return found


async def _unfinished(kafka: KafkaConnection, rounds: list[RoundScheduled]) -> list[RoundScheduled]:
    """The rounds without a final verdict yet."""
    told = await _verdicts(kafka, rounds, patience_s=0.0)
    return [r for r in rounds if r.round_id not in told]


async def _verdicts(
    kafka: KafkaConnection, rounds: Sequence[RoundScheduled], *, patience_s: float
) -> Mapping[int, RoundVerdict]:
    """The final verdicts on these rounds: those there are, and those that come within `patience_s`."""
    wanted = {r.round_id for r in rounds}
    told: dict[int, RoundVerdict] = {}
    if not wanted:
        return told
    consumer = AIOKafkaConsumer(group_id=None, enable_auto_commit=False, **kafka.client_options())
    await consumer.start()
    try:
        place = TopicPartition(round_verdicts.TOPIC.name, 0)
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        consumer.seek(place, await _first(consumer, place, since_ms=min(r.start_us for r in rounds) // 1000, end=end))
        until_s = time.monotonic() + patience_s
        while wanted - told.keys() and (await consumer.position(place) < end or time.monotonic() < until_s):
            for verdict in _decoded(await consumer.getmany(place, timeout_ms=200)):
                if verdict.round_id in wanted and verdict.final:
                    told[verdict.round_id] = verdict
    finally:
        await consumer.stop()
    return told


async def _first(consumer: AIOKafkaConsumer, place: TopicPartition, *, since_ms: int, end: int) -> int:
    """The offset of the first that was told since then: no verdict on a round comes before its start.

    Where there is none yet it is the end as it was before that was asked: a verdict told meanwhile is not passed over.
    """
    found = (await consumer.offsets_for_times({place: since_ms}))[place]
    return end if found is None else int(found.offset)


def _decoded(fetched: Mapping[Any, Sequence[Any]]) -> Iterable[RoundVerdict]:
    for messages in fetched.values():
        for message in messages:
            try:
                yield round_verdicts.TOPIC.decode(message.value)
            except InvalidMessage:
                continue


def _now_us() -> int:
    return time.time_ns() // 1000


def run(*, kafka: KafkaConnection, task: str, reason: str, patience_s: float) -> list[Stopped]:
    """`stop` for a caller without an event loop."""
    return asyncio.run(stop(kafka=kafka, task=task, reason=reason, patience_s=patience_s))
