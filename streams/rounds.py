"""What the judge knows of a round, as a pure fold over round-progress-v1.

Events come in any order and may be repeated: every field is a set, a greatest or a first, so the same events give the
same state. An agent's batches are kept as runs of batch numbers, its account of itself in short form.

A `RoundDeadline` told before the deadline is a nudge: it changes nothing and makes the judge look again.
"""

from collections.abc import Iterable, Mapping

import msgspec

from topics.round_progress import (
    AgentFinished,
    AgentGone,
    BatchesStored,
    HopTrace,
    NodeCounters,
    RoundDeadline,
    RoundProgress,
    StoredBatch,
)
from topics.task_rounds import RoundCancelled, RoundScheduled

Runs = tuple[tuple[int, int], ...]
RoundKey = tuple[str, int]


class Finished(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """AgentFinished, as far as it is judged."""

    at_us: int
    unsent: int
    batches: int
    declared_missing: int
    cause: str
    asked_rate: float
    achieved_rate: float
    lateness_p99_us: int
    loop_lag_max_us: int
    throttled_us: int
    socket_drops: int
    unsent_causes: dict[str, int] = {}
    cpu_us: int = 0
    cpu_wait_us: int = 0
    resident_bytes: int = 0
    conntrack_share: float = 0.0
    clock_offset_us: int | None = None
    node_counters: NodeCounters | None = None
    cpu_peak_us: int = 0
    further: int = 0
    replaced: bool = False
    traces: tuple[HopTrace, ...] = ()


class Run(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One incarnation's part: which batches are stored (closed runs of their numbers), how many rows, its account."""

    incarnation: int
    stored: Runs = ()
    rows: int = 0
    finished: Finished | None = None

    @property
    def batches(self) -> int:
        """How many batches are stored."""
        return sum(last - first + 1 for first, last in self.stored)


class Share(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One agent's share of the round, by incarnation; `gone` is (time, cause) by the controller's word."""

    agent: str
    node: str = ""
    runs: tuple[Run, ...] = ()
    gone: tuple[int, str] | None = None

    @property
    def rows(self) -> int:
        """Rows stored."""
        return sum(run.rows for run in self.runs)

    @property
    def finished(self) -> bool:
        """Every incarnation that left anything has told its account."""
        return bool(self.runs) and all(run.finished is not None for run in self.runs)

    @property
    def last_finished(self) -> bool:
        """The last incarnation has told its account, whatever became of those before."""
        return bool(self.runs) and self.runs[-1].finished is not None

    @property
    def reported(self) -> bool:
        """At least one incarnation has told its account."""
        return any(run.finished is not None for run in self.runs)


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """The last verdict told: `digest` is of the accounts it was made from, so a change shows."""

    revision: int
    final: bool
    at_us: int
    digest: str


class Announced(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict about to be told: written down first, so its revision never stands for another one after a crash."""

    revision: int
    final: bool
    at_us: int
    digest: str


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A round without its agents. `partition` is the one of round-progress-v1 that its events come from.

    `closed` is the marker left of a round whose agents' state is dropped: later events change nothing.
    `told_us` is the latest time that any event named.
    """

    task_uid: str
    round_id: int
    partition: int = 0
    round: RoundScheduled | None = None
    cancelled: tuple[int, str] | None = None
    deadline_us: int = 0
    end_offsets: dict[int, int] = {}
    positions: dict[int, int] = {}
    told_us: int = 0
    announced: Announced | None = None
    published: Published | None = None
    closed: bool = False


class RoundState(msgspec.Struct, frozen=True, kw_only=True):
    """All of a round."""

    head: Head
    shares: Mapping[str, Share] = {}

    @property
    def past_deadline(self) -> bool:
        """The timer has told the deadline."""
        return self.head.round is not None and self.head.deadline_us >= self.head.round.deadline_us

    @property
    def stored(self) -> int:
        """Rows that the sink has told of."""
        return sum(share.rows for share in self.shares.values())

    @property
    def last_result_us(self) -> int:
        """When the last agent finished, 0 while none has."""
        times = [run.finished.at_us for s in self.shares.values() for run in s.runs if run.finished]
        return max(times, default=0)


def begin(*, task_uid: str, round_id: int, partition: int = 0) -> RoundState:
    """A round of which nothing is known yet."""
    return RoundState(head=Head(task_uid=task_uid, round_id=round_id, partition=partition))


def rounds_of(event: RoundProgress) -> tuple[RoundKey, ...]:
    """The rounds that an event names. A RoundCancelled of round 0 names none: it is about all open rounds."""
    if isinstance(event, BatchesStored):
        return tuple((event.task_uid, round_id) for round_id in sorted({b.round_id for b in event.batches}))
    if isinstance(event, RoundCancelled) and event.round_id == 0:
        return ()
    return ((event.task_uid, event.round_id),)


def fold(state: RoundState, event: RoundProgress) -> RoundState:
    """The state after one more event; the same object where it changes nothing. Pure."""
    if state.head.closed:
        return state
    head, shares = state.head, state.shares
    match event:
        case RoundScheduled():
            # Where two records of one round exist, the first wins: the agents hold to the same rule.
            return _with(state, _seen(head, event.start_us, round=head.round or event))
        case RoundCancelled():
            cancelled = min(x for x in (head.cancelled, (event.at_us, event.reason)) if x is not None)
            return _with(state, _seen(head, event.at_us, cancelled=cancelled))
        case RoundDeadline():
            return _with(state, _deadline(head, event))
        case BatchesStored():
            return _stored(state, event)
        case AgentFinished() | AgentGone():
            share = shares.get(event.agent) or Share(agent=event.agent)
            share = _finished(share, event) if isinstance(event, AgentFinished) else _gone(share, event)
            return _with(state, _seen(head, event.at_us), share)


def _with(state: RoundState, head: Head, *shares: Share) -> RoundState:
    changed = {s.agent: s for s in shares if state.shares.get(s.agent) != s}
    if head == state.head and not changed:
        return state
    known = {**state.shares, **changed} if changed else state.shares
    return RoundState(head=head, shares=known)


def _seen(head: Head, at_us: int, **changes: object) -> Head:
    return msgspec.structs.replace(head, told_us=max(head.told_us, at_us), **changes)


def _deadline(head: Head, event: RoundDeadline) -> Head:
    ends = _greatest(head.end_offsets, event.end_offsets)
    return _seen(head, event.at_us, deadline_us=max(head.deadline_us, event.at_us), end_offsets=ends)


def _stored(state: RoundState, event: BatchesStored) -> RoundState:
    by_agent: dict[str, list[StoredBatch]] = {}
    for batch in event.batches:
        if batch.round_id == state.head.round_id:
            by_agent.setdefault(batch.agent, []).append(batch)
    shares = [_with_batches(state.shares.get(a) or Share(agent=a), batches) for a, batches in by_agent.items()]
    positions = _greatest(state.head.positions, {event.partition: event.next_offset})
    return _with(state, _seen(state.head, event.at_us, positions=positions), *shares)


def _with_batches(share: Share, batches: Iterable[StoredBatch]) -> Share:
    runs = {run.incarnation: run for run in share.runs}
    for batch in batches:
        run = runs.get(batch.incarnation) or Run(incarnation=batch.incarnation)
        if not _contains(run.stored, batch.batch_seq):
            stored = _with_number(run.stored, batch.batch_seq)
            run = msgspec.structs.replace(run, stored=stored, rows=run.rows + batch.rows)
        runs[batch.incarnation] = run
    return msgspec.structs.replace(share, runs=_ordered(runs))


def _finished(share: Share, event: AgentFinished) -> Share:
    told = Finished(
        further=event.further,
        at_us=event.at_us,
        unsent=event.unsent,
        batches=event.batches,
        declared_missing=event.declared_missing,
        cause=event.missing_cause,
        asked_rate=event.asked_rate,
        achieved_rate=event.achieved_rate,
        lateness_p99_us=event.lateness_p99_us,
        loop_lag_max_us=event.loop_lag_max_us,
        throttled_us=event.throttled_us,
        socket_drops=event.socket_drops,
        unsent_causes=event.unsent_causes,
        cpu_us=event.cpu_us,
        cpu_wait_us=event.condition.cpu_wait_us,
        cpu_peak_us=event.condition.cpu_peak_us,
        resident_bytes=max(event.resident_bytes, event.condition.resident_max_bytes),
        conntrack_share=_share_of(event.condition.conntrack_entries, event.condition.conntrack_max),
        clock_offset_us=event.clock_offset_us,
        node_counters=event.node_counters,
        replaced=event.replaced,
        traces=event.traces,
    )
    runs = {run.incarnation: run for run in share.runs}
    run = runs.get(event.incarnation) or Run(incarnation=event.incarnation)
    runs[event.incarnation] = msgspec.structs.replace(run, finished=_better(run.finished, told))
    return msgspec.structs.replace(share, runs=_ordered(runs), node=share.node or event.node)


def _share_of(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _gone(share: Share, event: AgentGone) -> Share:
    gone = min(x for x in (share.gone, (event.at_us, event.cause)) if x is not None)
    return msgspec.structs.replace(share, gone=gone, node=share.node or event.node)


def _better(one: Finished | None, other: Finished) -> Finished:
    """Of two accounts of one incarnation (its own, and its successor's) the one that declares less missing."""
    if one is None:
        return other
    return min(one, other, key=lambda f: (f.declared_missing, f.at_us, msgspec.json.encode(f)))


def _ordered(runs: Mapping[int, Run]) -> tuple[Run, ...]:
    return tuple(runs[incarnation] for incarnation in sorted(runs))


def _contains(runs: Runs, number: int) -> bool:
    return any(first <= number <= last for first, last in runs)


def _with_number(runs: Runs, number: int) -> Runs:
    """The runs with one more number, joined where they touch."""
    before = [r for r in runs if r[1] < number - 1]
    after = [r for r in runs if r[0] > number + 1]
    touching = [r for r in runs if r[1] >= number - 1 and r[0] <= number + 1]
    first = min([number, *(r[0] for r in touching)])
    last = max([number, *(r[1] for r in touching)])
    return (*before, (first, last), *after)


def _greatest(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    return {key: max(one.get(key, -1), other.get(key, -1)) for key in sorted({*one, *other})}
