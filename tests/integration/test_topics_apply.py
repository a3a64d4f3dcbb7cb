"""`kpatrol topics apply` against a real broker: create, keep, grow, align, refuse."""

import asyncio
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
        assert (await verbs(kafka))["align"] == 1
        assert set(await verbs(kafka)) == {"keep"}
        with pytest.raises(RefusedTopic, match=r"round-progress-v1: has 4 partitions, expected 8"):
            await verbs(kafka, {"round-progress-v1": 8})
        assert set(await verbs(kafka)) == {"keep"}
        said = await asyncio.to_thread(command, broker.environment("admin"))
        assert "probe-results-v1" in said
        assert "keep" in said
    finally:
        await broker.stop()


def command(kafka: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "kpatrol", "topics", "apply", "--dry-run"],
        env=os.environ | kafka,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


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
