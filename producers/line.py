"""How an agent is reached: by Kafka, or (`producers.attached`) by whoever is attached to it.

The service asks a line for rounds and memberships and gives it records; nothing else in the agent knows which it is.
"""

from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

from producers.publish import Publisher, Sender, listen, producer_of
from topics.connection import KafkaConnection
from topics.follow import Followed
from topics.spec import Topic

R = TypeVar("R")


class Line(Protocol):
    """The agent's way to the rest of the system."""

    @property
    def sender(self) -> Sender:
        """Takes what the agent has to say."""
        ...

    @property
    def reachable(self) -> bool:
        """Whether somebody is there now."""
        ...

    @property
    def repeats(self) -> int:
        """Records that had to be sent again."""
        ...

    def hear(self, topic: Topic[R], *, as_name: str) -> AsyncIterator[Followed[R]]:
        """Every record of a topic, the oldest first, for ever."""
        ...

    async def run(self) -> None:
        """Keep the line up until cancelled."""
        ...


class KafkaLine:
    """The line of an agent in a cluster."""

    def __init__(self, *, kafka: KafkaConnection, client_id: str) -> None:
        self._kafka = kafka
        self._publisher = Publisher(producer_of(kafka=kafka, client_id=client_id))

    @property
    def sender(self) -> Sender:
        """Kafka's producer."""
        return self._publisher

    @property
    def reachable(self) -> bool:
        """Whether Kafka answered last time."""
        return bool(self._publisher.contact.reachable)

    @property
    def repeats(self) -> int:
        """Records sent again after an error."""
        return self._publisher.repeats

    def hear(self, topic: Topic[R], *, as_name: str) -> AsyncIterator[Followed[R]]:
        """The topic from its oldest record on."""
        return listen(topic, kafka=self._kafka, client_id=as_name)

    async def run(self) -> None:
        """Keep a working producer."""
        await self._publisher.run()
