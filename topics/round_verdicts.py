"""round-verdicts-v1: what the judge says of each round.

Written by the judge, read by the controller, the alarms, the sink and anyone. Key: task uid; one partition, because
the rate is low and the alarms need all of them. A verdict is never changed silently: a later one of the same
round has a higher `revision`; `final` says that nothing more can come.
"""

from typing import Any, Literal

import msgspec

from topics.round_progress import HopTrace, NodeCounters
from topics.spec import DAY_S, Topic, json_codec
from topics.task_rounds import Record

Verdict = Literal["succeed", "fail", "unknown"]
TrustGrade = Literal["good", "degraded"]
# Whose account of the packets a loss rests on: the client's alone, both ends' for some of the pairs, both ends'.
LossEnds = Literal["client", "some", "both"]


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """Packet loss (datagrams, or TCP segments) with its Wilson interval at 95 %."""

    sent: int
    lost: int
    rate: float
    low: float
    high: float


class Requests(msgspec.Struct, frozen=True, kw_only=True):
    """Requests by their end; `by_outcome` has every outcome that occurred."""

    sent: int
    ok: int
    failed: int
    by_outcome: dict[str, int] = {}


class Delay(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Delay of successful requests in microseconds; None where there was none. Failures never lower it."""

    mean_us: float | None = None
    p50_us: float | None = None
    p90_us: float | None = None
    p99_us: float | None = None
    max_us: int | None = None


class Trust(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether the instrument was fit to measure; `degraded` with reasons is never a network alarm.

    `unfit` are the nodes of the agents that were not fit: no finding rests on them, the others' stand. `notes` lower no
    grade: what the nodes' own kernels dropped meanwhile, so that it is not taken for the network's.
    """

    grade: TrustGrade = "good"
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unfit: tuple[str, ...] = ()
    lateness_p99_us: int = 0
    asked_rate: float = 0.0
    achieved_rate: float = 0.0


class Pair(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One source and target of a round, as the report's tables show it; losses by direction where both ends counted."""

    src: str
    dst: str
    target: str
    proto: str
    layer: str
    requests: Requests
    loss: Loss
    delay: Delay
    forward_loss: Loss | None = None
    reverse_loss: Loss | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A statement about one element of the network, with its evidence as a query.

    `element` is e.g. `node-3`, `rack r1`, `zone a`, `zone a>zone b`, `http/node_port`, `size full`; `direction` is
    `ingress`, `egress`, `pair`, `both` (not told which), `layer` or `size`. `sentence` is for a person. `scope` is what
    of the element's traffic is met, empty for all; `spared` what of it was measured and is not ("what it sends", "TCP",
    "layer host"); `since_us` the start of the first round of an unbroken row in which it was found, `seen_rounds` how
    many those are; `rounds` how many rounds, this one included, the counts are pooled over.
    """

    element: str
    direction: str
    kind: str
    sentence: str
    loss: Loss
    confidence: float
    evidence_sql: str = ""
    since_us: int = 0
    scope: str = ""
    rounds: int = 1
    spared: tuple[str, ...] = ()
    seen_rounds: int = 1


class CanarySeen(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a round's canary: the `share` that one agent ignored of the other's, and whether it was found."""

    src_node: str
    dst_node: str
    share: float
    reported: bool


class AgentAccount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Completeness of one agent's share: planned = stored + unsent + declared_missing + unexplained.

    Below `state`: what the agent said of itself, and what its node's kernel counted meanwhile. `finished_us` is when it
    did, 0 where it never did; `cpu_peak_us` its CPU time in its busiest second. `incarnations` took part one after the
    other: more than one where its pod was replaced in the round; `replaced` where it had been before and the round's
    membership did not know of it yet, or where the agent began again only after the round had.
    """

    agent: str
    node: str
    planned: int
    stored: int
    unsent: int
    declared_missing: int
    unexplained: int
    cause: str = ""
    state: str = "finished"
    unsent_causes: dict[str, int] = {}
    lateness_p99_us: int = 0
    loop_lag_max_us: int = 0
    cpu_us: int = 0
    cpu_peak_us: int = 0
    throttled_us: int = 0
    resident_bytes: int = 0
    finished_us: int = 0
    clock_offset_us: int | None = None
    node_counters: NodeCounters | None = None
    traces: tuple[HopTrace, ...] = ()
    incarnations: int = 1
    replaced: bool = False


class RoundVerdict(Record, frozen=True, kw_only=True, tag="RoundVerdict"):
    """The judgement of one round. Field names are those of `kpatrol report --json`.

    `loss` counts all packets known of, `loss_ends` says from whose accounts. `forward_loss` and `reverse_loss` are of
    the pairs of which both ends have counted, None where there is none; packets of connections that never came about
    were lost nobody knows which way: they are in `loss` alone. `spec` and `created_us` are the task's, as of the round.
    `unlocated` tells of losses that no finding explains. A finding of kind `canary` is a loss that we made ourselves.
    """

    round_id: int
    round: int
    task: str
    task_uid: str
    kind: str
    revision: int
    final: bool
    verdict: Verdict
    why: str
    start_us: int
    at_us: int
    planned: int
    stored: int
    unsent: int
    declared_missing: int
    unexplained: int
    duplicates: int
    success_rate: float | None
    requests: Requests
    loss: Loss
    delay: Delay
    sent_delay: Delay
    verdict_delay_s: float | None
    trust: Trust
    findings: tuple[Finding, ...] = ()
    accounts: tuple[AgentAccount, ...] = ()
    worst: tuple[Pair, ...] = ()
    succeeded_nodes: tuple[str, ...] = ()
    failed_nodes: tuple[str, ...] = ()
    not_reported_nodes: tuple[str, ...] = ()
    missing_causes: tuple[str, ...] = ()
    loss_ends: LossEnds = "client"
    forward_loss: Loss | None = None
    reverse_loss: Loss | None = None
    deadline_us: int = 0
    created_us: int = 0
    spec: dict[str, Any] = {}
    unlocated: str = ""
    canary: CanarySeen | None = None


EXAMPLE = RoundVerdict(
    round_id=7,
    round=1,
    task="netreach/reach-task",
    task_uid="4b2f",
    kind="NetReach",
    revision=1,
    final=True,
    verdict="succeed",
    why="600 of 600 requests succeeded (asked: 100 %), mean 312 µs (allowed: 1500 ms)",
    start_us=1_790_000_000_000_000,
    at_us=1_790_000_010_400_000,
    planned=600,
    stored=600,
    unsent=0,
    declared_missing=0,
    unexplained=0,
    duplicates=0,
    success_rate=1.0,
    requests=Requests(sent=600, ok=600, failed=0, by_outcome={"ok": 600}),
    loss=Loss(sent=1200, lost=0, rate=0.0, low=0.0, high=0.0032),
    delay=Delay(mean_us=312.0, p50_us=290.0, p90_us=400.0, p99_us=900.0, max_us=1200),
    sent_delay=Delay(mean_us=300.0, p50_us=280.0, p90_us=390.0, p99_us=880.0, max_us=1190),
    verdict_delay_s=0.4,
    trust=Trust(),
)

_encode, _decode = json_codec(RoundVerdict)

TOPIC: Topic[RoundVerdict] = Topic(
    name="round-verdicts-v1",
    writers=("judge",),
    readers=("controller", "alarms", "sink", "traces"),
    key=lambda r: r.task_uid.encode(),
    encode=_encode,
    decode=_decode,
    example=EXAMPLE,
    partitions=1,
    retention_s=30 * DAY_S,
)
