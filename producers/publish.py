"""The only door to Kafka: what the agent says (Publisher) and what it hears (listen), through any outage.

A send returns when all replicas have the record, and tries for ever. aiokafka's idempotent producer retries by itself
while a broker is away; an error that spoils its numbering (a gap, a lost producer id) gets a new producer, and what
was on its way is sent again: a repeat that readers know by the batch's identity. Kafka's absence is logged when it
begins and when it ends, and not in between.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from topics.connection import KafkaConnection
from topics.follow import Followed, follow
from topics.spec import Topic

R = TypeVar("R")
log = logging.getLogger(__name__)

_BACKOFF_FIRST_S = 0.2
_BACKOFF_MOST_S = 5.0
_SILENCE_S = 5.0
_CLOSE_S = 0.7
# Errors after which the same producer may go on: nothing was numbered, or the numbering will be refused and renewed.
_HARMLESS = (KafkaTimeoutError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError)
_HOPELESS = (MessageSizeTooLargeError, RecordListTooLargeError)


class Unpublishable(ValueError):
    """A record that no retry will bring into Kafka."""


class Sender(Protocol):
    """Whatever brings records into Kafka, as Publisher does."""

    async def send(self, *, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Return when the record is in Kafka. Raises Unpublishable when it never will be."""
        ...


class Contact:
    """Whether something can be reached; says so in the log only when it changes."""

    def __init__(self, what: str) -> None:
        self.reachable: bool | None = None
        self._what = what

    def lost(self, why: object) -> None:
        """It cannot be reached now."""
        if self.reachable is not False:
            log.warning("event=unreachable what=%s why=%r", self._what, str(why) or repr(why))
        self.reachable = False

    def found(self) -> None:
        """It can be reached now."""
        if self.reachable is not True:
            log.info("event=reachable what=%s", self._what)
        self.reachable = True


def backoff_s(attempt: int) -> float:
    """Seconds to wait before attempt number `attempt` (from 1): doubling, bounded."""
    return min(_BACKOFF_MOST_S, _BACKOFF_FIRST_S * 2.0 ** min(attempt - 1, 10))


def producer_of(*, kafka: KafkaConnection, client_id: str, linger_ms: int = 20) -> Callable[[], AIOKafkaProducer]:
    """Makes the agent's producers: idempotent, acknowledged by all replicas, zstd."""
    options: dict[str, Any] = kafka.producer_options() | {
        "client_id": client_id,
        "linger_ms": linger_ms,
        "max_batch_size": 1 << 20,
        "request_timeout_ms": 15_000,
    }
    return lambda: AIOKafkaProducer(**options)


class Publisher:
    """Records into Kafka. `run` keeps the connection."""

    def __init__(self, make: Callable[[], AIOKafkaProducer]) -> None:
        """`make` gives a new producer, not yet started; called in the running loop."""
        self.contact = Contact("kafka")
        self.repeats = 0
        self._make = make
        self._producer: AIOKafkaProducer | None = None
        self._connected = asyncio.Event()
        self._spoilt = asyncio.Event()
        self._heard_s = 0.0

    async def run(self) -> None:
        """Keep a working producer until cancelled."""
        try:
            while True:
                self._producer = await self._connect()
                self._spoilt.clear()
                self._connected.set()
                await self._spoilt.wait()
                await self._disconnect()
        finally:
            await self._disconnect()

    async def send(self, *, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Return when the record is in Kafka. Raises Unpublishable when it never will be."""
        attempt = 0
        while True:
            attempt += 1
            await self._connected.wait()
            producer = self._producer
            assert producer is not None
            try:
                acknowledged = await producer.send(topic, value, key=key, headers=list(headers))
                await self._acknowledgement(acknowledged)
                self._heard_s = asyncio.get_running_loop().time()
                self.contact.found()
                return
            except _HOPELESS as error:
                raise Unpublishable(str(error)) from error
            except KafkaError as error:
                self.repeats += 1
                self.contact.lost(error)
                if not isinstance(error, _HARMLESS) and producer is self._producer:
                    self._connected.clear()
                    self._spoilt.set()
            await asyncio.sleep(backoff_s(attempt))

    async def _acknowledgement(self, acknowledged: "asyncio.Future[Any]") -> None:
        loop = asyncio.get_running_loop()
        while not acknowledged.done():
            await asyncio.wait([acknowledged], timeout=_SILENCE_S)
            if not acknowledged.done() and loop.time() - self._heard_s >= _SILENCE_S:
                self.contact.lost(f"no acknowledgement for {_SILENCE_S:g} s")
        acknowledged.result()

    async def _connect(self) -> AIOKafkaProducer:
        attempt = 0
        while True:
            attempt += 1
            producer = self._make()
            try:
                await producer.start()
            except (KafkaError, OSError) as error:
                self.contact.lost(error)
                await _close(producer)
            except asyncio.CancelledError:
                await _close(producer)
                raise
            else:
                self.contact.found()
                return producer
            await asyncio.sleep(backoff_s(attempt))

    async def _disconnect(self) -> None:
        producer, self._producer = self._producer, None
        self._connected.clear()
        if producer is not None:
            await _close(producer)


async def _close(producer: AIOKafkaProducer) -> None:
    # Without a broker `stop` waits for its queue for ever, and what it would flush is still in the spool.
    try:
        await asyncio.wait_for(producer.stop(), _CLOSE_S)
    except (TimeoutError, KafkaError, OSError):
        log.debug("event=producer_closed_unflushed")
        try:
            await asyncio.wait_for(producer.client.close(), _CLOSE_S)
        except (TimeoutError, KafkaError, OSError):
            log.debug("event=producer_left_open")


async def listen(topic: Topic[R], *, kafka: KafkaConnection, client_id: str) -> AsyncIterator[Followed[R]]:
    """Every record of the topic from its oldest on, for ever; begins again from the oldest after an outage at the
    wrong moment, so what is done with a record must not depend on hearing it once."""
    contact = Contact(f"topic {topic.name}")
    attempt = 0
    while True:
        attempt += 1
        try:
            async with aclosing(follow(topic, kafka=kafka, client_id=client_id)) as records:  # type: ignore[type-var]
                async for followed in records:
                    contact.found()
                    attempt = 0
                    yield followed
        except (KafkaError, OSError) as error:
            contact.lost(error)
        await asyncio.sleep(backoff_s(max(1, attempt)))
