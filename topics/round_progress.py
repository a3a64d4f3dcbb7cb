"""round-progress-v1: all that the judge folds, in order per task.

Written by the controller (RoundScheduled, RoundCancelled, AgentGone), the sink (BatchesStored), the agents
(AgentFinished) and the judge's timer (RoundDeadline); read by the judge, AgentFinished by the traces service too. Key:
task uid, so everything about one task's rounds is in one partition. The judge's tables depend on the partition count:
it never grows.
"""

import msgspec

from topics.spec import DAY_S, Topic, json_codec
from topics.task_rounds import EXAMPLE as ROUND_EXAMPLE
from topics.task_rounds import Record, RoundCancelled, RoundScheduled

# How a cause begins (AgentGone, declared_missing) where the agent itself is missing, and the one where it said so.
AGENT_DIED = "agent died"
AGENT_STOPPED = f"{AGENT_DIED}: it was stopped"
# The cause of requests that an agent left unsent because it was told to stop.
UNSENT_STOPPED = "agent_stopped"
# The cause of requests of a round that an agent heard of, or of its membership, after the round's deadline.
UNSENT_HEARD_LATE = "heard_after_deadline"


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


class Condition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the agent had to work with while its share ran, beside the figures of AgentFinished itself.

    Differences over the share: `cpu_wait_us` (ready to run, but another ran), `cpu_pressure_us` (some task of its
    cgroup waited), `periods` and `throttled_periods` of its CPU quota. Greatest values seen: `local_ports_used` of
    `local_ports` (sockets of its network namespace), `conntrack_entries` of `conntrack_max`, `resident_max_bytes`,
    `cpu_peak_us` (CPU time in one second). A limit of 0 is none, or one the kernel does not show. `clock_error_us` is
    the kernel's bound on the clock's error, None while nothing disciplines the clock.
    """

    cpu_wait_us: int = 0
    cpu_pressure_us: int = 0
    cpu_limit_cores: float = 0.0
    periods: int = 0
    throttled_periods: int = 0
    local_ports_used: int = 0
    local_ports: int = 0
    conntrack_entries: int = 0
    conntrack_max: int = 0
    resident_max_bytes: int = 0
    cpu_peak_us: int = 0
    memory_limit_bytes: int = 0
    clock_error_us: int | None = None


class NodeCounters(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the node's own kernel counted while the share ran; only an agent in the node's network namespace knows it.

    Packets, except `tcp_retransmits` (segments) and `softnet_squeezes` (times the softirq's budget ran out).
    `interface_*` are the devices' own counters, `qdisc_drops` those of their queueing disciplines.
    """

    tcp_segments_out: int = 0
    tcp_retransmits: int = 0
    tcp_drops: int = 0
    udp_buffer_errors: int = 0
    softnet_drops: int = 0
    softnet_squeezes: int = 0
    conntrack_insert_failed: int = 0
    conntrack_drops: int = 0
    interface_rx_drops: int = 0
    interface_tx_drops: int = 0
    interface_errors: int = 0
    qdisc_drops: int = 0


class Hop(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What answered packets of one hop limit (1 is the first router): `answered` of those `sent`; `address` is empty
    where nothing did, which may be the router's own rule and is no loss."""

    limit: int
    address: str = ""
    sent: int = 0
    answered: int = 0


class HopTrace(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The way of one UDP flow to another agent: its hops up to the target, or to the last that answered.

    `asked` is the greatest hop limit that was tried; `error` is what the last hop said where it let nothing through.
    """

    agent: str
    node: str
    address: str
    hops: tuple[Hop, ...] = ()
    reached: bool = False
    asked: int = 0
    error: str = ""


class AgentFinished(Record, frozen=True, kw_only=True, tag="AgentFinished"):
    """An agent's account of its share of a round: planned = sent + unsent + declared_missing.

    `planned` is what it owed and `further` attempts at what had failed (DNS), one row each.

    `rows` are the rows in its `batches` batches (numbered from 0). `unsent_causes` says why requests were not sent, and
    adds up to `unsent`. `declared_missing` are requests whose record is
    lost, with the cause ("spool evicted", "agent died", "cancelled"). `lateness` is sent minus planned time.
    `traces` are the ways to the agents it asked, where the round wanted them (Mesh.hops).
    Published by the next incarnation where the one that ran the round died (`incarnation` is the one that ran).
    `trace_id` (32 hex digits) is that of the share's requests, empty where the agent died; `began_us` when it began.
    `replaced`: the round's membership names another pod or other addresses than this agent's, so its peers asked where
    it was no more.
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
    further: int = 0
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
    unsent_causes: dict[str, int] = {}
    condition: Condition = Condition()
    node_counters: NodeCounters | None = None
    traces: tuple[HopTrace, ...] = ()
    task: str = ""
    trace_id: str = ""
    began_us: int = 0
    replaced: bool = False


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
    readers=("judge", "traces"),
    key=lambda r: r.task_uid.encode(),
    encode=_encode,
    decode=_decode,
    example=EXAMPLE,
    partitions=4,
    retention_s=3 * DAY_S,
)
