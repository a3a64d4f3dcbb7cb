"""probe-results-v1: one row for every request, in columnar batches of about 500.

Written by agents, read by the sink, and by the traces service where it runs. Key: the agent, so one agent's batches
stay in order in one partition and two deliveries of a batch meet in the same sink. Identity of a row: (round_id,
agent, incarnation, seq); of a batch: (round_id, agent, incarnation, batch_seq).

A batch is its head (what is the same for all rows, and the table of targets) and the rows' own columns. `seq` counts
the agent's requests of the round from 0; `target`, `peer` and `error` are indexes into the head's lists.
"""

from typing import Any

import msgspec
import pyarrow as pa

from topics import arrow
from topics.ids import agent_key
from topics.outcome import Layer, Proto
from topics.spec import DAY_S, InvalidMessage, Topic

BATCH_ROWS = 500

SCHEMA = pa.schema(
    [
        pa.field("seq", pa.uint32(), nullable=False),
        pa.field("target", pa.uint16(), nullable=False),
        # Planned send time, from the start of the round on the agent's monotonic clock.
        pa.field("planned_us", pa.uint64(), nullable=False),
        pa.field("lateness_us", pa.uint32(), nullable=False),
        pa.field("dur_us", pa.uint32(), nullable=False),
        pa.field("dns_us", pa.uint32(), nullable=False),
        pa.field("connect_us", pa.uint32(), nullable=False),
        pa.field("tls_us", pa.uint32(), nullable=False),
        pa.field("ttfb_us", pa.uint32(), nullable=False),
        pa.field("outcome", pa.uint8(), nullable=False),
        pa.field("error", pa.uint16(), nullable=False),
        pa.field("status", pa.uint16(), nullable=False),
        pa.field("peer", pa.uint16(), nullable=False),
        pa.field("src_port", pa.uint16(), nullable=False),
        pa.field("sent", pa.uint32(), nullable=False),
        pa.field("lost", pa.uint32(), nullable=False),
        pa.field("segs_out", pa.uint32(), nullable=False),
        pa.field("segs_in", pa.uint32(), nullable=False),
        pa.field("retrans", pa.uint32(), nullable=False),
        pa.field("min_rtt_us", pa.uint32(), nullable=False),
        pa.field("req_bytes", pa.uint32(), nullable=False),
        pa.field("resp_bytes", pa.uint32(), nullable=False),
        pa.field("attempt", pa.uint8(), nullable=False),
        # Datagrams of our own agents: the way there, both clocks compared at the fastest round trip.
        pa.field("there_us", pa.uint32(), nullable=False),
    ]
)
# array.array type codes of the columns, in the schema's order.
TYPECODES: dict[str, str] = {f.name: {8: "B", 16: "H", 32: "I", 64: "Q"}[f.type.bit_width] for f in SCHEMA}


class BatchTarget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A target as the rows refer to it; addresses as text, empty where unknown (a name that did not resolve)."""

    name: str
    dst: str
    proto: Proto
    layer: Layer
    dst_node: str = ""
    dst_zone: str = ""
    dst_rack: str = ""
    dst_ip: str = ""
    src_ip: str = ""
    dst_port: int = 0
    family: int = 4
    size: int = 0


class BatchHead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What all rows of a batch share. `peers[0]` and `errors[0]` are empty: index 0 means none.

    `trace_id` is 32 hex digits, one per (round, agent). `start_us` is the round's scheduled start.
    """

    round_id: int
    round_number: int
    start_us: int
    task: str
    task_uid: str
    agent: str
    incarnation: int
    batch_seq: int
    node: str
    trace_id: str
    targets: tuple[BatchTarget, ...]
    zone: str = ""
    rack: str = ""
    pod: str = ""
    cluster: str = "lab"
    version: str = ""
    peers: tuple[str, ...] = ("",)
    errors: tuple[str, ...] = ("",)


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch in memory: its head and an Arrow record batch of SCHEMA."""

    head: BatchHead
    rows: pa.RecordBatch


_head_decoder = msgspec.json.Decoder(BatchHead)


def encode_columns(*, head: BatchHead, columns: dict[str, Any], rows: int) -> bytes:
    """A batch on the wire straight from the agent's `array.array` columns (names of SCHEMA)."""
    return arrow.encode(schema=SCHEMA, head=msgspec.json.encode(head), columns=columns, rows=rows)


def encode(batch: Batch) -> bytes:
    """A batch on the wire."""
    columns = {name: batch.rows.column(name) for name in SCHEMA.names}
    return encode_columns(head=batch.head, columns=columns, rows=batch.rows.num_rows)


def decode(data: bytes) -> Batch:
    """A batch from the wire. Raises InvalidMessage, also when an index points outside the head's lists."""
    head_bytes, rows = arrow.decode(schema=SCHEMA, data=data)
    try:
        head = _head_decoder.decode(head_bytes)
    except msgspec.MsgspecError as error:
        raise InvalidMessage(f"head: {error}") from error
    for name, known in (("target", head.targets), ("peer", head.peers), ("error", head.errors)):
        top = int(rows.column(name).to_numpy().max(initial=0))
        if top >= len(known) and rows.num_rows:
            raise InvalidMessage(f"{name}: index {top} is outside the head's list of {len(known)}")
    return Batch(head=head, rows=rows)


def headers(head: BatchHead, rows: int) -> list[tuple[str, bytes]]:
    """Kafka headers: enough to route and to recognise a repeat without decoding."""
    values = {
        "round_id": head.round_id,
        "task_uid": head.task_uid,
        "agent": head.agent,
        "incarnation": head.incarnation,
        "batch_seq": head.batch_seq,
        "rows": rows,
    }
    return [(name, str(value).encode()) for name, value in values.items()]


EXAMPLE = Batch(
    head=BatchHead(
        round_id=7,
        round_number=1,
        start_us=1_790_000_000_000_000,
        task="netreach/reach-task",
        task_uid="4b2f",
        agent="node-1",
        incarnation=1,
        batch_seq=0,
        node="node-1",
        trace_id="0af7651916cd43dd8448eb211c80319c",
        targets=(
            BatchTarget(
                name="AgentPodV4IP_node-2_10.0.0.2",
                dst="node-2",
                dst_node="node-2",
                proto=Proto.http,
                layer=Layer.pod,
                dst_ip="10.0.0.2",
                src_ip="10.0.0.1",
                dst_port=80,
            ),
        ),
        peers=("", "node-2"),
    ),
    rows=pa.RecordBatch.from_arrays(
        [pa.array([1 if f.name == "outcome" else 0], type=f.type) for f in SCHEMA], schema=SCHEMA
    ),
)

TOPIC: Topic[Batch] = Topic(
    name="probe-results-v1",
    writers=("agent",),
    readers=("sink", "traces"),
    key=lambda b: agent_key(b.head.agent),
    encode=encode,
    decode=decode,
    example=EXAMPLE,
    partitions=8,
    may_grow=True,
    retention_s=DAY_S,
)
