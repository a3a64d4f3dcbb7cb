"""Configuration of the controller: read once in ``__main__``, passed on as values."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from controller.addressbook import AddressBook, BadAddressBook, read_address_book
from controller.kubernetes.book import DNS_LABELS, MULTUS_ANNOTATIONS
from controller.kubernetes.nodes import RACK_LABEL
from controller.plan import Settings
from controller.tasks import Limits
from topics.connection import BadConfiguration, KafkaConnection

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesConfig:
    """With KPATROL_TASK_SOURCE=kubernetes."""

    namespace: str
    """KPATROL_NAMESPACE: where the controller and the agents run."""
    pod: str
    """KPATROL_POD: this replica's name."""
    lease: str
    """KPATROL_LEASE: name of the Lease."""
    agents: str
    """KPATROL_AGENT_DAEMONSET: the default agents' workload; their Services are called so with -ipv4 and -ipv6."""
    dns_labels: tuple[str, ...] = DNS_LABELS
    """KPATROL_DNS_LABELS: key=value,… that tell the cluster's DNS Services in kube-system."""
    multus_annotations: tuple[str, ...] = MULTUS_ANNOTATIONS
    """KPATROL_MULTUS_ANNOTATION: the pods' annotation of further interfaces."""
    rack_label: str = RACK_LABEL
    """KPATROL_RACK_LABEL: the nodes' label of their rack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerConfig:
    """What the controller is told."""

    kafka: KafkaConnection
    kubernetes: KubernetesConfig | None
    """KPATROL_TASK_SOURCE: files (the default) or kubernetes."""
    task_dir: Path
    """KPATROL_TASK_DIR: folder of task files, with KPATROL_TASK_SOURCE=files."""
    state_dir: Path
    """KPATROL_STATE_DIR: folder that statuses are written to; kept over restarts."""
    limits: Limits
    """KPATROL_MAX_QPS: one ceiling for every kind, KPATROL_MAX_QPS_NETREACH and so on: of a kind; unset: 20 for
    NetReach, 100 for the others."""
    settings: Settings
    """KPATROL_LEAD_TIME_S, KPATROL_EXPECTED_AGENTS, KPATROL_MINUTE_S, KPATROL_SERVICES_FILE, KPATROL_CLUSTER,
    KPATROL_FOLLOW_UPS: yes or no."""
    log_level: str = "INFO"
    health_listen: tuple[str, int] | None = None
    """KPATROL_HEALTH_LISTEN: host:port of /livez, /readyz, /metrics; unset: none."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ControllerConfig:
        """Reads KPATROL_*. Raises BadConfiguration, naming the variable, what was found and what is allowed."""
        level = env.get("KPATROL_LOG_LEVEL", "INFO").upper()
        if level not in LOG_LEVELS:
            raise BadConfiguration(f"KPATROL_LOG_LEVEL: found {level!r}, allowed: {', '.join(LOG_LEVELS)}")
        kubernetes = _kubernetes(env)
        return cls(
            kafka=KafkaConnection.from_env(env),
            kubernetes=kubernetes,
            task_dir=_folder(env, "KPATROL_TASK_DIR", make=False) if kubernetes is None else Path(),
            state_dir=_folder(env, "KPATROL_STATE_DIR", make=True) if kubernetes is None else Path(),
            limits=_limits(env),
            settings=Settings(
                lead_time_us=round(_number(env, "KPATROL_LEAD_TIME_S", default=2, least=0.1, most=600) * 1e6),
                expected_agents=int(_number(env, "KPATROL_EXPECTED_AGENTS", default=1, least=1, most=100_000)),
                minute_s=_number(env, "KPATROL_MINUTE_S", default=60, least=0.5, most=60),
                cluster=env.get("KPATROL_CLUSTER", "lab"),
                book=_book(env.get("KPATROL_SERVICES_FILE", "")),
                follow_ups=_switch(env, "KPATROL_FOLLOW_UPS"),
            ),
            log_level=level,
            health_listen=_listen(env.get("KPATROL_HEALTH_LISTEN", "")),
        )


def _kubernetes(env: Mapping[str, str]) -> KubernetesConfig | None:
    source = env.get("KPATROL_TASK_SOURCE", "") or "files"
    if source not in ("files", "kubernetes"):
        raise BadConfiguration(f"KPATROL_TASK_SOURCE: found {source!r}, allowed: files, kubernetes")
    if source == "files":
        return None
    agents = env.get("KPATROL_AGENT_DAEMONSET", "") or "kpatrol-agent"
    dns = tuple(label.strip() for label in env.get("KPATROL_DNS_LABELS", "").split(",") if label.strip())
    multus = env.get("KPATROL_MULTUS_ANNOTATION", "")
    return KubernetesConfig(
        namespace=env.get("KPATROL_NAMESPACE", "") or "kpatrol",
        pod=env.get("KPATROL_POD", "") or socket.gethostname(),
        lease=env.get("KPATROL_LEASE", "") or "kpatrol-controller",
        agents=agents,
        dns_labels=dns or DNS_LABELS,
        multus_annotations=(multus,) if multus else MULTUS_ANNOTATIONS,
        rack_label=env.get("KPATROL_RACK_LABEL", "") or RACK_LABEL,
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


def _switch(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name, "") or "no"
    if text not in ("yes", "no"):
        raise BadConfiguration(f"{name}: found {text!r}, allowed: yes, no")
    return text == "yes"


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
