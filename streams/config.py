"""Configuration of the stream services: read once in `__main__`, passed on as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from topics.connection import BadConfiguration, KafkaConnection

Records = Literal["failed", "all"]
Signal = Literal["metrics", "traces"]
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where the health and metrics pages are served."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsConfig:
    """What every stream service is told. The ClickHouse password prints as ***.

    `clickhouse_url` is http(s)://user@host:port/database, and needed by all but the hooks, who need `hooks_file`
    instead, and the traces, who need at least one of `traces_topic` and `traces_endpoint` (http(s)://host:port).
    `silences_file` is the alarms' list of maintenances; `health` is None where no pages are wanted; `otlp` names
    what of the service's own goes where OTEL_* says; `session_timeout_s` is how long Kafka waits for a member that has
    died before others take over its work.
    """

    kafka: KafkaConnection
    clickhouse_url: str = ""
    clickhouse_password: str = ""
    clickhouse_ca_file: str = ""
    log_level: str = "INFO"
    health: Listen | None = None
    session_timeout_s: float = 20.0
    hooks_file: Path | None = None
    hooks_patience_s: float = 300.0
    silences_file: Path | None = None
    traces_topic: bool = False
    traces_endpoint: str = ""
    traces_records: Records = "failed"
    otlp: frozenset[Signal] = frozenset()

    def __repr__(self) -> str:
        return f"StreamsConfig({self.kafka}, clickhouse_url={self.clickhouse_url!r}, password=***, {self.health})"

    @classmethod
    def from_env(cls, env: Mapping[str, str], *, service: str = "") -> "StreamsConfig":
        """Read KPATROL_*. Raises BadConfiguration; OSError when a password file cannot be read."""
        url = env.get("KPATROL_CLICKHOUSE_URL", "")
        if service == "hooks" and not env.get("KPATROL_HOOKS_FILE"):
            raise BadConfiguration("KPATROL_HOOKS_FILE: not set, expected a YAML file of hooks")
        traces = _traces(env)
        if service == "traces" and not any(traces):
            raise BadConfiguration("KPATROL_TRACES_TOPIC: not set, expected true, or an URL in KPATROL_TRACES_ENDPOINT")
        if service not in ("hooks", "traces") and not url.startswith(("http://", "https://")):
            raise BadConfiguration(f"KPATROL_CLICKHOUSE_URL: found {url!r}, expected http(s)://user@host:port/database")
        level = env.get("KPATROL_LOG_LEVEL", "INFO").upper()
        if level not in LOG_LEVELS:
            raise BadConfiguration(f"KPATROL_LOG_LEVEL: found {level!r}, allowed: {', '.join(LOG_LEVELS)}")
        password_file = env.get("KPATROL_CLICKHOUSE_PASSWORD_FILE", "")
        return cls(
            kafka=KafkaConnection.from_env(env),
            clickhouse_url=url,
            clickhouse_password=Path(password_file).read_text().strip() if password_file else "",
            clickhouse_ca_file=env.get("KPATROL_CLICKHOUSE_CA_FILE", ""),
            log_level=level,
            health=listen(env.get("KPATROL_HEALTH_LISTEN", "")),
            hooks_file=_path(env.get("KPATROL_HOOKS_FILE", "")),
            hooks_patience_s=_patience_s(env.get("KPATROL_HOOKS_PATIENCE_S", "300")),
            silences_file=_path(env.get("KPATROL_SILENCES_FILE", "")),
            otlp=_signals(env),
            traces_topic=traces[0],
            traces_endpoint=traces[1],
            traces_records=_records(env.get("KPATROL_TRACES_RECORDS", "failed")),
            session_timeout_s=session_timeout_s(env.get("KPATROL_SESSION_TIMEOUT_S", "20")),
        )


def listen(value: str) -> Listen | None:
    """Parse KPATROL_HEALTH_LISTEN, host:port; empty is None. Raises BadConfiguration."""
    if not value:
        return None
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise BadConfiguration(f"KPATROL_HEALTH_LISTEN: found {value!r}, expected host:port")
    return Listen(host=host.strip("[]") or "0.0.0.0", port=int(port))


def _traces(env: Mapping[str, str]) -> tuple[bool, str]:
    topic, endpoint = env.get("KPATROL_TRACES_TOPIC", ""), env.get("KPATROL_TRACES_ENDPOINT", "")
    if topic not in ("", "true", "false"):
        raise BadConfiguration(f"KPATROL_TRACES_TOPIC: found {topic!r}, allowed: true, false")
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise BadConfiguration(f"KPATROL_TRACES_ENDPOINT: found {endpoint!r}, expected http(s)://host:port")
    return topic == "true", endpoint


def _records(value: str) -> Records:
    match value:
        case "failed" | "all":
            return value
    raise BadConfiguration(f"KPATROL_TRACES_RECORDS: found {value!r}, allowed: failed, all")


def _signals(env: Mapping[str, str]) -> frozenset[Signal]:
    """What the OpenTelemetry SDK has an address for; it reads the variables itself."""
    if env.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return frozenset(get_args(Signal))
    return frozenset(s for s in get_args(Signal) if env.get(f"OTEL_EXPORTER_OTLP_{s.upper()}_ENDPOINT"))


def _path(value: str) -> Path | None:
    return Path(value) if value else None


def _patience_s(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise BadConfiguration(f"KPATROL_HOOKS_PATIENCE_S: found {value!r}, expected seconds from 0 to 86400")
    return seconds


def session_timeout_s(value: str) -> float:
    """Parse KPATROL_SESSION_TIMEOUT_S. Raises BadConfiguration."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 1 <= seconds <= 60:
        raise BadConfiguration(f"KPATROL_SESSION_TIMEOUT_S: found {value!r}, expected seconds from 1 to 60")
    return seconds
