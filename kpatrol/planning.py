"""`kpatrol plan`: what a patrol of a cluster costs, by arithmetic from `measured`. Pure: no cluster is asked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kpatrol import measured
from streams.migrate import Values

DAY_S = 86_400
CELL_NODES = 5000
# Both ways, link to link, of one request without loss: (packets, bytes) with Ethernet, IPv4 and the protocol's heads.
ON_WIRE: Mapping[str, tuple[int, int]] = {
    "icmp": (2, 2 * (14 + 20 + 8 + 64)),
    "udp": (2, 2 * (14 + 20 + 8 + 64)),
    "tcp": (10, 10 * (14 + 20 + 32) + 2 * 64),
    "http": (6, 6 * (14 + 20 + 32) + 180 + 220),
    "https": (8, 8 * (14 + 20 + 32) + 260 + 300),
    "dns": (2, 2 * (14 + 20 + 8) + 60 + 120),
}
# Of a topic's partition, so that one worker that starts again catches up with an hour's outage within minutes.
ROWS_PER_PARTITION = 10_000
# A worker is planned to be half busy.
BUSY = 0.5


class CannotPlan(ValueError):
    """The numbers do not describe a patrol: the text says which and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patrol:
    """What is asked. `degree` is how many peers a node probes in a round; 0 is all others. `kept`: for how long."""

    nodes: int
    interval_s: int
    degree: int = 0
    protocols: tuple[str, ...] = ("icmp", "udp", "tcp", "http")
    zones: int = 3
    replication: int = 3
    topic_hours: int = 24
    kept: Values = field(default_factory=Values)

    def __post_init__(self) -> None:
        unknown = [p for p in self.protocols if p not in ON_WIRE]
        if unknown or not self.protocols:
            raise CannotPlan(f"--protocols: found {', '.join(unknown) or 'none'}, allowed: {', '.join(ON_WIRE)}")
        if self.degree >= self.nodes:
            raise CannotPlan(f"--degree: found {self.degree}, expected less than --nodes ({self.nodes})")

    @property
    def cells(self) -> int:
        """Groups of at most CELL_NODES nodes that probe one another."""
        return math.ceil(self.nodes / CELL_NODES)

    @property
    def peers(self) -> int:
        """How many nodes a node probes in a round."""
        return self.degree or math.ceil(self.nodes / self.cells) - 1

    @property
    def pairs_a_round(self) -> int:
        """Ordered pairs of nodes in one round."""
        return self.nodes * self.peers

    @property
    def rows_a_s(self) -> float:
        """Requests, so rows, per second."""
        return self.pairs_a_round * len(self.protocols) / self.interval_s

    def pairs_within(self, seconds: int) -> int:
        """Ordered pairs that are probed at least once in that time: a ring turns on, a full mesh is full at once."""
        others = math.ceil(self.nodes / self.cells) - 1
        return self.nodes * min(others, self.peers * max(1, seconds // self.interval_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What it takes. Bytes and cores are of the whole cluster unless the name says otherwise."""

    patrol: Patrol
    topics: Mapping[str, float]
    partitions: int
    sink_workers: int
    judge_workers: int
    tables: Mapping[str, tuple[float, int]]
    cores: Mapping[str, float]
    agent: Mapping[str, float]

    @property
    def disk_bytes(self) -> float:
        """ClickHouse's disk when everything is as old as it may become, one replica, with the margin."""
        return sum(a_day * days for a_day, days in self.tables.values())

    @property
    def disk_bytes_after_a_year(self) -> float:
        """The same after the first year."""
        return sum(a_day * min(days, 365) for a_day, days in self.tables.values())


def plan(patrol: Patrol) -> Plan:
    """The arithmetic."""
    return Plan(
        patrol=patrol,
        topics=_topics(patrol),
        partitions=max(8, 2 ** math.ceil(math.log2(max(1.0, patrol.rows_a_s / ROWS_PER_PARTITION)))),
        sink_workers=max(1, math.ceil(patrol.rows_a_s * measured.SINK_CPU_US / 1e6 / BUSY)),
        judge_workers=max(patrol.cells, math.ceil(_judge_cores(patrol) / BUSY)),
        tables=_tables(patrol),
        cores={
            "sink": patrol.rows_a_s * measured.SINK_CPU_US / 1e6,
            "ClickHouse, inserts": patrol.rows_a_s * measured.STORE_CPU_US / 1e6,
            "ClickHouse, roll-ups": patrol.rows_a_s * measured.ROLLUP_CPU_US / 1e6,
            "judge": _judge_cores(patrol),
        },
        agent=_agent(patrol),
    )


def _judge_cores(patrol: Patrol) -> float:
    lines = patrol.pairs_a_round * len(patrol.protocols)
    return lines * measured.JUDGE_CPU_US_PER_PAIR / 1e6 / patrol.interval_s


def _topics(patrol: Patrol) -> dict[str, float]:
    """Bytes kept per topic, all replicas."""
    rows_of_agent_a_s = patrol.rows_a_s / patrol.nodes
    rows_a_batch = min(float(measured.BATCH_ROWS), max(1.0, rows_of_agent_a_s * measured.BATCH_AGE_S))
    targets = min(rows_a_batch, patrol.peers * len(patrol.protocols))
    batch = measured.BATCH_HEAD_BYTES + measured.BATCH_TARGET_BYTES * targets + measured.BATCH_ROW_BYTES * rows_a_batch
    kept_s = patrol.topic_hours * 3600 * patrol.replication
    results = patrol.rows_a_s / rows_a_batch * batch * kept_s
    return {"probe-results-v1": results, "probe-receipts-v1": results * measured.RECEIPT_SHARE}


def _tables(patrol: Patrol) -> dict[str, tuple[float, int]]:
    """Table → (bytes a day with the margin, days kept)."""
    kinds, kept = len(patrol.protocols), patrol.kept
    minutes = DAY_S // max(60, patrol.interval_s)
    rows_a_day = {
        "probe": (patrol.rows_a_s * DAY_S, kept.raw_days),
        "node_1m_closed": (patrol.nodes * patrol.zones * kinds * minutes, kept.minute_days),
        "pair_1h": (patrol.pairs_within(3600) * kinds * 24, kept.hour_days),
        "node_1h": (patrol.nodes * patrol.zones * kinds * 24, kept.year_days),
        "pair_1d": (patrol.pairs_within(DAY_S) * kinds, kept.year_days),
        "node_1d": (patrol.nodes * patrol.zones * kinds, kept.year_days),
    }
    return {
        table: (rows * measured.DISK_BYTES[table] * measured.DISK_MARGIN, days)
        for table, (rows, days) in rows_a_day.items()
    }


def _agent(patrol: Patrol) -> dict[str, float]:
    """One agent's own: what it sends and answers, packets and bits a second, CPU in cores."""
    each = patrol.peers / patrol.interval_s
    requests = each * len(patrol.protocols)
    return {
        "requests_a_s": requests,
        "packets_a_s": 2 * each * sum(ON_WIRE[p][0] for p in patrol.protocols),
        "bits_a_s": 2 * each * sum(ON_WIRE[p][1] for p in patrol.protocols) * 8,
        "cores": requests * (measured.REQUEST_CPU_US + measured.SERVE_CPU_US) / 1e6,
    }


def plan_json(found: Plan) -> dict[str, Any]:
    """Stable names."""
    patrol = found.patrol
    return {
        "nodes": patrol.nodes,
        "cells": patrol.cells,
        "interval_s": patrol.interval_s,
        "peers": patrol.peers,
        "protocols": list(patrol.protocols),
        "rows_a_s": round(patrol.rows_a_s, 1),
        "rows_a_day": round(patrol.rows_a_s * DAY_S),
        "topics_bytes": {name: round(size) for name, size in found.topics.items()},
        "partitions": found.partitions,
        "sink_workers": found.sink_workers,
        "judge_workers": found.judge_workers,
        "tables": {
            name: {"bytes_a_day": round(a_day), "days": days, "bytes": round(a_day * days)}
            for name, (a_day, days) in found.tables.items()
        },
        "disk_bytes": round(found.disk_bytes),
        "disk_bytes_after_a_year": round(found.disk_bytes_after_a_year),
        "cores": {name: round(cores, 3) for name, cores in found.cores.items()},
        "agent": {name: round(value, 4) for name, value in found.agent.items()},
    }


SHOWN: Sequence[Patrol] = (
    Patrol(nodes=50, interval_s=60),
    Patrol(nodes=500, interval_s=60, degree=20),
    Patrol(nodes=5000, interval_s=60, degree=20),
    Patrol(nodes=50_000, interval_s=60, degree=20),
)


def scale_table() -> str:
    """The table of docs/scale.md."""
    plans = [plan(patrol) for patrol in SHOWN]
    head = ["", *(f"{p.patrol.nodes:,} nodes" for p in plans)]
    rows = [
        ["peers a node probes each minute", *(f"{p.patrol.peers}" for p in plans)],
        ["cells", *(f"{p.patrol.cells}" for p in plans)],
        ["rows/s", *(f"{p.patrol.rows_a_s:,.0f}" for p in plans)],
        ["results topic, 24 h, 3 replicas", *(size(p.topics["probe-results-v1"]) for p in plans)],
        ["partitions of the bulk topics", *(f"{p.partitions}" for p in plans)],
        ["sink workers, judge workers", *(f"{p.sink_workers}, {p.judge_workers}" for p in plans)],
        ["ClickHouse: cores for inserts and roll-ups", *(f"{_store_cores(p):.1f}" for p in plans)],
        ["ClickHouse: raw, 7 days", *(_kept(p, "probe") for p in plans)],
        ["ClickHouse: minutes, 60 days", *(_kept(p, "node_1m_closed") for p in plans)],
        ["ClickHouse: pairs' hours, 180 days", *(_kept(p, "pair_1h") for p in plans)],
        ["ClickHouse: pairs' days, 3 years", *(_kept(p, "pair_1d") for p in plans)],
        ["ClickHouse: all, after a year", *(size(p.disk_bytes_after_a_year) for p in plans)],
        ["an agent sends and answers", *(f"{p.agent['bits_a_s'] / 1000:.0f} kbit/s" for p in plans)],
        ["an agent's CPU", *(f"{p.agent['cores'] * 1e6:,.0f} µs/s" for p in plans)],
    ]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def _store_cores(found: Plan) -> float:
    return found.cores["ClickHouse, inserts"] + found.cores["ClickHouse, roll-ups"]


def _kept(found: Plan, table: str) -> str:
    a_day, days = found.tables[table]
    return size(a_day * days)


def size(count_bytes: float) -> str:
    """`12 GB`, in powers of 1,000."""
    for unit, scale in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count_bytes >= scale:
            return f"{count_bytes / scale:.3g} {unit}"
    return f"{count_bytes:.0f} B"
