"""The controller as a process against a real broker: killed in mid-round it loses no round and publishes none twice."""

import asyncio
import json
import os
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from msgspec.structs import replace

from kpatrol.lab.java import find_java
from kpatrol.lab.kafka import Kafka, KafkaFiles
from kpatrol.lab.kafka_jars import cache_folder, get_jars
from kpatrol.lab.state import LabState
from topics import agent_reports, round_progress, round_verdicts, task_rounds
from topics.agent_reports import AgentReport
from topics.apply import apply
from topics.connection import KafkaConnection
from topics.follow import follow
from topics.spec import Topic
from topics.task_rounds import RoundScheduled

TASKS = """
apiVersion: kdoctor.io/v1beta1
kind: NetReach
metadata: {name: reach}
spec:
  schedule: {schedule: "0 1", roundNumber: 4}
  request: {qps: 10, durationInSecond: 1}
  target: {nodePort: false, clusterIP: false}
---
apiVersion: kdoctor.io/v1beta1
kind: AppHttpHealthy
metadata: {name: reach}
spec:
  schedule: {schedule: "1 2", roundNumber: 2}
  request: {qps: 10, durationInSecond: 1}
  target: {host: "http://10.203.0.80", method: GET}
"""
MINUTE_S = 3
AGENTS = 3
KILLS_AFTER_S = (4.2, 3.1)
PATIENCE_S = 150.0


class Cluster:
    """What stands around the controller here: agents that only report, and a judge that is content with every round."""

    def __init__(self, *, kafka: KafkaConnection, producer: AIOKafkaProducer) -> None:
        self._kafka = kafka
        self._producer = producer
        self.rounds: list[RoundScheduled] = []
        self.announced: list[RoundScheduled] = []

    async def report(self) -> None:
        incarnation = time.time_ns()
        while True:
            for number in range(1, AGENTS + 1):
                name = f"node-{number}"
                await self._send(
                    agent_reports.TOPIC,
                    AgentReport(
                        agent=name,
                        incarnation=incarnation,
                        node=name,
                        at_us=time.time_ns() // 1000,
                        started_us=0,
                        interval_s=1.0,
                        version="test",
                        ipv4=f"10.0.0.{number}",
                    ),
                )
            await asyncio.sleep(1)

    async def judge(self) -> None:
        async with asyncio.TaskGroup() as group:
            judged: set[int] = set()
            async for item in follow(round_progress.TOPIC, kafka=self._kafka):
                if not isinstance(item.record, RoundScheduled):
                    continue
                self.announced.append(item.record)
                if item.record.round_id not in judged:
                    judged.add(item.record.round_id)
                    group.create_task(self._verdict(item.record))

    async def watch(self) -> None:
        async for item in follow(task_rounds.TOPIC, kafka=self._kafka):
            if isinstance(item.record, RoundScheduled):
                self.rounds.append(item.record)

    async def _verdict(self, round_: RoundScheduled) -> None:
        await asyncio.sleep(max(0.0, round_.start_us / 1e6 + round_.duration_s + 0.3 - time.time()))
        verdict = replace(
            round_verdicts.EXAMPLE,
            round_id=round_.round_id,
            round=round_.number,
            task=round_.task,
            task_uid=round_.task_uid,
            start_us=round_.start_us,
            at_us=time.time_ns() // 1000,
        )
        await self._send(round_verdicts.TOPIC, verdict)

    async def _send(self, topic: Topic[Any], record: Any) -> None:
        await self._producer.send_and_wait(topic.name, topic.encode(record), key=topic.key(record))


async def start_controller(*, kafka: Kafka, folder: Path) -> asyncio.subprocess.Process:
    variables = {
        "KPATROL_TASK_DIR": str(folder / "tasks"),
        "KPATROL_STATE_DIR": str(folder / "state"),
        "KPATROL_EXPECTED_AGENTS": str(AGENTS),
        "KPATROL_MINUTE_S": str(MINUTE_S),
        "KPATROL_LEAD_TIME_S": "1",
    }
    environment = os.environ | kafka.environment("controller") | variables
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "controller", env=environment)


def statuses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text())["status"] for path in (folder / "state").glob("*-reach.json")]


async def run(folder: Path) -> None:
    lab = LabState.create(folder)
    jars = get_jars(cache_folder(os.environ), say=print)
    async with AsyncExitStack() as stack:
        stack.callback(lab.close)
        kafka = await Kafka.start(
            lab=lab, files=KafkaFiles(java=find_java(), jars=jars, folder=folder / "kafka"), security="SASL_SSL"
        )
        stack.push_async_callback(kafka.stop)
        door = kafka.connection("admin")
        await apply(kafka=door, replication=1, partitions={})
        producer = AIOKafkaProducer(**door.producer_options())
        await producer.start()
        stack.push_async_callback(producer.stop)
        cluster = Cluster(kafka=door, producer=producer)
        around = [asyncio.create_task(part()) for part in (cluster.report, cluster.judge, cluster.watch)]
        stack.push_async_callback(asyncio.wait, around)
        for task in around:
            stack.callback(task.cancel)
        await exercise(kafka=kafka, folder=folder, cluster=cluster)


async def exercise(*, kafka: Kafka, folder: Path, cluster: Cluster) -> None:
    controller = await start_controller(kafka=kafka, folder=folder)
    try:
        for wait_s in KILLS_AFTER_S:
            await asyncio.sleep(wait_s)
            controller.kill()
            await controller.wait()
            controller = await start_controller(kafka=kafka, folder=folder)
        until_s = time.monotonic() + PATIENCE_S
        while not (len(found := statuses(folder)) == 2 and all(status["finish"] for status in found)):
            assert controller.returncode is None
            assert time.monotonic() < until_s, found
            await asyncio.sleep(0.2)
        controller.terminate()
        assert await asyncio.wait_for(controller.wait(), 60) == 0
    finally:
        if controller.returncode is None:
            controller.kill()
            await controller.wait()
    expected = [("apphttphealthy/reach", n) for n in (1, 2)] + [("netreach/reach", n) for n in (1, 2, 3, 4)]
    assert sorted((round_.task, round_.number) for round_ in cluster.rounds) == expected
    # Told to the judge again after a restart, but always word for word.
    by_id = {round_.round_id: round_ for round_ in cluster.rounds}
    assert {round_.round_id for round_ in cluster.announced} == set(by_id)
    assert all(round_ == by_id[round_.round_id] for round_ in cluster.announced)
    assert all(status["lastRoundStatus"] == "succeed" for status in found)


def test_a_controller_killed_twice_in_mid_round_loses_no_round_and_publishes_none_twice(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "tasks.yaml").write_text(TASKS)
    asyncio.run(run(tmp_path))
