"""A real Kafka for one measurement."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kpatrol.lab.java import find_java
from kpatrol.lab.kafka import Kafka, KafkaFiles
from kpatrol.lab.kafka_jars import cache_folder, get_jars
from kpatrol.lab.state import LabState
from topics.apply import apply
from topics.connection import KafkaConnection


@asynccontextmanager
async def broker(folder: Path) -> AsyncIterator[KafkaConnection]:
    """A started Kafka with the product's topics; it ends with the context."""
    lab = LabState.create(folder)
    jars = await asyncio.to_thread(get_jars, cache_folder(os.environ), say=print)
    kafka = await Kafka.start(lab=lab, files=KafkaFiles(java=find_java(), jars=jars, folder=folder / "kafka"))
    try:
        await apply(kafka=kafka.connection("admin"))
        yield kafka.connection("admin")
    finally:
        await kafka.kill()
        lab.close()
