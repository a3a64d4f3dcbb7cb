"""round-progress-v1: all that the judge folds, in order per task.

Written by the controller (RoundScheduled, RoundCancelled, AgentGone), the sink (BatchesStored), the agents
(AgentFinished) and the judge's timer (RoundDeadline); read by the judge alone. Key: task uid, so everything about
one task's rounds is in one partition. The judge's tables depend on the partition count: it never grows.
"""

import msgspec

from topics.spec import DAY_S, Topic, json_codec
from topics.task_rounds import EXAMPLE as ROUND_EXAMPLE
from topics.task_rounds import Record, RoundCancelled, RoundScheduled


class StoredBatch(msgspec.Struct, frozen=True, array_like=True):
    """One batch that is now in ClickHouse, by its identity, and its number of rows."""

    round_id: int
    agent: str
    incarnation: int
    batch_seq: int
    rows: int


class BatchesStored(Record, frozen=True, kw_only=True, tag="BatchesStored"):
    """One flush of the sink, as far as it concerns one task. Idempotent: a batch may be named again.

    `partition` and `next_offset` say how far the sink has come in probe-results-v1. `duplicate_batches` counts
    deliveries that were recognised as already stored and skipped.
    """

    task_uid: str
    partition: int
    next_offset: int
    at_us: int
    batches: tuple[StoredBatch, ...]
    duplicate_batches: int = 0


class AgentFinished(Record, frozen=True, kw_only=True, tag="AgentFinished"):
    """An agent's account of its share of a round: planned = sent + unsent + declared_missing.

    `rows` are the rows in its `batches` batches (numbered from 0). `declared_missing` are requests whose record is
    lost, with the cause ("spool evicted", "agent died", "cancelled"). `lateness` is sent minus planned time.
    Published by the next incarnation where the one that ran the round died (`incarnation` is the one that ran).
    """

    task_uid: str
    round_id: int
    agent: str
    node: str
    incarnation: int
    at_us: int
    planned: int
    sent: int
    unsent: int
    batches: int
    rows: int
    declared_missing: int = 0
    missing_cause: str = ""
    asked_rate: float = 0.0
    achieved_rate: float = 0.0
    lateness_p50_us: int = 0
    lateness_p99_us: int = 0
    lateness_max_us: int = 0
    loop_lag_max_us: int = 0
    cpu_us: int = 0
    throttled_us: int = 0
    socket_drops: int = 0
    resident_bytes: int = 0
    clock_offset_us: int | None = None
    note: str = ""


class AgentGone(Record, frozen=True, kw_only=True, tag="AgentGone"):
    """The controller's word that an agent will not finish this round: no report for three intervals."""

    task_uid: str
    round_id: int
    agent: str
    node: str
    at_us: int
    cause: str


class RoundDeadline(Record, frozen=True, kw_only=True, tag="RoundDeadline"):
    """A timer's word that a round's deadline has passed; state changes only by events.

    `end_offsets` are the ends of probe-results-v1 by partition when the timer fired: once the sink's position is
    past all of them nothing produced before the deadline can still come.
    """

    task_uid: str
    round_id: int
    at_us: int
    end_offsets: dict[int, int] = {}


RoundProgress = RoundScheduled | RoundCancelled | BatchesStored | AgentFinished | AgentGone | RoundDeadline

EXAMPLE = BatchesStored(
    task_uid=ROUND_EXAMPLE.task_uid,
    partition=0,
    next_offset=42,
    at_us=1_790_000_011_000_000,
    batches=(StoredBatch(7, "node-1", 1, 0, 500),),
)

_encode, _decode = json_codec(RoundProgress)

TOPIC: Topic[RoundProgress] = Topic(
    name="round-progress-v1",
    writers=("controller", "sink", "agent", "judge"),
    readers=("judge",),
    key=lambda r: r.task_uid.encode(),
    encode=_encode,
    decode=_decode,
    example=EXAMPLE,
    partitions=4,
    retention_s=3 * DAY_S,
)
