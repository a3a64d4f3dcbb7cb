"""Apache Kafka on this machine: real brokers in KRaft mode, started, broken and stopped by the lab."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets as random_secrets
import socket
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from kpatrol.lab.acls import ADMIN, ROLES, Role, create_acls
from kpatrol.lab.errors import LabError
from kpatrol.lab.kafka_config import (
    LOG4J2,
    SCRAM,
    BrokerSpec,
    Secrets,
    Security,
    argument_file,
    scram_users,
    server_properties,
)
from kpatrol.lab.processes import Child, spawn
from kpatrol.lab.state import LabState, private_folder
from kpatrol.lab.tls import Authority
from topics.connection import KafkaConnection

LOOPBACK = "127.0.0.1"
_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
# Below the range the kernel takes ports of outgoing connections from: a client that tries again and again while a
# broker is down would else end up on the broker's own port and keep it from coming back.
_PORTS = range(21_000, 32_000)
_READY_S = 60.0
_STOP_GRACE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaFiles:
    """Where things are: the program, the jars, and the folder for settings, data and logs."""

    java: Path
    jars: Path
    folder: Path


class Kafka:
    """A cluster of `nodes` brokers. `start` makes and starts it; it can be stopped and started again with its data."""

    def __init__(self, *, lab: LabState, files: KafkaFiles, brokers: Sequence[BrokerSpec], secured: bool) -> None:
        self._lab = lab
        self._files = files
        self._brokers = tuple(brokers)
        self._children: dict[int, Child] = {}
        self.secured = secured

    @classmethod
    async def start(
        cls,
        *,
        lab: LabState,
        files: KafkaFiles,
        addresses: Sequence[str] = (LOOPBACK,),
        nodes: int = 1,
        security: Security = "PLAINTEXT",
    ) -> Kafka:
        """Format the storage, start all brokers and wait until they answer; with SASL_SSL create the ACLs too.

        Clients can connect by each of `addresses`; the first is the one used when none is named.
        """
        private_folder(files.folder)
        brokers = _brokers(files.folder, addresses=addresses, nodes=nodes)
        kafka = cls(lab=lab, files=files, brokers=brokers, secured=security == "SASL_SSL")
        secrets = kafka._make_secrets(addresses) if kafka.secured else None
        kafka._write_settings(secrets)
        await kafka._format(secrets)
        await kafka.start_brokers()
        if secrets is not None:
            try:
                await create_acls(kafka.connection(ADMIN))
            except BaseException:
                await kafka.kill()
                raise
        return kafka

    @property
    def children(self) -> Mapping[int, Child]:
        """The running processes by node id (from 1)."""
        return dict(self._children)

    @property
    def log_files(self) -> list[Path]:
        return [self._log(broker) for broker in self._brokers]

    def bootstrap(self, address: str | None = None) -> str:
        """host:port,... of all brokers on one of the client addresses."""
        return ",".join(f"{at}:{broker.clients[at]}" for broker in self._brokers if (at := self._at(broker, address)))

    def connection(self, role: Role, *, address: str | None = None) -> KafkaConnection:
        """How a process of that role reaches Kafka."""
        return KafkaConnection.from_env(self.environment(role, address=address))

    def environment(self, role: Role, *, address: str | None = None) -> dict[str, str]:
        """The same as environment variables, for a process to be started."""
        variables = {"KPATROL_KAFKA_BOOTSTRAP": self.bootstrap(address)}
        if self.secured:
            variables |= {
                "KPATROL_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                "KPATROL_KAFKA_SASL_MECHANISM": SCRAM,
                "KPATROL_KAFKA_SASL_USERNAME": role,
                "KPATROL_KAFKA_SASL_PASSWORD_FILE": str(self._password_file(role)),
                "KPATROL_KAFKA_SSL_CA_FILE": str(self._files.folder / "ca.pem"),
            }
        return variables

    async def start_brokers(self) -> None:
        """Start every broker that does not run, and wait until all answer."""
        for broker in self._brokers:
            child = self._children.get(broker.node_id)
            if child is None or not child.is_running():
                self._children[broker.node_id] = self._spawn(broker)
        try:
            await asyncio.gather(*(self._wait_ready(broker) for broker in self._brokers))
        except BaseException:
            await self.kill()
            raise

    async def revive(self, node_id: int) -> None:
        """Start one broker that was killed and wait until it answers; the others are left as they are."""
        (broker,) = [b for b in self._brokers if b.node_id == node_id]
        self._children[node_id] = self._spawn(broker)
        await self._wait_ready(broker)

    async def stop(self) -> None:
        """Orderly, all at once; a broker that does not end by itself is killed."""
        await asyncio.gather(*(child.stop(grace_s=_STOP_GRACE_S) for child in self._children.values()))
        self._children.clear()

    async def kill(self, node_id: int | None = None) -> None:
        """kill -9 of one broker, or of all."""
        for number in [node_id] if node_id is not None else list(self._children):
            await self._children.pop(number).kill()

    async def restart(self) -> None:
        """Stop and start again, with the same data and the same ports."""
        await self.stop()
        await self.start_brokers()

    def _at(self, broker: BrokerSpec, address: str | None) -> str:
        if address is None:
            return next(iter(broker.clients))
        if address not in broker.clients:
            raise LabError(f"Kafka has no listener on {address}; it has: {', '.join(broker.clients)}")
        return address

    def _make_secrets(self, addresses: Sequence[str]) -> Secrets:
        folder = self._files.folder
        authority = Authority(name="kpatrol lab")
        passwords = {role: random_secrets.token_urlsafe(24) for role in ROLES}
        for role, password in passwords.items():
            _write_private(self._password_file(role), password + "\n")
        (folder / "ca.pem").write_text(authority.certificate_pem)
        return Secrets(
            passwords=passwords,
            broker_password=random_secrets.token_urlsafe(24),
            certificate=authority.server_certificate(name="localhost", addresses=addresses),
            authority_pem=authority.certificate_pem,
            super_users=(ADMIN,),
        )

    def _password_file(self, role: Role) -> Path:
        return self._files.folder / f"password-{role}"

    def _write_settings(self, secrets: Secrets | None) -> None:
        (self._files.folder / "log4j2.properties").write_text(LOG4J2)
        for broker in self._brokers:
            _write_private(broker.properties, server_properties(broker, brokers=self._brokers, secrets=secrets))

    async def _format(self, secrets: Secrets | None) -> None:
        cluster = urlsafe_b64encode(random_secrets.token_bytes(16)).decode().rstrip("=")
        # A leading dash would be read as an option.
        cluster = f"k{cluster[1:]}"
        users = scram_users(secrets.passwords) if secrets else []

        async def of(broker: BrokerSpec) -> None:
            arguments = ["format", "--cluster-id", cluster, "--config", str(broker.properties), *users]
            await self._run_java("kafka.tools.StorageTool", arguments, name=f"format-{broker.node_id}")

        await asyncio.gather(*(of(broker) for broker in self._brokers))

    async def _run_java(self, main_class: str, arguments: Sequence[str], *, name: str) -> None:
        path = self._files.folder / f"{name}-arguments"
        _write_private(path, argument_file([*self._jvm_options(), main_class, *arguments]))
        process = await asyncio.create_subprocess_exec(
            self._files.java, f"@{path}", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
        path.unlink()
        if process.returncode != 0:
            said = output.decode(errors="replace").strip()[-2000:]
            raise LabError(f"{main_class} ended with exit code {process.returncode}: {said}")

    def _jvm_options(self) -> list[str]:
        settings = self._files.folder / "log4j2.properties"
        return [*_JVM, f"-Dlog4j2.configurationFile={settings}", "-cp", f"{self._files.jars}/*"]

    def _log(self, broker: BrokerSpec) -> Path:
        return self._files.folder / f"kafka-{broker.node_id}.log"

    def _spawn(self, broker: BrokerSpec) -> Child:
        return spawn(
            register=self._lab,
            name=f"kafka-{broker.node_id}",
            argv=[str(self._files.java), *self._jvm_options(), "kafka.Kafka", str(broker.properties)],
            environment={"LC_ALL": "C.UTF-8"},
            log=self._log(broker),
            folder=self._files.folder,
        )

    async def _wait_ready(self, broker: BrokerSpec) -> None:
        """Ready means: this broker answers a metadata request and knows all the others."""
        child = self._children[broker.node_id]
        end = time.monotonic() + _READY_S
        address = f"{self._at(broker, None)}:{broker.clients[self._at(broker, None)]}"
        while time.monotonic() < end:
            if not child.is_running():
                raise LabError(f"{child.name} ended with exit code {child.exit_code}: {child.last_lines()}")
            if await self._knows_all(address):
                return
            await asyncio.sleep(0.05)
        raise LabError(f"{child.name} did not answer within {_READY_S:g} s: {child.last_lines()}")

    async def _knows_all(self, address: str) -> bool:
        host, _, port = address.rpartition(":")
        try:
            # Asked first by hand: aiokafka logs an error for every refused connection.
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return False
        writer.close()
        options = self.connection(ADMIN).client_options() | {"bootstrap_servers": address}
        client = AIOKafkaClient(**options, request_timeout_ms=5_000)
        quiet = logging.getLogger("aiokafka")
        level = quiet.level
        quiet.setLevel(logging.CRITICAL)
        try:
            await client.bootstrap()
            return len(client.cluster.brokers()) == len(self._brokers)
        except (KafkaError, OSError):
            return False
        finally:
            await client.close()
            quiet.setLevel(level)


def _brokers(folder: Path, *, addresses: Sequence[str], nodes: int) -> list[BrokerSpec]:
    ports = iter(_free_ports(nodes * (len(addresses) + 2)))
    return [
        BrokerSpec(
            node_id=number,
            folder=folder,
            clients={address: next(ports) for address in addresses},
            controller_port=next(ports),
            internal_port=next(ports),
        )
        for number in range(1, nodes + 1)
    ]


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at any address just now."""
    found: list[int] = []
    for port in random.sample(_PORTS, k=len(_PORTS)):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise LabError(f"no {count} free ports from {_PORTS.start} to {_PORTS.stop - 1}")


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
