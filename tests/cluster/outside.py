"""Kafka and ClickHouse beside the cluster: real ones of the lab's, on the machine, reached by pods over the nodes'
control path. No fault of the pods' network can touch them, as an operator would want of an instrument.

    with running_cluster(nodes=3) as cluster, outside(cluster) as services:
        helm.run("install", …, "--values", str(services.write_values()))
        services.store()        # kpatrol.reading.store.Store, as the reader
        services.kafka          # KafkaConnection of the test itself
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from kpatrol.lab.java import find_java
from kpatrol.lab.kafka import LOOPBACK, Kafka, KafkaFiles
from kpatrol.lab.kafka_jars import cache_folder, get_jars
from kpatrol.lab.processes import Child
from kpatrol.lab.web import answers, free_port, wait_until
from kpatrol.reading.store import Store
from tests.cluster.cluster import Cluster
from tests.cluster.images import ROOT
from topics.connection import KafkaConnection

SECRET = "outside-clickhouse"
NAMESPACE = "kpatrol"
_DATABASE = "kpatrol"
_READY_S = 90.0
_ROLES = ("writer", "reader")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """The two services; addresses as pods see them. `passwords` are ClickHouse's by account."""

    bootstrap: str
    clickhouse_url: str
    passwords: dict[str, str]
    kafka: KafkaConnection
    kafka_variables: dict[str, str]
    folder: Path

    def store(self) -> Store:
        """ClickHouse as the reader; raises CannotRead while it is away."""
        host = self.clickhouse_url.removeprefix("http://")
        return Store(url=f"http://reader@{host}/{_DATABASE}", password=self.passwords["reader"])

    def write_values(self) -> Path:
        """The file of the chart's values that point at them."""
        path = self.folder / "values.yaml"
        path.write_text(yaml.safe_dump(self._values()))
        return path

    def _values(self) -> dict[str, object]:
        return {
            "kafka": {"bundled": {"enabled": False}, "external": {"bootstrap": self.bootstrap}},
            "clickhouse": {
                "bundled": {"enabled": False},
                "external": {"url": self.clickhouse_url, "passwordSecret": SECRET},
            },
        }


@contextmanager
def outside(cluster: Cluster, *, namespace: str = NAMESPACE) -> Iterator[Outside]:
    """Start both, and put ClickHouse's passwords into a Secret of the namespace (made if need be). They end with the
    cluster at the latest."""
    folder = cluster.folder / "outside"
    folder.mkdir()
    passwords = {role: secrets.token_urlsafe(18) for role in _ROLES}
    kafka = asyncio.run(_start_kafka(cluster, folder / "kafka"))
    endpoint: Child | None = None
    try:
        port = free_port(cluster.gateway)
        endpoint = _start_endpoint(cluster, folder, port=port, passwords=passwords)
        url = f"http://{cluster.gateway}:{port}"
        last = endpoint
        asyncio.run(
            wait_until(lambda: answers(f"{url}/ping"), what="endpoint", timeout_s=_READY_S, hint=last.last_lines)
        )
        _make_secret(cluster, namespace, passwords)
        yield Outside(
            bootstrap=kafka.bootstrap(cluster.gateway),
            clickhouse_url=url,
            passwords=passwords,
            kafka=kafka.connection("admin", address=LOOPBACK),
            kafka_variables=kafka.environment("controller", address=LOOPBACK),
            folder=folder,
        )
    finally:
        if endpoint is not None:
            asyncio.run(endpoint.stop())
        asyncio.run(kafka.kill())


async def _start_kafka(cluster: Cluster, folder: Path) -> Kafka:
    jars = await asyncio.to_thread(get_jars, cache_folder(os.environ), say=lambda _: None)
    files = KafkaFiles(java=find_java(), jars=jars, folder=folder)
    return await Kafka.start(lab=cluster.lab, files=files, addresses=(LOOPBACK, cluster.gateway))


def _start_endpoint(cluster: Cluster, folder: Path, *, port: int, passwords: dict[str, str]) -> Child:
    words = []
    for role, password in passwords.items():
        path = folder / f"{role}.password"
        path.touch(mode=0o600)
        path.write_text(password)
        words += [f"--{role}-password-file", str(path)]
    command = [sys.executable, "-m", "kpatrol.endpoint", "--path", str(folder / "clickhouse"), "--allow-remote"]
    argv = [*command, "--listen", f"{cluster.gateway}:{port}", *words]
    return cluster.children.start("endpoint", argv, log=folder / "endpoint.log", folder=ROOT)


def _make_secret(cluster: Cluster, namespace: str, passwords: dict[str, str]) -> None:
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": namespace},
            "stringData": passwords,
        },
    ]
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))
