"""What a row costs the sink's process, in CPU microseconds: python -m bench.sink [--targets N] [--agents N] [--stages].

Stages, in this process, on flushes of 100 batches of 500 rows: decode, check, expand to columns, insert through the
door into a real endpoint (another process, so the engine's work is not counted). Then the service itself: a real
Kafka, a real sink process, its CPU from the first record to the last acknowledged. The goal, 1 µs a row, is for the
second figure. `--stages` leaves it out (no Java needed).

Seen on 2 cores shared with other work (10 agents, 20 targets): decode 0.24, check 0.03, expand 0.11, insert 0.08; the
service 0.81 to 0.86, 160,000 to 193,000 rows/s with the engine on the same cores.
"""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from aiokafka import AIOKafkaProducer

from bench.broker import broker
from streams.clickhouse import ClickHouse
from streams.expand import TargetTables, deliver, expand
from streams.migrate import Migration
from topics import probe_results
from topics.connection import KafkaConnection
from topics.outcome import Layer, Proto
from topics.probe_results import BATCH_ROWS, SCHEMA, BatchHead, BatchTarget

FLUSH = 100
GOAL_US = 1.0
PASSWORD = "bench"


def targets(count: int) -> tuple[BatchTarget, ...]:
    """A mesh's targets."""
    return tuple(
        BatchTarget(
            name=f"AgentPodV4IP_agent-{i}_10.0.{i // 250}.{i % 250}",
            dst=f"node-{i}",
            dst_node=f"node-{i}",
            dst_zone=f"zone-{i % 3}",
            proto=Proto.http,
            layer=Layer.pod,
            dst_ip=f"10.0.{i // 250}.{i % 250}",
            src_ip="10.0.0.1",
            dst_port=80,
        )
        for i in range(count)
    )


def record(*, agent: int, batch_seq: int, known: tuple[BatchTarget, ...]) -> bytes:
    """A sealed batch as an agent publishes it: most columns as of a healthy HTTP mesh."""
    rng = np.random.default_rng((agent, batch_seq))
    names = ("", *(t.dst for t in known))
    head = BatchHead(
        round_id=2**60 + 7,
        round_number=1,
        start_us=time.time_ns() // 1_000_000 * 1000,
        task="netreach/bench",
        task_uid="bench",
        agent=f"node-{agent}",
        incarnation=1,
        batch_seq=batch_seq,
        node=f"node-{agent}",
        trace_id=f"{agent + 1:032x}",
        targets=known,
        peers=names,
    )
    columns: dict[str, Any] = {f.name: np.zeros(BATCH_ROWS, dtype=f.type.to_pandas_dtype()) for f in SCHEMA}
    columns["seq"] = np.arange(batch_seq * BATCH_ROWS, (batch_seq + 1) * BATCH_ROWS, dtype=np.uint32)
    columns["target"] = (np.arange(BATCH_ROWS) % len(known)).astype(np.uint16)
    columns["peer"] = (columns["target"] + 1).astype(np.uint16)
    columns["planned_us"] = columns["seq"].astype(np.uint64) * 1000
    columns["outcome"] = np.ones(BATCH_ROWS, dtype=np.uint8)
    for name, scale in (
        ("lateness_us", 30),
        ("dur_us", 400),
        ("connect_us", 100),
        ("ttfb_us", 350),
        ("min_rtt_us", 60),
    ):
        columns[name] = rng.gamma(2.0, scale / 2, BATCH_ROWS).astype(np.uint32)
    return probe_results.encode_columns(head=head, columns=columns, rows=BATCH_ROWS)


def cpu_us(work: Callable[[], Any], *, rows: int, repeat: int = 7) -> float:
    """Median CPU time of this process, per row."""
    taken = []
    for _ in range(repeat):
        began_s = time.process_time()
        work()
        taken.append((time.process_time() - began_s) / rows * 1e6)
    return statistics.median(taken)


@contextmanager
def endpoint(folder: Path) -> Iterator[tuple[str, Path]]:
    """A started endpoint with the product's tables: its URL and its writer's password file."""
    password = folder / "password"
    password.write_text(PASSWORD)
    command = [
        sys.executable,
        "-m",
        "kpatrol.endpoint",
        "--path",
        str(folder / "clickhouse"),
        "--listen",
        "127.0.0.1:0",
    ]
    command += ["--writer-password-file", str(password), "--reader-password-file", str(password)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        port = re.search(r"127\.0\.0\.1:(\d+)", said)
        assert port is not None, said
        yield f"http://writer@127.0.0.1:{port[1]}/kpatrol", password
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def stages(data: list[bytes], database: ClickHouse) -> dict[str, float]:
    """CPU of this process per row and stage."""
    tables = TargetTables()
    batches = [probe_results.decode(d) for d in data]

    def checked() -> list[Any]:
        return [deliver(b, partition=0, offset=i, tables=tables) for i, b in enumerate(batches)]

    ready = checked()
    rows = len(data) * BATCH_ROWS
    table = pa.Table.from_batches([expand(ready)])
    tokens = iter(range(1_000_000))
    return {
        "decode": cpu_us(lambda: [probe_results.decode(d) for d in data], rows=rows),
        "check": cpu_us(checked, rows=rows),
        "expand": cpu_us(lambda: expand(ready), rows=rows),
        "insert": cpu_us(
            lambda: database.insert_arrow(table="probe", rows=table, token=f"bench-{next(tokens)}"), rows=rows
        ),
    }


def process_cpu_s(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def produce(kafka: KafkaConnection, data: list[bytes]) -> None:
    """The records, keyed by agent."""
    producer = AIOKafkaProducer(**kafka.producer_options())
    await producer.start()
    try:
        for value in data:
            head = probe_results.decode(value).head
            await producer.send(probe_results.TOPIC.name, key=head.agent.encode(), value=value)
    finally:
        await producer.stop()


@contextmanager
def service(environment: dict[str, str]) -> Iterator[int]:
    """A started sink; its process id."""
    process = subprocess.Popen([sys.executable, "-m", "streams", "sink"], env={**os.environ, **environment})
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def idle_cores(pid: int) -> float:
    """What the service uses while nothing comes."""
    time.sleep(8)
    before_s, began_s = process_cpu_s(pid), time.monotonic()
    time.sleep(4)
    return (process_cpu_s(pid) - before_s) / (time.monotonic() - began_s)


def stored(database: ClickHouse, rows: int) -> None:
    """Return when so many are in the table."""
    while database.query_rows("SELECT count() AS n FROM probe")[0]["n"] < rows:
        time.sleep(0.1)


async def whole(data: list[bytes], *, url: str, password: Path, folder: Path) -> tuple[float | None, float]:
    """(CPU of the sink's process per row, rows per second), Kafka to ClickHouse. No CPU where the service was held up
    so long that half of it was its idle work."""
    database = ClickHouse(url=url, password=PASSWORD)
    database.command("TRUNCATE TABLE probe")
    rows = len(data) * BATCH_ROWS
    async with broker(folder) as kafka:
        environment = {
            "KPATROL_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "KPATROL_CLICKHOUSE_URL": url,
            "KPATROL_CLICKHOUSE_PASSWORD_FILE": str(password),
            "KPATROL_LOG_LEVEL": "ERROR",
        }
        with service(environment) as pid:
            idle = await asyncio.to_thread(idle_cores, pid)
            before_s, began_s = process_cpu_s(pid), time.monotonic()
            await produce(kafka, data)
            await asyncio.to_thread(stored, database, rows)
            took_s = time.monotonic() - began_s
            used_s = process_cpu_s(pid) - before_s
    print(f"CPU of the sink's process: {used_s:.2f} s in {took_s:.1f} s; idle it would have used {idle * took_s:.2f} s")
    if idle * took_s > used_s / 2:
        return None, rows / took_s
    return (used_s - idle * took_s) / rows * 1e6, rows / took_s


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.sink", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--targets", type=int, default=20, help="targets of each agent (default %(default)s)")
    parser.add_argument("--agents", type=int, default=10, help="agents (default %(default)s)")
    parser.add_argument("--stages", action="store_true", help="without Kafka")
    options = parser.parse_args()
    known = targets(options.targets)
    data = [
        record(agent=i % options.agents, batch_seq=i // options.agents, known=known)
        for i in range(FLUSH if options.stages else 20 * FLUSH)
    ]
    print(f"{options.agents} agents, {options.targets} targets, {len(data[0])} bytes a batch of {BATCH_ROWS} rows")
    with tempfile.TemporaryDirectory(prefix="kpatrol-bench-") as folder, endpoint(Path(folder)) as (url, password):
        database = ClickHouse(url=url, password=PASSWORD)
        Migration(clickhouse=database).apply()
        parts = stages(data[:FLUSH], database)
        for name, value in parts.items():
            print(f"  {name:8} {value:6.3f} µs/row")
        print(f"  {'together':8} {sum(parts.values()):6.3f} µs/row")
        if options.stages:
            return
        used_us, rate = asyncio.run(whole(data, url=url, password=password, folder=Path(folder)))
    if used_us is None:
        print(f"not measured: the machine was too busy ({rate:,.0f} rows/s)")
        return
    print(f"Kafka → ClickHouse, the sink's process: {used_us:.3f} µs CPU a row, {rate:,.0f} rows/s with the engine")
    print(f"{'met   ' if used_us <= GOAL_US else 'MISSED'}  at most {GOAL_US:.1f} µs: ratio {used_us / GOAL_US:.2f}")


if __name__ == "__main__":
    main()
