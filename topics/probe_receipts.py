"""probe-receipts-v1: what the serving side received and what it lost on the way back, per round, source and protocol.

Written by agents about the requests that reached them, read by the sink. Key: the serving agent. One row stands for
a run of requests of one source: `bitmap` marks which of `first_seq` … arrived (bit i = first_seq + i), so the
volume grows with the number of sources, not of requests. MessagePack: a batch is often a few rows, and Arrow's own
description of twenty columns would outweigh them.

Rows are additive. TCP's part (`accepted` … `retrans`) is the growth of the kernel's counters of the connections that
carried these requests since the row before; a row without requests tells only of such growth. `target` is the place of
the requests' target in their source's list (probe-results-v1), UNKNOWN_TARGET where a request does not say it;
`last_seq` is a request of the same source and target, by which a row without a bitmap is joined, too.
- `accepted`: connections that began; `sent`: SYN-ACKs and segments with data, those sent again included;
- `lost`: of these, what never arrived: sent again and not reported as a duplicate by the peer. A report that comes
  later makes a row's `lost` negative: sum them;
- `synack_lost`: the SYN-ACKs in `lost`. For each of them the client sent its SYN again and took it for lost;
- `retrans`: all segments sent again, needless ones included, as the kernel's TcpRetransSegs counts them.
"""

from typing import Any

import msgspec
import pyarrow as pa

from topics.ids import agent_key
from topics.spec import DAY_S, InvalidMessage, Topic

UNKNOWN_TARGET = 0xFFFF

_FIELDS: "list[pa.Field[Any]]" = [
    pa.field("round_id", pa.uint64(), nullable=False),
    pa.field("src_agent", pa.string(), nullable=False),
    pa.field("proto", pa.uint8(), nullable=False),
    pa.field("target", pa.uint16(), nullable=False),
    pa.field("first_seq", pa.uint32(), nullable=False),
    pa.field("last_seq", pa.uint32(), nullable=False),
    pa.field("received", pa.uint32(), nullable=False),
    pa.field("duplicates", pa.uint32(), nullable=False),
    pa.field("reordered", pa.uint32(), nullable=False),
    pa.field("accepted", pa.uint32(), nullable=False),
    pa.field("sent", pa.uint32(), nullable=False),
    pa.field("lost", pa.int32(), nullable=False),
    pa.field("synack_lost", pa.uint32(), nullable=False),
    pa.field("segs_in", pa.uint32(), nullable=False),
    pa.field("segs_out", pa.uint32(), nullable=False),
    pa.field("retrans", pa.uint32(), nullable=False),
    pa.field("first_us", pa.uint64(), nullable=False),
    pa.field("last_us", pa.uint64(), nullable=False),
    pa.field("bitmap", pa.binary(), nullable=False),
]
SCHEMA = pa.schema(_FIELDS)


class ReceiptHead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who received: the serving agent, its incarnation, and the number of this batch of its receipts."""

    agent: str
    incarnation: int
    batch_seq: int
    node: str
    zone: str = ""
    rack: str = ""


class Receipts(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of receipts in memory."""

    head: ReceiptHead
    rows: pa.RecordBatch


class _Wire(msgspec.Struct, frozen=True, array_like=True):
    """The head, then SCHEMA's columns: texts, numbers in SCHEMA's order, bitmaps."""

    head: ReceiptHead
    src_agent: list[str]
    numbers: list[list[int]]
    bitmap: list[bytes]


_NUMBERS = tuple(name for name in SCHEMA.names if name not in ("src_agent", "bitmap"))
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Wire)


def encode(batch: Receipts) -> bytes:
    """A batch of receipts on the wire."""
    told: Any = batch.rows.to_pydict()
    numbers = [told[name] for name in _NUMBERS]
    return _encoder.encode(_Wire(batch.head, told["src_agent"], numbers, told["bitmap"]))


def decode(data: bytes) -> Receipts:
    """A batch of receipts from the wire. Raises InvalidMessage."""
    try:
        wire = _decoder.decode(data)
        columns: dict[str, Any] = dict(zip(_NUMBERS, wire.numbers, strict=True))
        columns |= {"src_agent": wire.src_agent, "bitmap": wire.bitmap}
        arrays = [pa.array(columns[field.name], type=field.type) for field in SCHEMA]
        return Receipts(head=wire.head, rows=pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))
    except (msgspec.MsgspecError, pa.ArrowException, ValueError, OverflowError, TypeError) as error:
        raise InvalidMessage(f"receipts: {error}") from error


EXAMPLE = Receipts(
    head=ReceiptHead(agent="node-2", incarnation=1, batch_seq=0, node="node-2"),
    rows=pa.RecordBatch.from_pylist(
        [
            {
                "round_id": 7,
                "src_agent": "node-1",
                "proto": 4,
                "target": 0,
                "first_seq": 0,
                "last_seq": 1,
                "received": 2,
                "duplicates": 0,
                "reordered": 0,
                "accepted": 1,
                "sent": 3,
                "lost": 0,
                "synack_lost": 0,
                "segs_in": 4,
                "segs_out": 4,
                "retrans": 0,
                "first_us": 1_790_000_000_000_000,
                "last_us": 1_790_000_000_100_000,
                "bitmap": b"\x03",
            }
        ],
        schema=SCHEMA,
    ),
)

TOPIC: Topic[Receipts] = Topic(
    name="probe-receipts-v1",
    writers=("agent",),
    readers=("sink",),
    key=lambda b: agent_key(b.head.agent),
    encode=encode,
    decode=decode,
    example=EXAMPLE,
    partitions=8,
    may_grow=True,
    retention_s=DAY_S,
)
