"""Judging as it happens: fold each event into its round, and when a verdict is due make it, publish it, note it.

No Faust and no Kafka here: table, results, members, publishing and time are handed in. Rules that keep verdicts honest:
- a revision number is written down before its verdict is told, so after a crash it is told again as it was or passed
  over, and never stands for two different verdicts;
- a final verdict needs exactly the rows that the sink has told of; while ClickHouse shows others (replicas lag) or
  does not answer, the round stays open and is tried again by a nudge from the timer;
- at the deadline it is told provisionally what is known, also that the results cannot be read;
- the receipts of the other end travel apart: a final verdict waits for them for half a second at most, and where they
  have not come in vain of late it does not wait at all. What they do not cover has no direction, nothing else changes;
- what is remembered of a task's last rounds is in the table too, so who takes over goes on with the same evidence.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from streams.accounts import complete, digest, due_while, fitness, settle, unsettled
from streams.clickhouse import ClickHouseAway
from streams.judging.directions import lacking
from streams.judging.pair_table import PairTable
from streams.judging.served import Served
from streams.judging.verdict import Facts, judge_among
from streams.round_store import RoundStore
from streams.rounds import Announced, Published, RoundKey, RoundState, fold, rounds_of
from topics import share
from topics.mesh_members import Member
from topics.round_progress import BatchesStored, RoundDeadline, RoundProgress
from topics.round_verdicts import RoundVerdict
from topics.task_rounds import MembersRef, RoundCancelled, RoundScheduled

GRACE_US = 500_000
# Waits between looks at ClickHouse while it shows fewer rows than were stored: 5 s in all, then by nudges.
LOOKS_S = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 2.0)
# Waits between looks for receipts.
RECEIPT_LOOKS_S = (0.1, 0.15, 0.25)
NUDGE_S = 2.0
LONGEST_NUDGE_S = 30.0
# A complete round takes nothing new: its state goes soon. An incomplete one may still be completed by a late spool.
KEEP_COMPLETE_US = 10 * 60 * 1_000_000
KEEP_US = 24 * 3600 * 1_000_000
KEEP_MARKER_US = 3 * 24 * 3600 * 1_000_000
KEEP_MEMORY_US = KEEP_MARKER_US
MANY_MEMBERS = 200
log = logging.getLogger(__name__)

ReadPairs = Callable[[RoundScheduled], Awaitable[PairTable]]
ReadServed = Callable[[RoundScheduled], Awaitable[Served]]
Publish = Callable[[RoundVerdict], Awaitable[None]]
FindMembers = Callable[[MembersRef], tuple[Member, ...] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """What the membership says of a round: requests and node of each agent."""

    planned: Mapping[str, int]
    nodes: Mapping[str, str]


@dataclass(slots=True)
class Retry:
    """When a round is looked at again."""

    at_us: int
    failures: int


@dataclass(kw_only=True)
class Judge:
    """The judge of the rounds in one table. `now_us` is the wall clock, `sleep` waits seconds."""

    store: RoundStore
    read_pairs: ReadPairs
    read_served: ReadServed
    publish: Publish
    find_members: FindMembers
    now_us: Callable[[], int]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _owed: dict[RoundKey, Owed] = field(default_factory=dict)
    _retries: dict[RoundKey, Retry] = field(default_factory=dict)
    _examined: set[RoundKey] = field(default_factory=set)
    _nudged: dict[RoundKey, int] = field(default_factory=dict)
    _waiting_for: dict[RoundKey, str] = field(default_factory=dict)
    _busy: set[RoundKey] = field(default_factory=set)
    # Tasks whose last round was waited for in vain.
    _without_receipts: set[str] = field(default_factory=set)

    async def take(self, events: Sequence[tuple[RoundProgress, int]]) -> None:
        """Fold events, each with its partition, in order, and tell what is due then."""
        loaded: dict[RoundKey, RoundState] = {}
        folded: dict[RoundKey, RoundState] = {}
        nudged: set[RoundKey] = set()
        for event, partition in events:
            for key in list(self._concerned(event, partition, folded)):
                if key not in folded:
                    loaded[key] = folded[key] = self.store.load(key, partition)
                folded[key] = fold(folded[key], event)
                if isinstance(event, RoundDeadline):
                    nudged.add(key)
        for key, state in folded.items():
            self.store.save(old=loaded[key], new=state)
        for key, state in folded.items():
            await self._look(key, state, forced=key in nudged)
        for partition in {p for event, p in events if isinstance(event, RoundScheduled)}:
            self._sweep(partition)

    def _concerned(
        self, event: RoundProgress, partition: int, folded: Mapping[RoundKey, RoundState]
    ) -> Iterable[RoundKey]:
        """Rounds that an event is about: those it names; a flush also tells all of the task's overdue rounds how far
        the sink has come; a global stop is about every open round here."""
        named = rounds_of(event)
        yield from named
        stop = isinstance(event, RoundCancelled) and event.round_id == 0
        if not (stop or isinstance(event, BatchesStored)):
            return
        here = {key for key, _ in self.store.open({partition})}
        here |= {key for key, state in folded.items() if state.head.partition == partition}
        for key in sorted(here.difference(named)):
            if stop or (
                key[0] == event.task_uid and _waits_for_the_sink(folded.get(key) or self.store.load(key, partition))
            ):
                yield key

    async def _look(self, key: RoundKey, state: RoundState, *, forced: bool) -> None:
        """Tell the verdict that is due for a round, if one is; never raises for a ClickHouse that is away."""
        self._examined.add(key)
        retry = self._retries.get(key)
        if state.head.round is None or state.head.closed:
            return
        if retry is not None and not forced and self.now_us() < retry.at_us:
            return
        self._busy.add(key)
        try:
            await self._judge(key, state, state.head.round)
        finally:
            self._busy.discard(key)

    async def _judge(self, key: RoundKey, state: RoundState, round_: RoundScheduled) -> None:
        owed = await self._what_is_owed(key, round_)
        if owed is None:
            trouble = f"membership {round_.members.group}/{round_.members.epoch} is not known"
            await self._later(key, state, Owed(planned={}, nodes={}), trouble)
            return
        waiting_for = unsettled(state=state, planned=owed.planned, first=self._waiting_for.get(key, ""))
        self._waiting_for[key] = waiting_for or ""
        due = due_while(state=state, waiting_for=waiting_for)
        if due == "nothing":
            self._retries.pop(key, None)
            return
        final = due == "final"
        pairs, trouble = await self._results(state, round_, exactly=final, first=key not in self._retries)
        if trouble:
            await self._later(key, state, owed, trouble, pairs=pairs)
            return
        self._retries.pop(key, None)
        if pairs is not None:
            pairs = await self._with_served(round_, pairs, patient=final)
        await self._tell(state, owed, pairs, final=final)

    async def _what_is_owed(self, key: RoundKey, round_: RoundScheduled) -> Owed | None:
        if key not in self._owed:
            members = self.find_members(round_.members)
            if members is None:
                return None
            if len(members) > MANY_MEMBERS:
                planned = await asyncio.to_thread(share.planned, round_=round_, members=members)
            else:
                planned = share.planned(round_=round_, members=members)
            self._owed[key] = Owed(planned=planned, nodes={m.agent: m.node for m in members})
        return self._owed[key]

    async def _results(
        self, state: RoundState, round_: RoundScheduled, *, exactly: bool, first: bool
    ) -> tuple[PairTable | None, str]:
        """(pair table, what is wrong with it): asked again for a while where it shows other rows than were stored."""
        pairs: PairTable | None = None
        for wait_s in (*(LOOKS_S if first and exactly else ()), None):
            try:
                pairs = await self.read_pairs(round_)
            except ClickHouseAway as error:
                log.warning("pair table of round %x: %s", round_.round_id, error)
                return None, "the stored results cannot be read: ClickHouse does not answer"
            if pairs.stored == state.stored or not exactly:
                return pairs, ""
            if wait_s is not None:
                await self.sleep(wait_s)
        shown = pairs.stored if pairs is not None else 0
        return pairs, f"ClickHouse shows {shown} of the {state.stored} requests that were stored"

    async def _with_served(self, round_: RoundScheduled, pairs: PairTable, *, patient: bool) -> PairTable:
        """The pair table with the other end's account, as far as it has come."""
        patient = patient and round_.task_uid not in self._without_receipts
        for wait_s in (*(RECEIPT_LOOKS_S if patient else ()), None):
            try:
                pairs = replace(pairs, served=await self.read_served(round_))
            except ClickHouseAway as error:
                log.warning("receipts of round %x: %s; it is judged without", round_.round_id, error)
                return pairs
            if not lacking(pairs):
                self._without_receipts.discard(round_.task_uid)
                return pairs
            if wait_s is not None:
                await self.sleep(wait_s)
        if patient:
            self._without_receipts.add(round_.task_uid)
        return pairs

    async def _later(
        self, key: RoundKey, state: RoundState, owed: Owed, trouble: str, *, pairs: PairTable | None = None
    ) -> None:
        """Leave a round open; past its deadline say so provisionally, once."""
        failures = self._retries[key].failures + 1 if key in self._retries else 0
        wait_s = min(NUDGE_S * 2 ** min(failures, 8), LONGEST_NUDGE_S)
        self._retries[key] = Retry(at_us=self.now_us() + int(wait_s * 1e6), failures=failures)
        log.warning("round %x of %s stays open: %s; again in %.0f s", key[1], key[0], trouble, wait_s)
        if state.past_deadline and state.head.published is None:
            await self._tell(state, owed, pairs, final=False, trouble=trouble)

    async def _tell(
        self, state: RoundState, owed: Owed, pairs: PairTable | None, *, final: bool, trouble: str = ""
    ) -> None:
        """Write down that a revision is about to be told, tell it, write down that it was."""
        announced = next_announcement(state, final=final, now_us=self.now_us())
        state = self._note(state, announced=announced)
        await self.store.written()
        facts = facts_of(state, owed, final=final, trouble=trouble)
        partition = state.head.partition
        judged = await asyncio.to_thread(
            judge_among,
            facts=facts,
            pairs=pairs,
            revision=announced.revision,
            at_us=announced.at_us,
            memories=self.store.memories(facts.round, partition),
        )
        verdict = judged.verdict
        await self.publish(verdict)
        if pairs is not None:
            self.store.remember(facts.round, partition, judged.memory)
        told = Published(revision=announced.revision, final=final, at_us=announced.at_us, digest=announced.digest)
        self._note(state, published=told)
        log.info("round %d of %s, revision %d: %s", verdict.round, verdict.task, verdict.revision, verdict.verdict)

    def _note(self, state: RoundState, **changes: object) -> RoundState:
        new = RoundState(head=msgspec.structs.replace(state.head, **changes), shares=state.shares)
        self.store.save(old=state, new=new)
        return new

    def due(self, partitions: Collection[int]) -> list[tuple[RoundKey, bool]]:
        """(round, its deadline has passed just now) of those that the timer must send an event to."""
        now_us = self.now_us()
        wanted = []
        for key, partition in self.store.open(partitions):
            if key in self._busy or now_us - self._nudged.get(key, 0) < NUDGE_S * 1e6:
                continue
            state = self.store.load(key, partition)
            passed = self._deadline_passed(state, now_us)
            if passed or self._must_be_looked_at(key, state, now_us):
                self._nudged[key] = now_us
                wanted.append((key, passed))
        return wanted

    def _deadline_passed(self, state: RoundState, now_us: int) -> bool:
        round_, told = state.head.round, state.head.published
        if round_ is None or state.past_deadline or (told is not None and told.final):
            return False
        return now_us >= round_.deadline_us + GRACE_US

    def _must_be_looked_at(self, key: RoundKey, state: RoundState, now_us: int) -> bool:
        """A retry has come, or an earlier process left the round with something untold."""
        retry = self._retries.get(key)
        if retry is not None:
            return now_us >= retry.at_us
        if key in self._examined:
            return False
        told = state.head.published
        if told is not None and told.final and told.digest == digest(state):
            self._examined.add(key)
            return False
        return True

    def _sweep(self, partition: int) -> None:
        """Drop what is over, as a new round of the same partition begins."""
        now_us = self.now_us()
        for key, _ in self.store.open({partition}):
            state = self.store.load(key, partition)
            owed = self._owed.get(key)
            told = state.head.published
            whole = owed is not None and told is not None and told.final and complete(state=state, planned=owed.planned)
            since_us = now_us - max(state.head.told_us, told.at_us if told is not None else 0)
            if since_us > (KEEP_COMPLETE_US if whole else KEEP_US):
                self.store.close(state)
                self._forget(key)
        self.store.drop_markers(partition=partition, before_us=now_us - KEEP_MARKER_US)
        self.store.drop_memories(partition=partition, before_us=now_us - KEEP_MEMORY_US)

    def _forget(self, key: RoundKey) -> None:
        for known in (self._owed, self._retries, self._nudged, self._waiting_for):
            known.pop(key, None)
        self._examined.discard(key)

    def forget_all(self) -> None:
        """Partitions have changed hands: what was remembered besides the table may be somebody else's."""
        for known in (self._owed, self._retries, self._nudged, self._waiting_for, self._examined):
            known.clear()


def _waits_for_the_sink(state: RoundState) -> bool:
    told = state.head.published
    return bool(state.head.end_offsets) and not (told is not None and told.final)


def next_announcement(state: RoundState, *, final: bool, now_us: int) -> Announced:
    """The next revision; where one was announced and perhaps told before a crash: the same again, or the one after."""
    facts = digest(state)
    said, told = state.head.announced, state.head.published
    confirmed = told.revision if told is not None else 0
    if said is None or said.revision <= confirmed:
        return Announced(revision=confirmed + 1, final=final, at_us=now_us, digest=facts)
    if (said.final, said.digest) == (final, facts):
        return said
    return Announced(revision=said.revision + 1, final=final, at_us=now_us, digest=facts)


def facts_of(state: RoundState, owed: Owed, *, final: bool, trouble: str) -> Facts:
    """What the verdict needs besides the results."""
    assert state.head.round is not None
    return Facts(
        round=state.head.round,
        accounts=settle(state=state, planned=owed.planned, nodes=owed.nodes),
        fitness=fitness(state, owed.nodes),
        final=final,
        last_result_us=state.last_result_us,
        cancelled=state.head.cancelled[1] if state.head.cancelled is not None else None,
        trouble=trouble,
    )
