"""From batches to rows of the `probe` table, without touching a row in Python.

All batches of a flush become one Arrow table: the rows' own columns are joined as they are; what a target or a batch
has once is a short array, spread over the rows by index; strings become dictionary columns, which ClickHouse takes
straight into LowCardinality. Costs grow with targets and columns, hardly with rows.
"""

import binascii
import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from topics.outcome import Outcome
from topics.probe_results import Batch, BatchHead, BatchTarget
from topics.spec import InvalidMessage

Indexes = np.ndarray[Any, np.dtype[np.int32]]
UNKNOWN_IP = bytes(16)
CACHED_TABLES = 4096
_U64 = 1 << 64
_U32 = 1 << 32
_U16 = 1 << 16
_IP = pa.binary(16)
_TS_US = pa.timestamp("us", tz="UTC")
_TS_MS = pa.timestamp("ms", tz="UTC")
_TARGET_TEXT: dict[str, Callable[[BatchTarget], str]] = {
    "target": lambda t: t.name,
    "dst": lambda t: t.dst,
    "dst_node": lambda t: t.dst_node,
    "dst_zone": lambda t: t.dst_zone,
    "dst_rack": lambda t: t.dst_rack,
}
_TARGET_IP: dict[str, Callable[[BatchTarget], str]] = {"src_ip": lambda t: t.src_ip, "dst_ip": lambda t: t.dst_ip}
_TARGET_INT: dict[str, tuple[Callable[[BatchTarget], int], Any]] = {
    "proto": (lambda t: t.proto, np.int8),
    "layer": (lambda t: t.layer, np.int8),
    "family": (lambda t: t.family, np.int8),
    "dst_port": (lambda t: t.dst_port, np.uint16),
    "size": (lambda t: t.size, np.uint16),
}
_HEAD_TEXT: dict[str, Callable[[BatchHead], str]] = {
    "cluster": lambda h: h.cluster,
    "task": lambda h: h.task,
    "task_uid": lambda h: h.task_uid,
    "src_node": lambda h: h.node,
    "src_zone": lambda h: h.zone,
    "src_rack": lambda h: h.rack,
    "src_pod": lambda h: h.pod,
    "agent": lambda h: h.agent,
}
_HEAD_INT: dict[str, tuple[Callable[[BatchHead], int], Any]] = {
    "round_id": (lambda h: h.round_id, np.uint64),
    "round_number": (lambda h: h.round_number, np.uint32),
    "incarnation": (lambda h: h.incarnation, np.uint64),
    "batch_seq": (lambda h: h.batch_seq, np.uint32),
}
_ROW = (
    *("seq", "src_port", "status", "lateness_us", "dur_us", "dns_us", "connect_us", "tls_us", "ttfb_us"),
    *("sent", "lost", "segs_out", "segs_in", "retrans", "min_rtt_us", "req_bytes", "resp_bytes", "attempt"),
    "there_us",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetTable:
    """The targets of a batch as short columns, in the order of the head's list."""

    size: int
    texts: dict[str, list[str]]
    ints: dict[str, np.ndarray[Any, Any]]
    ips: dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A checked batch and where in Kafka it stood."""

    head: BatchHead
    rows: pa.RecordBatch
    targets: TargetTable
    partition: int
    offset: int


@lru_cache(maxsize=65_536)
def ip_bytes(text: str) -> bytes:
    """16 bytes of an address, IPv4 mapped into IPv6; `::` for the unknown. Raises ValueError."""
    if not text:
        return UNKNOWN_IP
    address = ipaddress.ip_address(text)
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed


class TargetTables:
    """The tables of the rounds now running: an agent's batches of one round mostly have the same targets."""

    def __init__(self, *, capacity: int = CACHED_TABLES) -> None:
        self._capacity = capacity
        self._known: OrderedDict[tuple[int, str, int], tuple[tuple[BatchTarget, ...], TargetTable]] = OrderedDict()

    def of(self, head: BatchHead) -> TargetTable:
        """The head's targets as columns. Raises InvalidMessage."""
        key = (head.round_id, head.agent, head.incarnation)
        known = self._known.get(key)
        if known is not None and known[0] == head.targets:
            self._known.move_to_end(key)
            return known[1]
        table = target_table(head.targets)
        self._known[key] = (head.targets, table)
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return table


def target_table(targets: Sequence[BatchTarget]) -> TargetTable:
    """Columns of the targets. Raises InvalidMessage for an address or a number that the table cannot hold."""
    try:
        return TargetTable(
            size=len(targets),
            texts={name: [get(t) for t in targets] for name, get in _TARGET_TEXT.items()},
            ints={name: np.array([get(t) for t in targets], dtype=kind) for name, (get, kind) in _TARGET_INT.items()},
            ips={name: np.array([ip_bytes(get(t)) for t in targets], dtype="V16") for name, get in _TARGET_IP.items()},
        )
    except (ValueError, OverflowError) as error:
        raise InvalidMessage(f"targets: {error}") from error


def deliver(batch: Batch, *, partition: int, offset: int, tables: TargetTables) -> Delivered:
    """Check a decoded batch, so that no single one can spoil a flush. Raises InvalidMessage."""
    head, rows = batch.head, batch.rows
    _check_head(head)
    if rows.num_rows:
        outcomes = rows.column("outcome").to_numpy()
        if outcomes.min() < Outcome.ok or outcomes.max() > Outcome.unsent:
            raise InvalidMessage(f"outcome: found {outcomes.min()} to {outcomes.max()}, allowed: 1 to {Outcome.unsent}")
    return Delivered(head=head, rows=rows, targets=tables.of(head), partition=partition, offset=offset)


def _check_head(head: BatchHead) -> None:
    for name, value, limit in (
        ("round_id", head.round_id, _U64),
        ("round_number", head.round_number, _U32),
        ("start_us", head.start_us, 1 << 62),
        ("incarnation", head.incarnation, _U64),
        ("batch_seq", head.batch_seq, _U32),
    ):
        if not 0 <= value < limit:
            raise InvalidMessage(f"{name}: found {value}, allowed: 0 to {limit - 1}")
    try:
        trace_id = binascii.unhexlify(head.trace_id)
    except ValueError as error:
        raise InvalidMessage(f"trace_id: {error}") from error
    if len(trace_id) != 16:
        raise InvalidMessage(f"trace_id: found {len(head.trace_id)} characters, expected 32 hex digits")


def expand(deliveries: Sequence[Delivered]) -> pa.RecordBatch:
    """All rows of the deliveries as one record batch of the `probe` columns (those without a default)."""
    rows = pa.Table.from_batches([d.rows for d in deliveries]).combine_chunks()
    counts = [d.rows.num_rows for d in deliveries]
    by_batch = np.repeat(np.arange(len(deliveries), dtype=np.int32), counts)
    columns: dict[str, Any] = {name: rows.column(name).chunk(0) for name in _ROW}
    columns |= _computed(rows, [d.head.start_us for d in deliveries], by_batch)
    columns |= _target_columns(rows, deliveries, by_batch)
    columns |= _batch_columns(deliveries, by_batch)
    columns["peer"] = _indexed(rows, "peer", [d.head.peers for d in deliveries], by_batch)
    columns["error_type"] = _indexed(rows, "error", [d.head.errors for d in deliveries], by_batch)
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _computed(rows: pa.Table, starts_us: list[int], by_batch: Indexes) -> dict[str, Any]:
    starts = np.array(starts_us, dtype=np.int64)
    ts = starts[by_batch] + _numpy(rows, "planned_us").view(np.int64)
    return {
        "round_at": pa.array((starts // 1000)[by_batch]).view(_TS_MS),
        "ts": pa.array(ts).view(_TS_US),
        "outcome": pa.array(_numpy(rows, "outcome").view(np.int8)),
    }


def _target_columns(rows: pa.Table, deliveries: Sequence[Delivered], by_batch: Indexes) -> dict[str, Any]:
    tables: dict[int, TargetTable] = {id(d.targets): d.targets for d in deliveries}
    bases = dict(zip(tables, np.cumsum([0, *(t.size for t in tables.values())]).tolist(), strict=False))
    base_of_batch = np.array([bases[id(d.targets)] for d in deliveries], dtype=np.int32)
    key = base_of_batch[by_batch] + _numpy(rows, "target")
    parts = list(tables.values())
    columns: dict[str, Any] = {}
    for name in _TARGET_TEXT:
        columns[name] = _spread([text for t in parts for text in t.texts[name]], key)
    for name in _TARGET_INT:
        columns[name] = pa.array(np.concatenate([t.ints[name] for t in parts])[key])
    for name in _TARGET_IP:
        columns[name] = _binary(np.concatenate([t.ips[name] for t in parts])[key])
    return columns


def _batch_columns(deliveries: Sequence[Delivered], by_batch: Indexes) -> dict[str, Any]:
    heads = [d.head for d in deliveries]
    columns: dict[str, Any] = {}
    for name, text in _HEAD_TEXT.items():
        columns[name] = _spread([text(h) for h in heads], by_batch)
    for name, (number, kind) in _HEAD_INT.items():
        columns[name] = pa.array(np.array([number(h) for h in heads], dtype=kind)[by_batch])
    traces = np.array([binascii.unhexlify(h.trace_id) for h in heads], dtype="V16")
    columns["trace_id"] = _binary(traces[by_batch])
    columns["kpart"] = pa.array(np.array([d.partition for d in deliveries], dtype=np.uint16)[by_batch])
    columns["koff"] = pa.array(np.array([d.offset for d in deliveries], dtype=np.uint64)[by_batch])
    return columns


def _indexed(rows: pa.Table, name: str, lists: Sequence[tuple[str, ...]], by_batch: Indexes) -> Any:
    """A column of indexes into each batch's own list, as text."""
    bases: dict[tuple[str, ...], int] = {}
    texts: list[str] = []
    for entries in lists:
        if entries not in bases:
            bases[entries] = len(texts)
            texts.extend(entries)
    base_of_batch = np.array([bases[entries] for entries in lists], dtype=np.int32)
    return _spread(texts, base_of_batch[by_batch] + _numpy(rows, name))


def _spread(texts: list[str], key: Any) -> Any:
    """`texts[key]` as a dictionary column without repeats, its indexes as narrow as they can be."""
    unique: dict[str, int] = {}
    indexes = [unique.setdefault(text, len(unique)) for text in texts]
    width = np.int8 if len(unique) < 128 else np.int16 if len(unique) < 32_768 else np.int32
    spread = np.array(indexes, dtype=width)[key]
    return pa.DictionaryArray.from_arrays(pa.array(spread), pa.array(list(unique), type=pa.string()))


def _numpy(rows: pa.Table, name: str) -> np.ndarray[Any, Any]:
    return rows.column(name).chunk(0).to_numpy()


def _binary(values: Any) -> Any:
    return pa.Array.from_buffers(_IP, len(values), [None, pa.py_buffer(values)])
