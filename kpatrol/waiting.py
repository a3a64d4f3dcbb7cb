"""`kpatrol wait`: returns when the topics and tables that a service works with are there.

For init containers: a service that starts before `kpatrol topics apply` and `kpatrol migrate` have run would only be
restarted again and again. What is missing is said once, and again when it changes.
"""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from kpatrol.migrating import CannotMigrate, migrate_tables
from topics.apply import wanted
from topics.catalogue import TOPICS
from topics.connection import KafkaConnection

PAUSE_S = 1.0
PAGE_TIMEOUT_S = 5.0
# A database that a newer version has migrated is good enough for us: its tables only ever gain.
READY_STATES = {"table": ("applied", "unknown"), "view": ("applied", "changed", "unknown")}

Look = Callable[[], Sequence[str]]


class NotReady(Exception):
    """The patience has run out; the text says what was missing."""


def topics_of(role: str) -> frozenset[str]:
    """Topics that a role reads or writes, its own changelogs included. Raises ValueError for a role without any."""
    named = {topic.name for topic in TOPICS.values() if role in (*topic.readers, *topic.writers)}
    changelogs = {topic.name for topic in wanted() if topic.name.startswith(f"kpatrol-{role}-")}
    if not named:
        roles = sorted({r for t in TOPICS.values() for r in (*t.readers, *t.writers)})
        raise ValueError(f"role: found {role!r}, allowed: {', '.join(roles)}")
    return frozenset(named | changelogs)


def missing_tables(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """Of `kpatrol migrate --dry-run`'s rows those that a service would miss. Pure."""
    return [f"{row['file']} ({row['state']})" for row in rows if row["state"] not in READY_STATES[row["kind"]]]


def look_for_kafka(kafka: KafkaConnection) -> Look:
    """A look at Kafka: whether it answers."""

    def look() -> Sequence[str]:
        try:
            asyncio.run(_topic_names(kafka))
        except (KafkaError, OSError) as error:
            return [f"Kafka at {kafka.bootstrap} ({error})"]
        return []

    return look


def look_for_page(url: str) -> Look:
    """A look at a page of a service: whether it answers 200."""

    def look() -> Sequence[str]:
        try:
            with urllib.request.urlopen(url, timeout=PAGE_TIMEOUT_S):
                return []
        except (OSError, ValueError) as error:
            return [f"{url} ({error})"]

    return look


def look_for_topics(*, kafka: KafkaConnection, role: str) -> Look:
    """A look at Kafka: the role's topics that are not there. Raises ValueError for an unknown role."""
    needed = topics_of(role)

    def look() -> Sequence[str]:
        try:
            there = asyncio.run(_topic_names(kafka))
        except (KafkaError, OSError) as error:
            return [f"Kafka at {kafka.bootstrap} ({error})"]
        return [f"topic {name}" for name in sorted(needed - there)]

    return look


def look_for_tables(env: Mapping[str, str]) -> Look:
    """A look at ClickHouse: the files that are not applied."""

    def look() -> Sequence[str]:
        try:
            return missing_tables(migrate_tables(url="", env=env, dry_run=True))
        except CannotMigrate as error:
            return [str(error)]

    return look


def wait(
    *,
    looks: Sequence[Look],
    patience_s: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Look until nothing is missing. Raises NotReady after `patience_s`."""
    end, said = clock() + patience_s, ""
    while True:
        missing = [what for look in looks for what in look()]
        if not missing:
            return
        text = f"waiting for {', '.join(missing[:3])}" + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        if text != said:
            say(text)
            said = text
        if clock() >= end:
            raise NotReady(f"not there after {patience_s:g} s: {', '.join(missing)}")
        sleep(PAUSE_S)


async def _topic_names(kafka: KafkaConnection) -> frozenset[str]:
    admin = AIOKafkaAdminClient(**kafka.client_options())
    try:
        await admin.start()
        return frozenset(await admin.list_topics())
    finally:
        await admin.close()
