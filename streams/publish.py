"""Sending that is acknowledged before the caller goes on: our own idempotent producer, not Faust's.

Faust's producer answers for table changelogs; what must be in Kafka before an event is acknowledged goes here.
"""

import asyncio
from collections.abc import Sequence
from types import TracebackType

from aiokafka import AIOKafkaProducer

from streams.dead_letter import Outgoing
from topics.connection import KafkaConnection


class Publisher:
    """An idempotent producer for the time of an `async with`."""

    def __init__(self, *, kafka: KafkaConnection, client_id: str) -> None:
        self._kafka = kafka
        self._client_id = client_id
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> "Publisher":
        self._producer = AIOKafkaProducer(client_id=self._client_id, **self._kafka.producer_options())
        await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._producer is not None:
            await self._producer.stop()

    async def send(self, records: Sequence[Outgoing]) -> None:
        """Return when all replicas have every record. Raises KafkaError; then some may have been written."""
        assert self._producer is not None, "used outside its `async with`"
        sent = [
            await self._producer.send(r.topic, key=r.key, value=r.value, headers=list(r.headers) or None)
            for r in records
        ]
        await asyncio.gather(*sent)
