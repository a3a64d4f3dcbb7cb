"""The rounds that the controller has published, as the lab sees them on the topic."""

from __future__ import annotations

import asyncio

from topics import task_rounds
from topics.connection import KafkaConnection
from topics.follow import follow
from topics.task_rounds import RoundScheduled


class Rounds:
    """Follows task-rounds-v1; the first record of a round counts."""

    def __init__(self, *, kafka: KafkaConnection) -> None:
        self._kafka = kafka
        self.by_id: dict[int, RoundScheduled] = {}
        self._first = asyncio.Event()

    async def follow(self) -> None:
        """Read until cancelled."""
        async for item in follow(task_rounds.TOPIC, kafka=self._kafka, client_id="lab"):
            record = item.record
            if isinstance(record, RoundScheduled) and record.round_id not in self.by_id:
                self.by_id[record.round_id] = record
                self._first.set()

    async def first_start_us(self) -> int:
        """When the first round's load begins (epoch µs); waits until it is published."""
        await self._first.wait()
        return min(r.start_us for r in self.by_id.values())

    def planned(self) -> int:
        """Requests planned by all rounds known."""
        return sum(r.planned for r in self.by_id.values())
