"""`kpatrol recompute`: every final verdict made again from Kafka's events and ClickHouse's rows, and compared."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import TypeVar

from kpatrol.migrating import door
from streams.clickhouse import ClickHouse
from streams.judge import read_pairs, read_served
from streams.recompute import Recomputed, Results, recompute
from topics import mesh_members, round_progress, round_verdicts
from topics.connection import KafkaConnection
from topics.follow import follow
from topics.mesh_members import Memberships
from topics.spec import Topic
from topics.task_rounds import RoundScheduled

R = TypeVar("R")


async def everything(topic: Topic[R], kafka: KafkaConnection) -> list[R]:
    """All records that a topic has now, each partition in order. Raises KafkaError."""
    found: list[R] = []
    async with aclosing(follow(topic, kafka=kafka, client_id="kpatrol-recompute")) as records:  # type: ignore[type-var]
        async for followed in records:
            if followed.record is not None:
                found.append(followed.record)
            if followed.caught_up and followed.record is None:
                break
    return found


async def run(*, kafka: KafkaConnection, url: str, env: Mapping[str, str], task: str = "") -> list[Recomputed]:
    """The rounds of a task (`kind/name` or a name; empty: all) whose verdict is final.

    `url` is http://user@host:port/database of an account that reads the tables; empty takes KPATROL_CLICKHOUSE_URL.
    Raises KafkaError, ClickHouseAway, ClickHouseRefused, BadConfiguration.
    """
    known = Memberships()
    for record in await everything(mesh_members.TOPIC, kafka):
        known.add(record)
    told = [
        verdict
        for verdict in await everything(round_verdicts.TOPIC, kafka)
        if task in ("", verdict.task, verdict.task.rpartition("/")[2])
    ]
    events = await everything(round_progress.TOPIC, kafka)
    database = door(url, env)
    try:
        return recompute(
            events=events,
            told=told,
            find_members=lambda ref: known.get(group=ref.group, epoch=ref.epoch, digest=ref.digest),
            read=lambda round_: _results(database, round_),
        )
    finally:
        database.close()


def _results(database: ClickHouse, round_: RoundScheduled) -> Results:
    return Results(pairs=read_pairs(database, round_), served=read_served(database, round_))
