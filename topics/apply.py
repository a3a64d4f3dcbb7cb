"""Make the cluster's topics as the catalogue says: create, grow, align settings, refuse the rest.

`plan` decides, `apply` acts. A topic with fewer partitions grows only where no table depends on the count; one with
more is left alone where it may grow, refused where not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.new_partitions import NewPartitions
from aiokafka.errors import TopicAlreadyExistsError, for_code

from topics.catalogue import TOPICS
from topics.connection import KafkaConnection
from topics.spec import DAY_S

Verb = Literal["create", "grow", "align", "keep", "refuse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A topic as it should be."""

    name: str
    partitions: int
    may_grow: bool
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """A topic as it is."""

    partitions: int
    config: Mapping[str, str]
    replication: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What will be done about one topic, and why. `replication` is what it has, 0 where there is no topic yet."""

    verb: Verb
    topic: Wanted
    reason: str
    replication: int = 0


class RefusedTopic(ValueError):
    """A topic that exists in a form we must not or cannot change; nothing was done."""


class CannotApply(Exception):
    """Kafka did not do it; the text is one line with Kafka's reason."""


def changelog(*, app: str, table: str, partitions: int) -> Wanted:
    """The changelog topic of a Faust table: compacted, with as many partitions as the source."""
    return Wanted(
        name=f"{app}-{table}-changelog",
        partitions=partitions,
        may_grow=False,
        config={
            "cleanup.policy": "compact",
            "segment.ms": "600000",
            "min.cleanable.dirty.ratio": "0.1",
            "delete.retention.ms": "3600000",
            "max.message.bytes": str(4 << 20),
        },
    )


def wanted(*, partitions: Mapping[str, int] | None = None) -> list[Wanted]:
    """Every topic of the catalogue, its dead-letter topic, and the changelogs; `partitions` overrides by name."""
    counts = partitions or {}
    topics = []
    for topic in TOPICS.values():
        count = counts.get(topic.name, topic.partitions)
        topics.append(Wanted(name=topic.name, partitions=count, may_grow=topic.may_grow, config=topic.config()))
        if topic.dead_letters:
            retention = {"cleanup.policy": "delete", "retention.ms": str(7 * DAY_S * 1000)}
            limit = {"max.message.bytes": str(topic.max_message_bytes)}
            topics.append(Wanted(name=topic.dlq, partitions=1, may_grow=True, config=retention | limit))
    progress = next(t for t in topics if t.name == "round-progress-v1")
    verdicts = next(t for t in topics if t.name == "round-verdicts-v1")
    topics.append(changelog(app="kpatrol-judge", table="rounds", partitions=progress.partitions))
    topics.append(changelog(app="kpatrol-alarms", table="alarms", partitions=verdicts.partitions))
    return topics


def differing(config: Mapping[str, str], live: Mapping[str, str]) -> dict[str, str | None]:
    """Setting → the live value, of those settings that are not as asked for."""
    return {name: live.get(name) for name, value in config.items() if live.get(name) != value}


def plan(*, desired: list[Wanted], observed: Mapping[str, Existing], replication: int | None = None) -> list[Step]:
    """One step a topic, in the order given; `replication` None leaves existing topics' factors alone. Pure."""
    return [_step(topic, observed.get(topic.name), replication) for topic in desired]


def _step(topic: Wanted, existing: Existing | None, replication: int | None) -> Step:
    if existing is None:
        return Step(verb="create", topic=topic, reason="did not exist")
    step = _existing_step(topic, existing)
    if step.verb != "refuse" and replication not in (None, existing.replication):
        reason = (
            f"replicated {existing.replication} times, asked for {replication}: this command cannot change it "
            "(kafka-reassign-partitions.sh can)"
        )
        step = Step(verb="refuse", topic=topic, reason=reason)
    return replace(step, replication=existing.replication)


def _existing_step(topic: Wanted, existing: Existing) -> Step:
    if existing.partitions != topic.partitions and not topic.may_grow:
        reason = (
            f"has {existing.partitions} partitions, expected {topic.partitions}: tables depend on the count, "
            "so it can neither grow nor shrink; create the topic anew under a new version"
        )
        return Step(verb="refuse", topic=topic, reason=reason)
    if existing.partitions < topic.partitions:
        return Step(verb="grow", topic=topic, reason=f"has {existing.partitions} partitions")
    differs = differing(topic.config, existing.config)
    if differs:
        return Step(verb="align", topic=topic, reason=", ".join(f"{k}={v}" for k, v in differs.items()))
    return Step(verb="keep", topic=topic, reason="as it should be")


async def describe(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, Existing]:
    """Those of the topics that exist, with their settings."""
    present = set(await admin.list_topics())
    found = [name for name in names if name in present]
    if not found:
        return {}
    described = {t["topic"]: t["partitions"] for t in await admin.describe_topics(found)}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in found]
    config: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(resources):
        for resource in response.resources:
            config[resource[3]] = {entry[0]: entry[1] for entry in resource[4]}
    return {
        name: Existing(
            partitions=len(described[name]),
            config=config.get(name, {}),
            replication=min((len(p["replicas"]) for p in described[name]), default=1),
        )
        for name in found
    }


async def observe(*, kafka: KafkaConnection, names: list[str]) -> dict[str, Existing]:
    """Those of the topics that a cluster has. Raises KafkaError."""
    admin = AIOKafkaAdminClient(**kafka.client_options())
    try:
        await admin.start()
        return await describe(admin, names)
    finally:
        await admin.close()


async def apply(
    *,
    kafka: KafkaConnection,
    replication: int | None = None,
    partitions: Mapping[str, int] | None = None,
    dry_run: bool = False,
) -> list[Step]:
    """Bring the cluster's topics to the catalogue's form; returns what was done (or would be).

    `replication` is asked of every topic; None: new ones get 1, existing ones keep theirs. Raises RefusedTopic before
    anything is changed when one of them must not be touched, CannotApply with Kafka's own reason.
    """
    desired = wanted(partitions=partitions)
    admin = AIOKafkaAdminClient(**kafka.client_options())
    await admin.start()
    try:
        observed = await describe(admin, [t.name for t in desired])
        steps = plan(desired=desired, observed=observed, replication=replication)
        refused: dict[str, list[str]] = {}
        for step in steps:
            if step.verb == "refuse":
                refused.setdefault(step.reason, []).append(step.topic.name)
        if refused:
            raise RefusedTopic("; ".join(f"{', '.join(names)}: {reason}" for reason, names in refused.items()))
        if not dry_run:
            await _perform(admin, steps, replication or 1)
        return steps
    finally:
        await admin.close()


async def _perform(admin: AIOKafkaAdminClient, steps: list[Step], replication: int) -> None:
    new = [
        NewTopic(
            name=s.topic.name,
            num_partitions=s.topic.partitions,
            replication_factor=replication,
            topic_configs=dict(s.topic.config),
        )
        for s in steps
        if s.verb == "create"
    ]
    if new:
        _check(await admin.create_topics(new))
    for step in steps:
        if step.verb == "grow":
            _check(await admin.create_partitions({step.topic.name: NewPartitions(step.topic.partitions)}))
        if step.verb in ("grow", "align"):
            # Old brokers know only the full replacement of a topic's settings, so all of ours are sent.
            resource = ConfigResource(ConfigResourceType.TOPIC, step.topic.name, configs=dict(step.topic.config))
            await admin.alter_configs([resource])


def _check(response: Any) -> None:
    for error in getattr(response, "topic_errors", []):
        name, code = error[0], error[1]
        if code and for_code(code) is not TopicAlreadyExistsError:
            raise CannotApply(f"{name}: {error[-1] or for_code(code).description}")
