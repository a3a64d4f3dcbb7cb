"""A consumer that an unexpected answer of the coordinator has stopped goes on within a minute.

Takes about 25 s: two starts of a service, three injected errors.
"""

import asyncio
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from tests.integration.mock_broker import HEARTBEAT, REBALANCE_IN_PROGRESS, SYNC_GROUP, MockBroker, running_mock
from tests.integration.test_hooks import Receiver, receiving, transition, until
from topics import alarms
from topics.alarms import AlarmOpened
from topics.connection import KafkaConnection

RECOVERED_S = 60.0
PARKED = "the consumer is parked, setting it going again"
HOOKS = "hooks: [{{name: chat, webhook: {{url: 'http://127.0.0.1:{port}/plain'}}}}]\n"


@dataclass(kw_only=True)
class Scene:
    """The hooks' service against a mock broker, and the receiver that it tells."""

    broker: MockBroker
    producer: AIOKafkaProducer
    receiver: Receiver
    environment: dict[str, str]
    log: Path
    told: int = 0
    services: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        with self.log.open("ab") as out:
            command = [sys.executable, "-m", "streams", "hooks"]
            self.services.append(subprocess.Popen(command, env=self.environment, stdout=out, stderr=out))

    def stop(self) -> None:
        for service in self.services:
            service.kill()
            service.wait(30)

    def has_ended(self) -> bool:
        return self.services[-1].poll() is not None

    def parked(self) -> int:
        """How often the watchdog has found the consumer parked."""
        return self.log.read_text().count(PARKED)

    async def is_told(self) -> None:
        """One more transition goes through the consumer to the receiver."""
        self.told += 1
        record, topic = transition(self.told, AlarmOpened), alarms.TOPIC
        await self.producer.send_and_wait(topic.name, key=topic.key(record), value=topic.encode(record))
        arrived = lambda: len(set(self.receiver.keys("/plain"))) == self.told  # noqa: E731
        await until(arrived, what=f"transition {self.told} told", log=self.log)

    async def is_unparked(self, times: int) -> None:
        """The watchdog sees it, and the same process goes on."""
        await until(lambda: self.parked() >= times, what=f"parked {times}", log=self.log)
        await self.is_told()
        assert not self.has_ended(), "the process has ended, the consumer was not set going"


async def entry_is_refused(scene: Scene) -> None:
    scene.broker.answer_wrongly(SYNC_GROUP)
    scene.start()
    await scene.is_unparked(1)


async def rebalance_is_refused(scene: Scene) -> None:
    scene.broker.answer_wrongly(SYNC_GROUP)
    scene.broker.answer_wrongly(HEARTBEAT, error=REBALANCE_IN_PROGRESS)
    await scene.is_unparked(2)


async def heartbeat_is_refused(scene: Scene) -> None:
    """A consumer that fetches at this moment raises the error, its process ends and is started again; else it parks."""
    before = scene.parked()
    scene.broker.answer_wrongly(HEARTBEAT)
    await until(lambda: scene.has_ended() or scene.parked() > before, what="stopped", log=scene.log)
    with suppress(subprocess.TimeoutExpired):
        await asyncio.to_thread(scene.services[-1].wait, 5)
    if scene.has_ended():
        scene.start()
    await scene.is_told()


async def scenario(folder: Path) -> list[float]:
    """How long each of the scenes took, from the injected error to the next record told."""
    receiver, hooks = Receiver(), folder / "hooks.yaml"
    took_s: list[float] = []
    with running_mock({alarms.TOPIC.name: alarms.TOPIC.partitions, alarms.TOPIC.dlq: 1}) as broker:
        options = KafkaConnection(bootstrap=broker.bootstrap).producer_options()
        async with AIOKafkaProducer(**options) as producer, receiving(receiver) as port:
            hooks.write_text(HOOKS.format(port=port))
            environment = {
                **os.environ,
                "KPATROL_KAFKA_BOOTSTRAP": broker.bootstrap,
                "KPATROL_HOOKS_FILE": str(hooks),
                "KPATROL_SESSION_TIMEOUT_S": "6",
            }
            scene = Scene(
                broker=broker, producer=producer, receiver=receiver, environment=environment, log=folder / "hooks.log"
            )
            try:
                for scenes in (entry_is_refused, rebalance_is_refused, heartbeat_is_refused):
                    began_s = time.monotonic()
                    await scenes(scene)
                    took_s.append(time.monotonic() - began_s)
            finally:
                scene.stop()
    return took_s


@pytest.mark.timeout(300)
def test_a_parked_consumer_goes_on_within_a_minute(tmp_path: Path) -> None:
    took_s = asyncio.run(scenario(tmp_path))
    print("went on after", [f"{s:.1f} s" for s in took_s])
    assert max(took_s) < RECOVERED_S
