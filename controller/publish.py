"""The controller's only way into Kafka: an idempotent producer that keeps trying while trying makes sense."""

from __future__ import annotations

import asyncio
import logging
import time
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from topics.connection import KafkaConnection
from topics.spec import Topic

log = logging.getLogger(__name__)

SEND_TIMEOUT_S = 30.0
PAUSE_LEAST_S = 0.2
PAUSE_MOST_S = 5.0


class Publisher:
    """Sends one record at a time and returns when every replica has it."""

    def __init__(self, *, kafka: KafkaConnection, client_id: str = "kpatrol-controller") -> None:
        self._kafka = kafka
        self._client_id = client_id
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._drop()

    async def send(self, topic: Topic[Any], record: Any, *, until_us: int) -> bool:
        """Publishes a record; False when Kafka did not confirm it before ``until_us`` (microseconds since the epoch).

        Unconfirmed is not unsent: the record may stand in the topic, and a reader takes the first of a round.
        """
        key, value = topic.key(record), topic.encode(record)
        pause_s = PAUSE_LEAST_S
        while True:
            try:
                producer = await self._started()
                await asyncio.wait_for(producer.send_and_wait(topic.name, value, key=key), SEND_TIMEOUT_S)
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("%s: not confirmed (%s), trying again", topic.name, error or type(error).__name__)
                await self._drop()
            else:
                return True
            if time.time_ns() // 1000 >= until_us:
                log.error("%s: given up, not confirmed in time", topic.name)
                return False
            await asyncio.sleep(pause_s)
            pause_s = min(PAUSE_MOST_S, pause_s * 2)

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(client_id=self._client_id, **self._kafka.producer_options())
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer

    async def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            # Stopping flushes what is under way, which may never end while no broker answers.
            await asyncio.wait_for(producer.stop(), 5)
        except (KafkaError, OSError, TimeoutError) as error:
            log.warning("producer did not stop in order: %s", error or type(error).__name__)
