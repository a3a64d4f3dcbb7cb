"""Configuration of the controller: read once in ``__main__``, passed on as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from controller.addressbook import AddressBook, BadAddressBook, read_address_book
from controller.plan import Settings
from controller.tasks import Limits
from topics.connection import BadConfiguration, KafkaConnection

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerConfig:
    """What the controller is told."""

    kafka: KafkaConnection
    task_dir: Path
    """KPATROL_TASK_DIR: folder of task files."""
    state_dir: Path
    """KPATROL_STATE_DIR: folder that statuses are written to; kept over restarts."""
    limits: Limits
    """KPATROL_MAX_QPS: one ceiling for every kind, KPATROL_MAX_QPS_NETREACH and so on: of a kind; unset: 20 for
    NetReach, 100 for the others."""
    settings: Settings
    """KPATROL_LEAD_TIME_S, KPATROL_EXPECTED_AGENTS, KPATROL_MINUTE_S, KPATROL_SERVICES_FILE, KPATROL_CLUSTER."""
    log_level: str = "INFO"
    health_listen: tuple[str, int] | None = None
    """KPATROL_HEALTH_LISTEN: host:port of /livez, /readyz, /metrics; unset: none."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ControllerConfig:
        """Reads KPATROL_*. Raises BadConfiguration, naming the variable, what was found and what is allowed."""
        level = env.get("KPATROL_LOG_LEVEL", "INFO").upper()
        if level not in LOG_LEVELS:
            raise BadConfiguration(f"KPATROL_LOG_LEVEL: found {level!r}, allowed: {', '.join(LOG_LEVELS)}")
        return cls(
            kafka=KafkaConnection.from_env(env),
            task_dir=_folder(env, "KPATROL_TASK_DIR", make=False),
            state_dir=_folder(env, "KPATROL_STATE_DIR", make=True),
            limits=_limits(env),
            settings=Settings(
                lead_time_us=round(_number(env, "KPATROL_LEAD_TIME_S", default=2, least=0.1, most=600) * 1e6),
                expected_agents=int(_number(env, "KPATROL_EXPECTED_AGENTS", default=1, least=1, most=100_000)),
                minute_s=_number(env, "KPATROL_MINUTE_S", default=60, least=0.5, most=60),
                cluster=env.get("KPATROL_CLUSTER", "lab"),
                book=_book(env.get("KPATROL_SERVICES_FILE", "")),
            ),
            log_level=level,
            health_listen=_listen(env.get("KPATROL_HEALTH_LISTEN", "")),
        )


def _number(env: Mapping[str, str], name: str, *, default: float, least: float, most: float) -> float:
    text = env.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise BadConfiguration(f"{name}: found {text!r}, allowed: number from {least:g} to {most:g}")
    return value


def _limits(env: Mapping[str, str]) -> Limits:
    for_all = int(_number(env, "KPATROL_MAX_QPS", default=0, least=1, most=1_000_000))
    limits = Limits.with_max_qps(for_all or None)
    of_kinds = {
        kind: int(_number(env, f"KPATROL_MAX_QPS_{kind.upper()}", default=ceiling, least=1, most=1_000_000))
        for kind, ceiling in limits.max_qps.items()
    }
    return replace(limits, max_qps=of_kinds)


def _listen(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise BadConfiguration(f"KPATROL_HEALTH_LISTEN: found {text!r}, allowed: host:port or :port")
    return host.strip("[]"), int(port)


def _folder(env: Mapping[str, str], name: str, *, make: bool) -> Path:
    text = env.get(name, "")
    if not text:
        raise BadConfiguration(f"{name}: not set, expected a folder")
    path = Path(text)
    try:
        if make:
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadConfiguration(f"{name}: found {text!r} ({error.strerror}), expected a folder to write to") from error
    if not path.is_dir():
        raise BadConfiguration(f"{name}: found {text!r}, expected a folder that exists")
    return path


def _book(text: str) -> AddressBook:
    if not text:
        return AddressBook()
    try:
        return read_address_book(Path(text))
    except BadAddressBook as error:
        raise BadConfiguration(f"KPATROL_SERVICES_FILE: {error}") from error
