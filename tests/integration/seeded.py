"""A filled store for tests that read: a mesh patrol, a DNS and an HTTP task over the last hours, and what is told of
their rounds."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.seed import Seed, fill, node, tell_rounds
from streams.clickhouse import ClickHouse
from streams.migrate import Migration
from streams.rollup import RollUp
from tests.integration.endpoint_fixture import WRITER_PASSWORD, Endpoint, running_endpoint

MESH, DNS, WEB = "netpatrol/mesh", "netdns/names", "apphttphealthy/web"
LOSSY = node(3)
NODES = 8


def writer(endpoint: Endpoint) -> ClickHouse:
    return ClickHouse(url=f"http://writer@127.0.0.1:{endpoint.port}/kpatrol", password=WRITER_PASSWORD, timeout_s=120)


def seeds(now: datetime) -> list[Seed]:
    minute = now.replace(second=0, microsecond=0)
    start = minute - timedelta(hours=3)
    common: dict[str, Any] = {"nodes": NODES, "start": start, "rounds": 179}
    return [
        Seed(**common, loss=1e-4, lossy={LOSSY: 0.05}),
        Seed(**common, task=DNS, layer="dns", protocols=("dns",), loss=0.01),
        Seed(**common, task=WEB, layer="url", protocols=("https", "http"), loss=0.002),
    ]


@contextmanager
def seeded(folder: Path) -> Iterator[Endpoint]:
    """A running endpoint with three hours of data up to now, rolled up."""
    with running_endpoint(folder) as endpoint:
        clickhouse = writer(endpoint)
        clickhouse.wait_ready(timeout_s=60)
        Migration(clickhouse=clickhouse).apply()
        now = datetime.now(UTC)
        for seed in seeds(now):
            fill(clickhouse, seed)
        RollUp(clickhouse=clickhouse, raw_days=7).run_once()
        tell(clickhouse, now)
        clickhouse.close()
        yield endpoint


def tell(clickhouse: ClickHouse, now: datetime) -> None:
    """Verdicts, findings, alarms, heartbeats and events of that time."""
    tell_rounds(clickhouse)
    for statement in (FINDINGS, AGENTS):
        clickhouse.command(statement)
    began = now - timedelta(minutes=90)
    alarm = ["alarm_id", "transition", "state", "at", "since", "task", "element", "direction", "kind", "severity"]
    clickhouse.insert_rows(
        table="alarm",
        columns=[*alarm, "sentence", "round_id"],
        rows=[
            ["a1", 1, "opened", began, began, MESH, f"node {LOSSY}", "egress",
             "loss", "warning", "loses 5 %", 1],
            ["a0", 1, "opened", now - timedelta(hours=2), now - timedelta(hours=2), DNS, "dns", "", "loss", "warning",
             "gone", 1],
            ["a0", 2, "closed", now - timedelta(hours=1), now - timedelta(hours=2), DNS, "dns", "", "loss", "warning",
             "gone", 1],
        ],
    )  # fmt: skip
    clickhouse.insert_rows(
        table="event",
        columns=["at", "object", "node", "reason", "message"],
        rows=[[now - timedelta(hours=1), f"Node/{LOSSY}", LOSSY, "NotReady", "kubelet stopped posting node status"]],
    )


FINDINGS = f"""
INSERT INTO finding (round_id, round_number, round_at, task, task_uid, revision, element, direction, kind, sentence,
    loss_sent, loss_lost, loss_rate, loss_low, loss_high, confidence, evidence_sql)
SELECT round_id, round_number, round_at, task, 'u', 1, 'node {LOSSY}', 'egress', 'loss', 'loses packets', 100, 5,
    0.05, 0.02, 0.11, 0.9, 'SELECT 1'
FROM round WHERE verdict = 'fail'
"""
AGENTS = f"""
INSERT INTO agent (at, agent, incarnation, node, agent_group, flavour, zone, version, started, interval_s,
    clock_offset_us, spool_bytes, spool_batches, running_rounds)
SELECT now64(6) - toIntervalMinute(number % 120), concat('agent-', toString(intDiv(number, 120))), 1,
    concat('node-', leftPad(toString(intDiv(number, 120)), 4, '0'), '.eu-central.compute.internal'), 'g', 'pod',
    'zone-1', '0.1.0', now64(6) - toIntervalHour(4), 60, 12, 0, 0, 1
FROM numbers({NODES * 120})
"""
