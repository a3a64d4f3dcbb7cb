"""Batches for the tests of the sink: small, complete, each column with values of its own."""

from typing import Any

import numpy as np
import pyarrow as pa

from streams.expand import Delivered, TargetTables, deliver
from topics import probe_results
from topics.outcome import Layer, Proto
from topics.probe_results import SCHEMA, Batch, BatchHead, BatchTarget

START_US = 1_790_000_000_000_000


def targets(count: int = 3) -> tuple[BatchTarget, ...]:
    return tuple(
        BatchTarget(
            name=f"AgentPodV4IP_pod-{i}_10.0.0.{i}",
            dst=f"node-{i}",
            proto=Proto(1 + i % 6),
            layer=Layer(1 + i % 9),
            dst_node=f"node-{i}",
            dst_zone=f"zone-{i % 2}",
            dst_rack="",
            dst_ip=f"10.0.0.{i}" if i % 2 else f"fd00::{i}",
            src_ip="10.0.0.9",
            dst_port=80 + i,
            family=4 if i % 2 else 6,
            size=100 * i,
        )
        for i in range(count)
    )


def head(**changes: Any) -> BatchHead:
    values: dict[str, Any] = {
        "round_id": 7,
        "round_number": 1,
        "start_us": START_US,
        "task": "netreach/t",
        "task_uid": "uid",
        "agent": "a0",
        "incarnation": 1,
        "batch_seq": 0,
        "node": "node-0",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "targets": targets(),
        "zone": "z",
        "rack": "r",
        "pod": "p",
        "cluster": "c",
        "peers": ("", "node-1"),
        "errors": ("", "connection_refused"),
    }
    return BatchHead(**values | changes)


def columns(rows: int, *, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {f.name: rng.integers(0, 200, rows).astype(f.type.to_pandas_dtype()) for f in SCHEMA}
    made["seq"] = np.arange(rows, dtype=np.uint32)
    made["planned_us"] = np.arange(rows, dtype=np.uint64) * 1000
    for name, kinds in (("target", 3), ("peer", 2), ("error", 2)):
        made[name] = rng.integers(0, kinds, rows).astype(np.uint16)
    made["outcome"] = rng.integers(1, 14, rows).astype(np.uint8)
    return made


def batch(*, rows: int = 5, seed: int = 0, of: BatchHead | None = None, **changed_columns: Any) -> Batch:
    arrays = columns(rows, seed=seed) | changed_columns
    record_batch = pa.RecordBatch.from_arrays([pa.array(arrays[f.name], type=f.type) for f in SCHEMA], schema=SCHEMA)
    return Batch(head=of or head(), rows=record_batch)


def encoded(**arguments: Any) -> bytes:
    return probe_results.encode(batch(**arguments))


def delivered(*, partition: int = 0, offset: int = 0, rows: int = 5, seed: int = 0, **head_changes: Any) -> Delivered:
    one = batch(rows=rows, seed=seed, of=head(**head_changes))
    return deliver(one, partition=partition, offset=offset, tables=TargetTables())
