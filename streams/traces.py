"""The traces service: requests, shares and verdicts as OTLP spans; python -m streams traces. Optional.

To otlp-spans-v1, where the OpenTelemetry Collector's Kafka receiver finds them (KPATROL_TRACES_TOPIC=true), to an OTLP
receiver over HTTP (KPATROL_TRACES_ENDPOINT), or both. At least once: spans have ids of their own, so a repeat is the
same span. A receiver that is away is waited for, as Kafka keeps the records; what it refuses is counted and left.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp
import faust

from streams import otlp
from streams.app import end_after
from streams.config import Records
from streams.dead_letter import Outgoing, Run, Source, dead_letter
from streams.delivery.base import Doors, TryAgain, Undeliverable, post
from streams.faust_topics import faust_topic
from streams.parts import Parts
from streams.patience import GaveUp, delay_s
from streams.publish import Publisher
from topics import otlp_spans, probe_results, round_progress, round_verdicts
from topics.round_progress import AgentFinished
from topics.spec import InvalidMessage, Topic

TAKE = 50
TAKE_S = 0.2
CRASH_LIMIT_S = 15.0
ToSpans = Callable[[Any], bytes]
log = logging.getLogger(__name__)


def spans_of(records: Records) -> Mapping[str, tuple[Topic[Any], ToSpans]]:
    """How each topic's records become spans; empty bytes where a record gives none."""
    return {
        "requests": (probe_results.TOPIC, lambda batch: otlp.requests(batch, records=records)),
        "shares": (round_progress.TOPIC, lambda r: otlp.share(r) if isinstance(r, AgentFinished) else b""),
        "verdicts": (round_verdicts.TOPIC, otlp.verdict),
    }


def convert(
    messages: Sequence[Any], *, topic: Topic[Any], to_spans: ToSpans, run: Run
) -> tuple[list[bytes], list[Outgoing]]:
    """Requests of OTLP, and what cannot be read on its way to the dead-letter topic. Raises as `Run.see` does."""
    told: list[bytes] = []
    dead: list[Outgoing] = []
    for message in messages:
        source = Source(partition=message.partition, offset=message.offset, key=message.key, value=message.value)
        try:
            told.append(to_spans(topic.decode(message.value)))
            run.see([True])
        except InvalidMessage as error:
            log.error("%s %s/%s: %s", topic.name, source.partition, source.offset, error)
            dead.append(dead_letter(topic=topic, source=source, error=str(error)))
            run.see([False], str(error))
    return [request for request in told if request], dead


class Receiver:
    """An OTLP receiver over HTTP; an empty endpoint is nobody. `leaving` says that nothing may be waited for."""

    def __init__(self, *, endpoint: str, doors: Doors, parts: Parts, leaving: Callable[[], bool]) -> None:
        self._url = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else ""
        self._doors = doors
        self._parts = parts
        self._leaving = leaving

    async def take(self, requests: Sequence[bytes]) -> None:
        """Return when it has them all, or has refused them. Raises GaveUp."""
        if self._url:
            for request in requests:
                await self._take(request)

    async def _take(self, request: bytes) -> None:
        attempt = 0
        while True:
            try:
                headers = {"Content-Type": "application/x-protobuf"}
                await post(url=self._url, body=request, headers=headers, doors=self._doors)
                return
            except Undeliverable as error:
                log.error("%s refuses spans: %s", self._url, error)
                self._parts.metrics.add("kpatrol_spans_refused_total")
                return
            except TryAgain as error:
                if self._leaving():
                    raise GaveUp(f"{self._url}: {error}") from error
                log.warning("%s: %s; trying again", self._url, error)
                with self._parts.hold.waiting("spans"):
                    await asyncio.sleep(max(delay_s(attempt), error.after_s))
                attempt += 1


def _add_agent(app: faust.App, *, name: str, topic: Topic[Any], to_spans: ToSpans, parts: Parts) -> None:
    config, out = parts.config, otlp_spans.TOPIC

    def leaving() -> bool:
        return bool(app.should_stop or app.rebalancing)

    async def tell(stream: Any) -> None:
        run = Run()
        try:
            async with (
                Publisher(kafka=config.kafka, client_id="kpatrol-traces") as publisher,
                aiohttp.ClientSession() as http,
            ):
                receiver = Receiver(
                    endpoint=config.traces_endpoint, doors=Doors(http=http), parts=parts, leaving=leaving
                )
                async for events in stream.noack().noack_take(TAKE, within=TAKE_S):
                    messages = [event.message for event in events if event.message.value is not None]
                    parts.metrics.add("kpatrol_records_total", len(messages), topic=topic.name)
                    told, outgoing = await asyncio.to_thread(convert, messages, topic=topic, to_spans=to_spans, run=run)
                    parts.metrics.add("kpatrol_dead_letters_total", len(outgoing), topic=topic.name)
                    if config.traces_topic:
                        outgoing += [Outgoing(topic=out.name, key=out.key(r), value=out.encode(r)) for r in told]
                    await receiver.take(told)
                    await publisher.send(outgoing)
                    parts.metrics.add("kpatrol_span_requests_total", len(told), kind=name)
                    for event in events:
                        await stream.ack(event)
        except Exception as error:
            log.critical("%s: %s: %s", topic.name, type(error).__name__, error)
            end_after(0.0 if isinstance(error, GaveUp) else CRASH_LIMIT_S)
            raise

    app.agent(faust_topic(app, topic), name=f"traces-{topic.name}", concurrency=1)(tell)


def attach(app: faust.App, parts: Parts) -> Sequence[Any]:
    """Add the three agents; see app.ServiceModule."""
    for name, (topic, to_spans) in spans_of(parts.config.traces_records).items():
        _add_agent(app, name=name, topic=topic, to_spans=to_spans, parts=parts)
    return ()
