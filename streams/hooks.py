"""The hooks: alarms-v1 to webhooks, Alertmanager and commands; python -m streams hooks.

At least once, in order: a transition is delivered to every hook it is for, or set aside in alarms-v1-dlq with hook and
reason in the headers, and only then acknowledged. After a crash it may come again: receivers know it by its key.
"""

import logging
from collections.abc import Sequence
from typing import Any

import aiohttp
import faust

from streams.app import end_after
from streams.dead_letter import Outgoing, Run, Source, dead_letter
from streams.delivery.base import Doors
from streams.delivery.read import Route, read
from streams.delivery.send import GivenUp, Patience, deliver
from streams.faust_topics import faust_topic
from streams.parts import Parts
from streams.publish import Publisher
from topics import alarms
from topics.spec import InvalidMessage

TAKE = 20
TAKE_S = 0.1
CRASH_LIMIT_S = 15.0
log = logging.getLogger(__name__)


def set_aside(given_up: GivenUp, *, source: Source) -> Outgoing:
    """A transition that a hook did not get, for the dead-letter topic."""
    letter = dead_letter(topic=alarms.TOPIC, source=source, error=f"{given_up.hook}: {given_up.reason}")
    more = (("hook", given_up.hook.encode()), ("attempts", str(given_up.attempts).encode()))
    return Outgoing(topic=letter.topic, key=letter.key, value=letter.value, headers=(*letter.headers, *more))


async def take_message(
    source: Source, *, routes: Sequence[Route], doors: Doors, patience: Patience, parts: Parts, run: Run
) -> list[Outgoing]:
    """Deliver one record; what is to be set aside before it may be acknowledged."""
    topic = alarms.TOPIC
    parts.metrics.add("kpatrol_records_total", topic=topic.name)
    try:
        record = topic.decode(source.value)
        run.see([True])
    except InvalidMessage as error:
        log.error("%s %s/%s: %s", topic.name, source.partition, source.offset, error)
        run.see([False], str(error))
        parts.metrics.add("kpatrol_dead_letters_total", topic=topic.name)
        return [dead_letter(topic=topic, source=source, error=str(error))]

    def counted(outcome: str) -> None:
        parts.metrics.add("kpatrol_hook_deliveries_total", outcome=outcome)

    with parts.hold.waiting("hooks"):
        given_up = await deliver(record, routes, doors=doors, patience=patience, counted=counted)
    for _ in given_up:
        parts.metrics.add("kpatrol_dead_letters_total", topic=topic.name)
    return [set_aside(one, source=source) for one in given_up]


def attach(app: faust.App, parts: Parts) -> Sequence[Any]:
    """Add the hooks' agent; see app.ServiceModule. Raises BadConfiguration, OSError for a file that cannot be used."""
    assert parts.config.hooks_file is not None, "the configuration of the hooks says where their file is"
    routes = read(parts.config.hooks_file)
    patience = Patience(total_s=parts.config.hooks_patience_s)
    topic = alarms.TOPIC

    async def call_hooks(stream: Any) -> None:
        run = Run()
        try:
            async with (
                Publisher(kafka=parts.config.kafka, client_id="kpatrol-hooks") as publisher,
                aiohttp.ClientSession() as http,
            ):
                doors = Doors(http=http)
                async for events in stream.noack().noack_take(TAKE, within=TAKE_S):
                    for event in events:
                        message = event.message
                        # A tombstone of compaction is no transition.
                        if message.value is not None:
                            source = Source(
                                partition=message.partition, offset=message.offset, key=message.key, value=message.value
                            )
                            aside = await take_message(
                                source, routes=routes, doors=doors, patience=patience, parts=parts, run=run
                            )
                            await publisher.send(aside)
                        await stream.ack(event)
        except Exception as error:
            log.critical("%s: %s: %s", topic.name, type(error).__name__, error)
            end_after(CRASH_LIMIT_S)
            raise

    app.agent(faust_topic(app, topic), name="hooks", concurrency=1)(call_hooks)
    return ()
