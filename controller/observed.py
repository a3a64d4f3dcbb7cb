"""What the controller knows, folded from the topics and from its own status files.

Everything here can be rebuilt: from ``task-rounds-v1`` (which rounds exist; of two records of one round the first
wins), ``mesh-members-v1``, ``agent-reports-v1``, ``round-verdicts-v1`` and the status written last. No clock, no Kafka.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controller.follow_ups import Wanted, wanted_of
from controller.members import GROUP, Epoch, Roster
from controller.verdicts import Judged, judged, newer
from topics.cluster_events import ClusterEvent
from topics.mesh_members import MembersChunk, Memberships
from topics.round_verdicts import RoundVerdict
from topics.task_rounds import RoundCancelled, RoundScheduled

ROUNDS_KEPT = 32
EPOCHS_KEPT = 128
WANTED_KEPT = 500
FOLLOW_UPS_KEPT = 200
EVENTS_KEPT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMemory:
    """What a task's status must carry over a restart, by task uid."""

    first_seen_us: int
    skipped: int = 0
    last_number: int = 0
    last_start_us: int = 0
    history: tuple[Mapping[str, Any], ...] = ()


@dataclass(slots=True)
class Observed:
    """The state of the world as far as it was heard of. Read-only for :func:`controller.plan.plan`."""

    roster: Roster = field(default_factory=Roster)
    epochs: dict[int, Epoch] = field(default_factory=dict)
    # Of the groups beside the default one: agents of a task's own, by the task's uid.
    own_epochs: dict[str, dict[int, Epoch]] = field(default_factory=dict)
    rounds: dict[str, dict[int, RoundScheduled]] = field(default_factory=dict)
    cancelled: set[int] = field(default_factory=set)
    judged: dict[str, dict[int, Judged]] = field(default_factory=dict)
    memory: dict[str, TaskMemory] = field(default_factory=dict)
    written: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    # Sent by this process: the topics' own echo clears or confirms it.
    publishing: dict[str, int] = field(default_factory=dict)
    members_sent: dict[str, int] = field(default_factory=dict)
    announced: set[int] = field(default_factory=set)
    cancel_sent: set[int] = field(default_factory=set)
    gone_sent: set[tuple[int, str]] = field(default_factory=set)
    # Uids of the follow-ups; losses found lately by the uid of their follow-up; what changed in the cluster meanwhile.
    followed: deque[str] = field(default_factory=deque)
    wanted: dict[str, Wanted] = field(default_factory=dict)
    events: deque[ClusterEvent] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    _parts: Memberships = field(default_factory=Memberships)

    @property
    def newest_epoch(self) -> Epoch | None:
        """The membership that rounds are made for now."""
        return self.newest(GROUP)

    def epochs_of(self, group: str) -> dict[int, Epoch]:
        """Number → membership of a group."""
        return self.epochs if group == GROUP else self.own_epochs.get(group, {})

    def newest(self, group: str) -> Epoch | None:
        """The membership that a group's rounds are made for now."""
        epochs = self.epochs_of(group)
        return epochs[max(epochs)] if epochs else None

    def saw_round(self, record: RoundScheduled | RoundCancelled) -> None:
        """Takes a record of task-rounds-v1. The first of a round wins."""
        if isinstance(record, RoundCancelled):
            self._saw_cancel(record)
            return
        known = self.rounds.setdefault(record.task_uid, {})
        known.setdefault(record.number, record)
        if record.follows and record.task_uid not in self.followed:
            self._followed(record.task_uid)
        if self.publishing.get(record.task_uid) == record.number:
            del self.publishing[record.task_uid]
        while len(known) > ROUNDS_KEPT:
            del known[min(known)]
        memory = self.memory.get(record.task_uid)
        if memory is not None and record.number > memory.last_number:
            self.memory[record.task_uid] = replace(
                memory, last_number=record.number, last_start_us=known[record.number].start_us
            )

    def _followed(self, uid: str) -> None:
        """Keeps the latest follow-ups only: older findings are not looked at again."""
        self.followed.append(uid)
        if len(self.followed) > FOLLOW_UPS_KEPT:
            oldest = self.followed.popleft()
            self.rounds.pop(oldest, None)
            self.judged.pop(oldest, None)

    def _saw_cancel(self, record: RoundCancelled) -> None:
        if record.round_id:
            self.cancelled.add(record.round_id)
            return
        # The global stop: every round that stands in the topic before it and still runs.
        running = (r for rounds in self.rounds.values() for r in rounds.values() if r.deadline_us > record.at_us)
        self.cancelled.update(round_.round_id for round_ in running)

    def saw_verdict(self, verdict: RoundVerdict) -> None:
        """Takes a verdict; of several of one round the highest revision holds."""
        known = self.judged.setdefault(verdict.task_uid, {})
        known[verdict.round] = newer(known.get(verdict.round), judged(verdict))
        while len(known) > ROUNDS_KEPT:
            del known[min(known)]
        for each in wanted_of(verdict) if verdict.final else ():
            self.wanted.setdefault(each.uid, each)
        while len(self.wanted) > WANTED_KEPT:
            del self.wanted[next(iter(self.wanted))]

    def saw_members(self, chunk: MembersChunk) -> None:
        """Takes a part of a membership; of two whole memberships of one number the first wins."""
        if not self._parts.add(chunk) or chunk.epoch in self.epochs_of(chunk.group):
            return
        members = self._parts.get(group=chunk.group, epoch=chunk.epoch, digest=chunk.digest)
        if members is None:
            return
        epochs = self.epochs if chunk.group == GROUP else self.own_epochs.setdefault(chunk.group, {})
        epochs[chunk.epoch] = Epoch(
            group=chunk.group, number=chunk.epoch, digest=chunk.digest, at_us=chunk.at_us, members=members
        )
        self.roster.seat(members, group=chunk.group)
        self._parts = Memberships()
        while len(epochs) > EPOCHS_KEPT:
            del epochs[min(epochs)]

    def began(self, uid: str, *, at_us: int) -> None:
        """A task was seen for the first time with agents there to run it."""
        self.memory[uid] = self.memory_of(uid, first_seen_us=at_us)

    def remember(self, uid: str, memory: TaskMemory) -> None:
        """Takes what a status written earlier carries; rounds that the topic shows beyond it count."""
        last = max(self.rounds.get(uid, {}).values(), key=lambda round_: round_.number, default=None)
        if last is not None and last.number > memory.last_number:
            memory = replace(memory, last_number=last.number, last_start_us=last.start_us)
        self.memory[uid] = memory

    def memory_of(self, uid: str, *, first_seen_us: int) -> TaskMemory:
        """A new memory of a task, with the rounds that the topic still has of it."""
        rounds = self.rounds.get(uid, {})
        last = rounds[max(rounds)] if rounds else None
        return TaskMemory(
            first_seen_us=first_seen_us,
            last_number=last.number if last else 0,
            last_start_us=last.start_us if last else 0,
        )
