"""The alarms app on a real Kafka: opened once through a kill -9, closed when the task is deleted. Takes about 25 s."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.integration.test_sink_with_kafka import running_kafka
from topics import alarms, cluster_events, round_verdicts
from topics.alarms import AlarmRecord
from topics.apply import apply
from topics.cluster_events import TASK_DELETED, ClusterEvent
from topics.connection import KafkaConnection
from topics.round_verdicts import EXAMPLE, Finding, Loss, RoundVerdict
from topics.spec import Topic

LOSS = Loss(sent=1000, lost=20, rate=0.02, low=0.01, high=0.03)
FINDING = Finding(
    element="node-3", direction="ingress", kind="loss", sentence="node-3 loses 2 %", loss=LOSS, confidence=1
)
FORMS = [("AlarmOpened", 1), ("AlarmClosed", 2)]


def verdict(number: int) -> RoundVerdict:
    times = {"start_us": number * 1_000_000, "at_us": number * 1_000_000 + 500_000}
    return msgspec.structs.replace(EXAMPLE, round=number, round_id=number, findings=(FINDING,), **times)


def test_an_alarm_opens_once_and_ends_with_its_task(tmp_path: Path) -> None:
    asyncio.run(_scenario(tmp_path))


async def _scenario(folder: Path) -> None:
    log = folder / "alarms.log"
    async with running_kafka(folder) as kafka:
        connection = KafkaConnection(bootstrap=kafka.bootstrap())
        await apply(kafka=connection)
        environment = {
            **os.environ,
            "KPATROL_KAFKA_BOOTSTRAP": connection.bootstrap,
            "KPATROL_CLICKHOUSE_URL": "http://nobody@127.0.0.1:1/kpatrol",
            "KPATROL_SESSION_TIMEOUT_S": "6",
        }
        told: list[AlarmRecord] = []
        listening = asyncio.create_task(_listen(connection, told))
        process = _start(environment, log)
        try:
            await _say(connection, round_verdicts.TOPIC, [verdict(1), verdict(2)])
            await _until(lambda: bool(told), what="opened", log=log)
            process.kill()
            process.wait(30)
            process = _start(environment, log)
            deleted = ClusterEvent(
                object=f"task/{EXAMPLE.task_uid}", node="", reason=TASK_DELETED, message="", at_us=3_000_000
            )
            # No verdict comes any more: it must close without one.
            await _say(connection, cluster_events.TOPIC, [deleted])
            await _until(lambda: len({r.transition for r in told}) == 2, what="closed", log=log)
            await asyncio.sleep(3)
        finally:
            process.terminate()
            process.wait(60)
            listening.cancel()
    assert list(dict.fromkeys((type(r).__name__, r.transition) for r in told)) == FORMS
    assert told[-1].sentence == "over: the task was deleted; was: node-3 loses 2 %"
    assert len(told) <= 3, "the end is told once, though it is looked at every two seconds"


def _start(environment: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as out:
        return subprocess.Popen([sys.executable, "-m", "streams", "alarms"], env=environment, stdout=out, stderr=out)


async def _say(kafka: KafkaConnection, topic: Topic[Any], records: list[Any]) -> None:
    async with AIOKafkaProducer(**kafka.producer_options()) as producer:
        for record in records:
            await producer.send_and_wait(topic.name, key=topic.key(record), value=topic.encode(record))


async def _listen(kafka: KafkaConnection, told: list[AlarmRecord]) -> None:
    async with AIOKafkaConsumer(alarms.TOPIC.name, auto_offset_reset="earliest", **kafka.client_options()) as consumer:
        async for message in consumer:
            told.append(alarms.TOPIC.decode(message.value))


async def _until(holds: Any, *, what: str, log: Path, timeout_s: float = 90) -> None:
    for _ in range(int(timeout_s / 0.1)):
        if holds():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{what}: not so after {timeout_s} s\n{(await asyncio.to_thread(log.read_text))[-3000:]}")
