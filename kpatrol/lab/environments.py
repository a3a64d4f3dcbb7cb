"""The environment variables that each service of a lab is started with. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kpatrol.lab.netplan import Mode, Node

HEARTBEAT_S = 1.0
# How long Kafka waits for a killed member of a group: on one machine a silent member is a dead one.
SESSION_TIMEOUT_S = 6
# How soon `kpatrol history` of a lab that stays up knows of a round.
ROLLUP_S = 15
# In namespaces every agent has port 80 for itself; on shared loopback a plain user may not take it.
AGENT_PORTS: Mapping[Mode, Mapping[str, int]] = {
    "root": {"HTTP": 80, "TCP": 7, "UDP": 862},
    "userns": {"HTTP": 80, "TCP": 7, "UDP": 862},
    "loopback": {"HTTP": 18080, "TCP": 18007, "UDP": 18862},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaDoor:
    """How one role reaches Kafka: its variables, password file included."""

    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickHouseDoor:
    """The endpoint's address and the files with its two passwords."""

    host: str
    port: int
    database: str
    writer_file: Path
    reader_file: Path

    def url(self, user: str) -> str:
        """`http://user@host:port/database`."""
        return f"http://{user}@{self.host}:{self.port}/{self.database}"


def agent(*, node: Node, mode: Mode, kafka: KafkaDoor, spool: Path) -> dict[str, str]:
    """An agent on a node of the lab. Its pod has the node's name: there is one on each."""
    ports = {f"KPATROL_{name}_PORT": str(port) for name, port in AGENT_PORTS[mode].items()}
    return {
        **kafka.variables,
        **ports,
        "KPATROL_AGENT": node.name,
        "KPATROL_NODE": node.name,
        "KPATROL_POD": f"kpatrol-agent-{node.name}",
        "KPATROL_ZONE": node.zone,
        "KPATROL_RACK": node.rack,
        "KPATROL_IPV4": node.address,
        "KPATROL_IPV6": node.address6 or "",
        "KPATROL_NODE_IPV4": node.address,
        "KPATROL_NODE_IPV6": node.address6 or "",
        "KPATROL_SPOOL_DIR": str(spool),
        "KPATROL_HEARTBEAT_S": str(HEARTBEAT_S),
    }


def streams(*, kafka: KafkaDoor, clickhouse: ClickHouseDoor, health: str) -> dict[str, str]:
    """The sink, the judge or the alarms."""
    return {
        **kafka.variables,
        "KPATROL_CLICKHOUSE_URL": clickhouse.url("writer"),
        "KPATROL_CLICKHOUSE_PASSWORD_FILE": str(clickhouse.writer_file),
        "KPATROL_HEALTH_LISTEN": health,
        "KPATROL_SESSION_TIMEOUT_S": f"{SESSION_TIMEOUT_S}",
    }


def rollup(*, clickhouse: ClickHouseDoor) -> dict[str, str]:
    """The roll-up job: it needs no Kafka."""
    return {
        "KPATROL_CLICKHOUSE_URL": clickhouse.url("writer"),
        "KPATROL_CLICKHOUSE_PASSWORD_FILE": str(clickhouse.writer_file),
        "KPATROL_ROLLUP_S": f"{ROLLUP_S}",
    }


def controller(
    *,
    kafka: KafkaDoor,
    tasks: Path,
    state: Path,
    services: Path,
    agents: int,
    minute_s: float,
    max_qps: int | None,
    follow_ups: bool = False,
) -> dict[str, str]:
    """The controller on a folder of task files; it waits for all agents before the first round."""
    return {
        **kafka.variables,
        "KPATROL_TASK_DIR": str(tasks),
        "KPATROL_STATE_DIR": str(state),
        "KPATROL_SERVICES_FILE": str(services),
        "KPATROL_EXPECTED_AGENTS": str(agents),
        "KPATROL_MINUTE_S": f"{minute_s:g}",
        "KPATROL_FOLLOW_UPS": "yes" if follow_ups else "no",
        **({"KPATROL_MAX_QPS": str(max_qps)} if max_qps else {}),
    }
