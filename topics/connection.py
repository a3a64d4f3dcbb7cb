"""How every service reaches Kafka: read once from the environment, given to aiokafka as keyword arguments."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


class BadConfiguration(ValueError):
    """A setting that cannot be used: the text names it, what was found and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConnection:
    """Addresses and credentials. The password prints as ***."""

    bootstrap: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = ""
    sasl_username: str = ""
    sasl_password: str = ""
    ssl_ca_file: str = ""

    def __repr__(self) -> str:
        return f"KafkaConnection({self.bootstrap}, {self.security_protocol}, user={self.sasl_username!r}, password=***)"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "KafkaConnection":
        """Read KPATROL_KAFKA_*. Raises BadConfiguration."""
        bootstrap = env.get("KPATROL_KAFKA_BOOTSTRAP", "")
        if not bootstrap:
            raise BadConfiguration("KPATROL_KAFKA_BOOTSTRAP: not set, expected host:port[,host:port…]")
        protocol = env.get("KPATROL_KAFKA_SECURITY_PROTOCOL", "PLAINTEXT")
        if protocol not in PROTOCOLS:
            raise BadConfiguration(
                f"KPATROL_KAFKA_SECURITY_PROTOCOL: found {protocol!r}, allowed: {', '.join(PROTOCOLS)}"
            )
        password_file = env.get("KPATROL_KAFKA_SASL_PASSWORD_FILE", "")
        return cls(
            bootstrap=bootstrap,
            security_protocol=protocol,
            sasl_mechanism=env.get("KPATROL_KAFKA_SASL_MECHANISM", ""),
            sasl_username=env.get("KPATROL_KAFKA_SASL_USERNAME", ""),
            sasl_password=Path(password_file).read_text().strip() if password_file else "",
            ssl_ca_file=env.get("KPATROL_KAFKA_SSL_CA_FILE", ""),
        )

    def ssl_context(self) -> ssl.SSLContext | None:
        """TLS settings, or None where the protocol has no TLS."""
        if "SSL" not in self.security_protocol.replace("SASL", ""):
            return None
        return ssl.create_default_context(cafile=self.ssl_ca_file or None)

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments of every aiokafka client."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap,
            "security_protocol": self.security_protocol,
        }
        context = self.ssl_context()
        if context is not None:
            options["ssl_context"] = context
        if self.sasl_mechanism:
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password,
            }
        return options

    def producer_options(self) -> dict[str, Any]:
        """Keyword arguments of every producer: idempotent, acknowledged by all replicas, zstd."""
        return self.client_options() | {
            "acks": "all",
            "enable_idempotence": True,
            "compression_type": "zstd",
            "max_request_size": 4 << 20,
        }
