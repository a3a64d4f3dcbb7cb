"""The settings of a small Kafka cluster on one machine, as text. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kpatrol.lab.acls import Role
from kpatrol.lab.tls import Certificate

Security = Literal["PLAINTEXT", "SASL_SSL"]
# The brokers' own user on the loopback listeners; nobody else knows its password.
BROKER_USER = "broker"
SCRAM = "SCRAM-SHA-512"

LOG4J2 = """status = warn
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = warn
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSpec:
    """One process, broker and controller in one. `clients` maps an address to the port that clients use there."""

    node_id: int
    folder: Path
    clients: Mapping[str, int]
    controller_port: int
    internal_port: int

    @property
    def data(self) -> Path:
        return self.folder / f"data-{self.node_id}"

    @property
    def properties(self) -> Path:
        return self.folder / f"server-{self.node_id}.properties"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What the SASL_SSL variant needs; `passwords` are by role."""

    passwords: Mapping[Role, str] = field(repr=False)
    broker_password: str = field(repr=False)
    certificate: Certificate
    authority_pem: str
    super_users: Sequence[str] = ()


def server_properties(broker: BrokerSpec, *, brokers: Sequence[BrokerSpec], secrets: Secrets | None) -> str:
    """The server.properties of one process. With one broker everything is kept once, with three or more three times."""
    settings = {
        **_common(broker, brokers),
        **_listeners(broker, secured=secrets is not None),
        **(_secured(secrets, clients=len(broker.clients)) if secrets else {}),
    }
    return "".join(f"{name}={_escaped(value)}\n" for name, value in settings.items())


def _common(broker: BrokerSpec, brokers: Sequence[BrokerSpec]) -> dict[str, str]:
    copies = min(3, len(brokers))
    least = max(1, copies - 1)
    return {
        "process.roles": "broker,controller",
        "node.id": str(broker.node_id),
        "controller.quorum.voters": ",".join(f"{b.node_id}@127.0.0.1:{b.controller_port}" for b in brokers),
        "log.dirs": str(broker.data),
        # Nothing is made by accident: a topic that nobody applied is an error.
        "auto.create.topics.enable": "false",
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(least),
        "offsets.topic.replication.factor": str(copies),
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(least),
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": str(copies),
        "share.coordinator.state.topic.min.isr": str(least),
        # Apps that join one after the other should not each wait for more to come.
        "group.initial.rebalance.delay.ms": "0",
        # A broker that was killed is let in again only after its old session has run out (9 s by default).
        "broker.session.timeout.ms": "5000",
        "broker.heartbeat.interval.ms": "1000",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "log.cleaner.dedupe.buffer.size": str(16 << 20),
        "message.max.bytes": str(4 << 20),
        "replica.fetch.max.bytes": str(4 << 20),
    }


def _listeners(broker: BrokerSpec, *, secured: bool) -> dict[str, str]:
    """One listener per client address, because each has to be advertised as itself; the brokers' own on loopback."""
    own = "SASL_PLAINTEXT" if secured else "PLAINTEXT"
    clients = {f"CLIENT{i}": f"{address}:{port}" for i, (address, port) in enumerate(broker.clients.items())}
    shown = {**clients, "INTERNAL": f"127.0.0.1:{broker.internal_port}"}
    protocols = dict.fromkeys(clients, "SASL_SSL" if secured else "PLAINTEXT") | {"INTERNAL": own, "CONTROLLER": own}
    bound = {**shown, "CONTROLLER": f"127.0.0.1:{broker.controller_port}"}
    return {
        "listeners": ",".join(f"{name}://{address}" for name, address in bound.items()),
        "advertised.listeners": ",".join(f"{name}://{address}" for name, address in shown.items()),
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
        "inter.broker.listener.name": "INTERNAL",
        "controller.listener.names": "CONTROLLER",
    }


def _secured(secrets: Secrets, *, clients: int) -> dict[str, str]:
    login = (
        "org.apache.kafka.common.security.plain.PlainLoginModule required "
        f'username="{BROKER_USER}" password="{secrets.broker_password}" '
        f'user_{BROKER_USER}="{secrets.broker_password}";'
    )
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    supers = ";".join(f"User:{name}" for name in (BROKER_USER, *secrets.super_users))
    return {
        **{f"listener.name.client{i}.{SCRAM.lower()}.sasl.jaas.config": scram for i in range(clients)},
        "sasl.enabled.mechanisms": SCRAM,
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "listener.name.internal.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.internal.plain.sasl.jaas.config": login,
        "listener.name.controller.plain.sasl.jaas.config": login,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": supers,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.certificate.chain": secrets.certificate.certificate_pem,
        "ssl.keystore.key": secrets.certificate.key_pem,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.certificates": secrets.authority_pem,
    }


def _escaped(value: str) -> str:
    """A value as java.util.Properties reads it back: one line, backslashes doubled."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def scram_users(passwords: Mapping[Role, str]) -> list[str]:
    """Arguments of the storage tool that create the users with the cluster."""
    return [
        argument
        for user, password in sorted(passwords.items())
        for argument in ("--add-scram", f"{SCRAM}=[name={user},password={password}]")
    ]


def argument_file(arguments: Sequence[str]) -> str:
    """Text of a java @file: keeps passwords out of the process list."""
    quoted = (argument.replace("\\", "\\\\").replace('"', '\\"') for argument in arguments)
    return "".join(f'"{argument}"\n' for argument in quoted)
