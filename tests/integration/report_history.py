"""A history of rounds in a real endpoint: tasks, rounds and the requests of each, stored as the sink stores them."""

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from streams.clickhouse import ClickHouse
from streams.expand import TargetTables, deliver, expand
from streams.migrate import Migration
from streams.rows import ROWS, Located
from tests.integration.endpoint_fixture import WRITER_PASSWORD, Endpoint, running_endpoint
from topics import probe_results, round_verdicts
from topics.ids import round_id
from topics.outcome import Layer, Outcome, Proto
from topics.round_verdicts import EXAMPLE, AgentAccount, RoundVerdict

AGENTS = 3
REQUESTS = 10
SPEC = {
    "schedule": {"schedule": "0 1", "roundNumber": 10, "roundTimeoutMinute": 1},
    "request": {"durationInSecond": 10, "qps": 1, "perRequestTimeoutInMS": 500},
    "expect": {"successRate": 1.0, "meanAccessDelayInMs": 5000},
    "target": {"ipv4": True, "ipv6": False, "endpoint": True},
}


@contextmanager
def endpoint_with_tables(folder: Path) -> Iterator[tuple[Endpoint, ClickHouse]]:
    """A migrated endpoint and a writer's door to it."""
    with running_endpoint(folder) as endpoint:
        writer = ClickHouse(url=f"http://writer@127.0.0.1:{endpoint.port}/kpatrol", password=WRITER_PASSWORD)
        writer.wait_ready(timeout_s=60)
        Migration(clickhouse=writer).apply()
        yield endpoint, writer
        writer.close()


def uid_of(task: str) -> str:
    return f"uid-{task.partition('/')[2]}"


def verdict(task: str, number: int, *, start_us: int, kind: str = "NetReach") -> RoundVerdict:
    planned = (AGENTS - 1) * REQUESTS
    accounts = tuple(
        AgentAccount(
            agent=f"agent-{i}", node=f"node-{i}", planned=planned, stored=planned, unsent=0, declared_missing=0,
            unexplained=0, cpu_us=20_000, cpu_peak_us=9_000, resident_bytes=70 << 20, finished_us=start_us + 10_100_000,
        )
        for i in range(AGENTS)
    )  # fmt: skip
    return msgspec.structs.replace(
        EXAMPLE, round_id=round_id(task_uid=uid_of(task), number=number), round=number, task=task,
        task_uid=uid_of(task),
        kind=kind, start_us=start_us, at_us=start_us + 11_000_000, deadline_us=start_us + 60_000_000, spec=SPEC,
        created_us=start_us - number * 60_000_000, accounts=accounts, planned=planned * AGENTS, stored=planned * AGENTS,
        succeeded_nodes=tuple(f"node-{i}" for i in range(AGENTS)),
    )  # fmt: skip


def store_verdicts(writer: ClickHouse, verdicts: list[RoundVerdict], *, token: str) -> None:
    _, to_rows = ROWS[round_verdicts.TOPIC.name]
    items = [Located(record=v, partition=0, offset=i, timestamp_ms=v.at_us // 1000) for i, v in enumerate(verdicts)]
    for table, rows in to_rows(items).items():
        writer.insert_arrow(table=table, rows=rows, token=f"{token}-{table}")


def batch(told: RoundVerdict, agent: int, *, lost: int = 0) -> probe_results.Batch:
    """One agent's requests of a round: ten to each of the others, the last `lost` of them without a reply."""
    others = [i for i in range(AGENTS) if i != agent]
    rows = REQUESTS * len(others)
    head = probe_results.BatchHead(
        round_id=told.round_id, round_number=told.round, start_us=told.start_us, task=told.task,
        task_uid=told.task_uid,
        agent=f"agent-{agent}", incarnation=7, batch_seq=0, node=f"node-{agent}", pod=f"kpatrol-agent-{agent}",
        trace_id="0af7651916cd43dd8448eb211c80319c",
        targets=tuple(
            probe_results.BatchTarget(
                name=f"AgentPodV4IP_kpatrol-agent-{i}_10.0.0.{i}", dst=f"node-{i}", dst_node=f"node-{i}",
                proto=Proto.http, layer=Layer.pod, dst_ip=f"10.0.0.{i}", src_ip=f"10.0.0.{agent}", dst_port=80,
            )
            for i in others
        ),
        peers=("",),
    )  # fmt: skip
    columns: dict[str, Any] = {name: array(code, [0] * rows) for name, code in probe_results.TYPECODES.items()}
    good = [i < rows - lost for i in range(rows)]
    columns["seq"] = array("I", range(rows))
    columns["target"] = array("H", [i // REQUESTS for i in range(rows)])
    columns["planned_us"] = array("Q", [i % REQUESTS * 1_000_000 for i in range(rows)])
    columns["dur_us"] = array("I", [1000 * (1 + i % REQUESTS) if good[i] else 500_000 for i in range(rows)])
    columns["outcome"] = array("B", [int(Outcome.ok if ok else Outcome.timeout) for ok in good])
    columns["status"] = array("H", [200 if ok else 0 for ok in good])
    columns["resp_bytes"] = array("I", [350 if ok else 0 for ok in good])
    columns["sent"] = array("I", [3] * rows)
    columns["lost"] = array("I", [0 if ok else 3 for ok in good])
    return probe_results.decode(probe_results.encode_columns(head=head, columns=columns, rows=rows))


def store_requests(writer: ClickHouse, batches: list[probe_results.Batch], *, token: str) -> None:
    tables = TargetTables()
    rows: pa.RecordBatch = expand([deliver(b, partition=0, offset=n, tables=tables) for n, b in enumerate(batches)])
    writer.insert_arrow(table="probe", rows=rows, token=token)
