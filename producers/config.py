"""The agent's settings: read once from the environment by `__main__`, passed on as values.

An unknown KPATROL_ name is told (`unknown_names`) but does not stop the agent: Kubernetes puts names of its own
(KPATROL_..._SERVICE_HOST) into the environment wherever a Service begins with `kpatrol`.
"""

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from producers.instrument import FLAVOURS, Flavour
from producers.load.caps import Limits
from producers.responder.own_drops import Drop, parse
from topics.connection import BadConfiguration, KafkaConnection

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
DEFAULT_SPOOL_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the agent is. `agent` is unique in its cluster and stays the same over restarts."""

    agent: str
    node: str
    zone: str = ""
    rack: str = ""
    pod: str = ""
    group: str = "default"
    cluster: str = "lab"


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Where the agent answers its peers: addresses on the data path; port 0 means not served."""

    ipv4: str = ""
    ipv6: str = ""
    node_ipv4: str = ""
    node_ipv6: str = ""
    http_port: int = 80
    https_port: int = 0
    tcp_port: int = 0
    udp_port: int = 0
    # UDP probes dropped by the responder itself, for showing a fault where the network has none.
    drop_udp: tuple[Drop, ...] = ()
    tls_cert_file: str = ""
    tls_key_file: str = ""
    # A pod's own network: HTTP and TCP are answered at all of its addresses, those of further interfaces too.
    own_network: bool = False

    @property
    def stream_addresses(self) -> tuple[str, ...]:
        """Where HTTP and TCP are answered."""
        if self.own_network:
            return tuple(every for every, ours in (("0.0.0.0", self.ipv4), ("::", self.ipv6)) if ours)
        return self.addresses

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses that peers are told; UDP is answered at these alone, so that a reply comes from where it was
        asked."""
        return tuple(address for address in (self.ipv4, self.ipv6) if address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything the agent is told from outside."""

    identity: Identity
    serving: Serving
    # None: not by Kafka (`producers.attached`).
    kafka: KafkaConnection | None
    spool_dir: Path
    spool_max_bytes: int = DEFAULT_SPOOL_BYTES
    heartbeat_s: float = 5.0
    lookups: tuple[str, ...] = ()
    probe_urls: tuple[str, ...] = ()
    health_listen: tuple[str, int] | None = None
    log_level: str = "INFO"
    # In the node's own network namespace (`host`) the node's counters are part of a round's account.
    flavour: Flavour = "pod"
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def from_env(cls, env: Mapping[str, str], *, with_kafka: bool = True) -> "Config":
        """Read KPATROL_*. Raises BadConfiguration with the name, what was found and what is allowed."""
        agent = env.get("KPATROL_AGENT", "") or socket.gethostname()
        return cls(
            identity=Identity(
                agent=agent,
                node=env.get("KPATROL_NODE", "") or agent,
                zone=env.get("KPATROL_ZONE", ""),
                rack=env.get("KPATROL_RACK", ""),
                pod=env.get("KPATROL_POD", ""),
                group=env.get("KPATROL_GROUP", "") or "default",
                cluster=env.get("KPATROL_CLUSTER", "") or "lab",
            ),
            serving=_serving(env),
            kafka=KafkaConnection.from_env(env) if with_kafka else None,
            spool_dir=_folder(env, "KPATROL_SPOOL_DIR"),
            spool_max_bytes=_integer(env, "KPATROL_SPOOL_MAX_BYTES", DEFAULT_SPOOL_BYTES, low=1 << 20, high=1 << 44),
            heartbeat_s=_seconds(env, "KPATROL_HEARTBEAT_S", 5.0, low=0.1, high=3600.0),
            lookups=tuple(name.strip() for name in env.get("KPATROL_LOOKUPS", "").split(",") if name.strip()),
            probe_urls=_urls(env, "KPATROL_PROBE_URLS"),
            health_listen=_listen(env, "KPATROL_HEALTH_LISTEN"),
            log_level=_choice(env, "KPATROL_LOG_LEVEL", "INFO", LOG_LEVELS),
            flavour=cast(Flavour, _choice(env, "KPATROL_FLAVOUR", "pod", FLAVOURS)),
            limits=_limits(env),
        )


_OWN_NAMES = """
    AGENT NODE ZONE RACK POD GROUP CLUSTER IPV4 IPV6 NODE_IPV4 NODE_IPV6 POD_IPS HOST_IPS HTTP_PORT HTTPS_PORT
    TCP_PORT UDP_PORT TLS_CERT_FILE TLS_KEY_FILE SPOOL_DIR SPOOL_MAX_BYTES HEARTBEAT_S LOOKUPS HEALTH_LISTEN LOG_LEVEL
    PROBE_URLS DROP_UDP FLAVOUR MAX_RATE MAX_RATE_PER_TARGET MAX_IN_FLIGHT MAX_IN_FLIGHT_PER_TARGET
    KAFKA_BOOTSTRAP KAFKA_SECURITY_PROTOCOL KAFKA_SASL_MECHANISM KAFKA_SASL_USERNAME KAFKA_SASL_PASSWORD_FILE
    KAFKA_SSL_CA_FILE
"""
NAMES = frozenset(f"KPATROL_{name}" for name in _OWN_NAMES.split())


def unknown_names(env: Mapping[str, str]) -> list[str]:
    """KPATROL_ names in the environment that the agent does not read."""
    names = (name for name in env if name.startswith("KPATROL_") and not name.startswith("KPATROL_LAB_"))
    return sorted(name for name in names if name not in NAMES)


def _serving(env: Mapping[str, str]) -> Serving:
    pod, node = _addresses(env, "KPATROL_POD_IPS"), _addresses(env, "KPATROL_HOST_IPS")
    serving = Serving(
        ipv4=_address(env, "KPATROL_IPV4", 4) or pod[4],
        ipv6=_address(env, "KPATROL_IPV6", 6) or pod[6],
        node_ipv4=_address(env, "KPATROL_NODE_IPV4", 4) or node[4],
        node_ipv6=_address(env, "KPATROL_NODE_IPV6", 6) or node[6],
        http_port=_port(env, "KPATROL_HTTP_PORT", 80),
        https_port=_port(env, "KPATROL_HTTPS_PORT", 0),
        tcp_port=_port(env, "KPATROL_TCP_PORT", 0),
        udp_port=_port(env, "KPATROL_UDP_PORT", 0),
        drop_udp=_drops(env, "KPATROL_DROP_UDP"),
        tls_cert_file=env.get("KPATROL_TLS_CERT_FILE", ""),
        tls_key_file=env.get("KPATROL_TLS_KEY_FILE", ""),
        own_network=bool(env.get("KPATROL_POD_IPS")) and env.get("KPATROL_FLAVOUR", "pod") == "pod",
    )
    if not serving.ipv4 and not serving.ipv6:
        raise BadConfiguration(
            "KPATROL_IPV4, KPATROL_IPV6, KPATROL_POD_IPS: none is set, expected the address peers reach us at"
        )
    if serving.https_port and not (serving.tls_cert_file and serving.tls_key_file):
        raise BadConfiguration(
            f"KPATROL_HTTPS_PORT: found {serving.https_port}, allowed only with KPATROL_TLS_CERT_FILE and "
            "KPATROL_TLS_KEY_FILE"
        )
    return serving


def _drops(env: Mapping[str, str], name: str) -> tuple[Drop, ...]:
    try:
        return parse(env.get(name, ""))
    except ValueError as error:
        raise BadConfiguration(f"{name}: {error}") from error


def _limits(env: Mapping[str, str]) -> Limits:
    default = Limits()
    return Limits(
        rate=_integer(env, "KPATROL_MAX_RATE", int(default.rate), low=1, high=1_000_000),
        rate_per_target=_integer(
            env, "KPATROL_MAX_RATE_PER_TARGET", int(default.rate_per_target), low=1, high=1_000_000
        ),
        in_flight=_integer(env, "KPATROL_MAX_IN_FLIGHT", default.in_flight, low=1, high=65_535),
        in_flight_per_target=_integer(
            env, "KPATROL_MAX_IN_FLIGHT_PER_TARGET", default.in_flight_per_target, low=1, high=65_535
        ),
    )


def _integer(env: Mapping[str, str], name: str, default: int, *, low: int, high: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise BadConfiguration(f"{name}: found {text!r}, allowed: a whole number from {low} to {high}")
    return value


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    return _integer(env, name, default, low=0, high=65535)


def _seconds(env: Mapping[str, str], name: str, default: float, *, low: float, high: float) -> float:
    text = env.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise BadConfiguration(f"{name}: found {text!r}, allowed: seconds from {low:g} to {high:g}")
    return value


def _choice(env: Mapping[str, str], name: str, default: str, allowed: tuple[str, ...]) -> str:
    text = env.get(name, "") or default
    chosen = next((word for word in allowed if word.lower() == text.lower()), None)
    if chosen is None:
        raise BadConfiguration(f"{name}: found {text!r}, allowed: {', '.join(allowed)}")
    return chosen


def _address(env: Mapping[str, str], name: str, family: int) -> str:
    text = env.get(name, "")
    if not text:
        return ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != family:
        raise BadConfiguration(f"{name}: found {text!r}, allowed: an IPv{family} address")
    return str(address)


def _addresses(env: Mapping[str, str], name: str) -> dict[int, str]:
    """The first address of each family of a list with commas, as Kubernetes gives a pod's addresses; '' for none."""
    found = {4: "", 6: ""}
    for text in filter(None, (word.strip() for word in env.get(name, "").split(","))):
        try:
            address = ipaddress.ip_address(text)
        except ValueError as error:
            raise BadConfiguration(f"{name}: found {text!r}, allowed: IP addresses with commas between") from error
        found[address.version] = found[address.version] or str(address)
    return found


def _urls(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    urls = tuple(part.strip() for part in env.get(name, "").replace(";", ",").split(",") if part.strip())
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadConfiguration(f"{name}: found {url!r}, allowed: http:// or https:// URLs, separated by commas")
    return urls


def _folder(env: Mapping[str, str], name: str) -> Path:
    text = env.get(name, "")
    if not text:
        raise BadConfiguration(f"{name}: not set, expected a folder that outlives the process")
    return Path(text)


def _listen(env: Mapping[str, str], name: str) -> tuple[str, int] | None:
    text = env.get(name, "")
    if not text:
        return None
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise BadConfiguration(f"{name}: found {text!r}, allowed: host:port or :port")
    return host.strip("[]"), int(port)
