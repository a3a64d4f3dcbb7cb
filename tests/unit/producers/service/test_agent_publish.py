"""Sending until Kafka has it: what is tried again on the same producer, what on a new one, what never."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
)

from producers import publish
from producers.publish import Contact, Publisher, Unpublishable, backoff_s


class FakeClient:
    async def close(self) -> None:
        """Nothing to close."""


class FakeProducer:
    """A producer that answers each send by the next of its `answers`: an error, or None for an acknowledgement."""

    def __init__(self, *answers: Exception | None, starts: Exception | None = None) -> None:
        self.client = FakeClient()
        self.stopped = False
        self.sent: list[bytes] = []
        self._answers = list(answers)
        self._starts = starts

    async def start(self) -> None:
        if self._starts is not None:
            raise self._starts

    async def stop(self) -> None:
        self.stopped = True

    async def send(self, topic: str, value: bytes, *, key: bytes, headers: list[Any]) -> "asyncio.Future[None]":
        self.sent.append(value)
        acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer = self._answers.pop(0)
        if answer is None:
            acknowledged.set_result(None)
        else:
            acknowledged.set_exception(answer)
        return acknowledged


def play(
    producers: list[FakeProducer],
    scene: Callable[[Publisher], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> Publisher:
    monkeypatch.setattr(publish, "_BACKOFF_FIRST_S", 0.001)
    made = iter(producers)

    async def whole() -> Publisher:
        publisher = Publisher(lambda: next(made))
        running = asyncio.create_task(publisher.run())
        async with asyncio.timeout(30):
            await scene(publisher)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return publisher

    return asyncio.run(whole())


async def send_one(publisher: Publisher) -> None:
    await publisher.send(topic="t", key=b"k", value=b"v")


@pytest.mark.parametrize("error", [KafkaTimeoutError()])
def test_a_harmless_error_is_tried_again_on_the_same_producer(
    error: KafkaError, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = FakeProducer(error, None)
    publisher = play([only], send_one, monkeypatch)
    assert (only.sent, publisher.repeats) == ([b"v", b"v"], 1)
    assert only.stopped


def test_an_error_that_spoils_the_numbering_gets_a_new_producer(monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt, fresh = FakeProducer(OutOfOrderSequenceNumber()), FakeProducer(None)
    play([spoilt, fresh], send_one, monkeypatch)
    assert spoilt.stopped
    assert fresh.sent == [b"v"]


def test_a_kafka_that_is_not_there_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = [FakeProducer(starts=KafkaConnectionError("refused")) for _ in range(3)]
    there = FakeProducer(None)
    play([*absent, there], send_one, monkeypatch)
    assert all(producer.stopped for producer in absent)
    assert there.sent == [b"v"]


def test_a_record_too_large_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(publisher: Publisher) -> None:
        with pytest.raises(Unpublishable):
            await send_one(publisher)

    only = FakeProducer(MessageSizeTooLargeError())
    play([only], scene, monkeypatch)
    assert only.sent == [b"v"]


def test_absence_is_told_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    contact = Contact("kafka")
    for _ in range(3):
        contact.lost("gone")
    for _ in range(3):
        contact.found()
    assert [record.message for record in caplog.records] == [
        "event=unreachable what=kafka why='gone'",
        "event=reachable what=kafka",
    ]


def test_waiting_grows_and_is_bounded() -> None:
    waits = [backoff_s(attempt) for attempt in range(1, 50)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.2, 5.0)
