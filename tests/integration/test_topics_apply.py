"""`kpatrol topics apply` against a real broker: create, keep, grow, align, refuse."""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from kpatrol.lab.java import find_java
from kpatrol.lab.kafka import Kafka, KafkaFiles
from kpatrol.lab.kafka_jars import cache_folder, get_jars
from kpatrol.lab.leftovers import tear_down
from kpatrol.lab.state import LabState, base_folder
from topics.apply import RefusedTopic, apply
from topics.connection import KafkaConnection


async def verbs(kafka: KafkaConnection, partitions: dict[str, int] | None = None) -> Counter[str]:
    return Counter(step.verb for step in await apply(kafka=kafka, partitions=partitions))


async def until_seen(kafka: KafkaConnection, expected: set[str]) -> None:
    """A broker answers from its own copy of the settings, which follows a change a moment later."""
    for _ in range(600):
        if {step.verb for step in await apply(kafka=kafka, dry_run=True)} == expected:
            return
        await asyncio.sleep(0.1)


async def shorten_retention(kafka: KafkaConnection, name: str) -> None:
    admin = AIOKafkaAdminClient(**kafka.client_options())
    await admin.start()
    try:
        configs = {"retention.ms": "60000", "cleanup.policy": "delete"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=configs)])
    finally:
        await admin.close()


async def scenario(lab: LabState) -> None:
    jars = await asyncio.to_thread(get_jars, cache_folder(os.environ), say=print)
    files = KafkaFiles(java=find_java(), jars=jars, folder=lab.subfolder("kafka"))
    broker = await Kafka.start(lab=lab, files=files)
    try:
        kafka = broker.connection("admin")
        first = await verbs(kafka)
        assert set(first) == {"create"}
        assert await verbs(kafka) == Counter(keep=first["create"])
        grown = await verbs(kafka, {"probe-results-v1": 12})
        assert grown["grow"] == 1
        # Fewer than there are is no reason to touch a topic that may grow.
        assert set(await verbs(kafka)) == {"keep"}
        await shorten_retention(kafka, "alarms-v1-dlq")
        await until_seen(kafka, {"align", "keep"})
        assert (await verbs(kafka))["align"] == 1
        await until_seen(kafka, {"keep"})
        assert set(await verbs(kafka)) == {"keep"}
        with pytest.raises(RefusedTopic, match=r"round-progress-v1, .*: has 4 partitions, expected 8"):
            await verbs(kafka, {"round-progress-v1": 8})
        assert set(await verbs(kafka)) == {"keep"}
        await through_the_command(broker.environment("admin"))
    finally:
        await broker.stop()


async def through_the_command(kafka: dict[str, str]) -> None:
    would = json.loads((await asyncio.to_thread(command, kafka, "apply", "--dry-run", "--json")).stdout)
    assert {row["would"] for row in would} == {"keep"}
    done = json.loads((await asyncio.to_thread(command, kafka, "apply", "--json")).stdout)
    assert {row["done"] for row in done} == {"kept"}
    refused = await asyncio.to_thread(command, kafka, "apply", "--replication", "3")
    assert refused.returncode == 2
    assert "replicated 1 times, asked for 3: this command cannot change it" in refused.stderr
    live = {
        row["topic"]: row for row in json.loads((await asyncio.to_thread(command, kafka, "describe", "--json")).stdout)
    }
    assert live["probe-results-v1"]["live_partitions"] == 12
    assert {(row["live_replication"], row["differs"]) for row in live.values()} == {(1, "")}


async def empty_cluster(lab: LabState) -> None:
    jars = await asyncio.to_thread(get_jars, cache_folder(os.environ), say=print)
    broker = await Kafka.start(lab=lab, files=KafkaFiles(java=find_java(), jars=jars, folder=lab.subfolder("kafka")))
    try:
        kafka = broker.environment("admin")
        refused = await asyncio.to_thread(command, kafka, "apply", "--replication", "3")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert len(refused.stderr.splitlines()) == 1
        assert "replication factor" in refused.stderr
        said = json.loads((await asyncio.to_thread(command, kafka, "describe", "--json")).stdout)
        assert {row["differs"] for row in said} == {"does not exist"}
    finally:
        await broker.stop()


def command(kafka: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "kpatrol", "topics", *words],
        env=os.environ | kafka,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_what_kafka_refuses_is_one_line() -> None:
    lab = LabState.create(base_folder(os.environ))
    try:
        asyncio.run(empty_cluster(lab))
    finally:
        tear_down(lab)


def test_topics_are_brought_to_the_catalogue_s_form_and_the_rest_refused() -> None:
    lab = LabState.create(base_folder(os.environ))
    try:
        asyncio.run(scenario(lab))
    finally:
        tear_down(lab)


def test_without_an_address_there_is_one_clear_line() -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("KPATROL_")}
    done = subprocess.run(
        [sys.executable, "-m", "kpatrol", "topics", "apply"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "Error: KPATROL_KAFKA_BOOTSTRAP: not set, expected host:port[,host:port…]"
