"""A round's life on one agent: heard, membership known, start awaited, load run, batches settled, account published.

Where each agent's share comes from is `topics.share`; when it may run is `producers.schedule`; what is left of it on
disk is `producers.journal`. Here is only the order of these steps, and what interrupts them: a cancellation, the
deadline, the end of the agent.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from producers.batches import source_address
from producers.config import Config
from producers.journal import Account, Began, Ended, Finished, Journal, account
from producers.membership import KnownMembers
from producers.metrics import Metric, Metrics
from producers.publish import Sender
from producers.responder.canaries import Canaries
from producers.schedule import Clock, Turns, owes_account, refusal, shift_us, slack_us, start_monotonic_us
from producers.share import Share
from producers.sizes import with_real_sizes
from producers.spool import Entry
from producers.underload import Bench, run_share
from topics import round_progress
from topics.follow import Followed
from topics.mesh_members import Member
from topics.share import Stream, share, taking_part
from topics.task_rounds import RoundCancelled, RoundScheduled, TaskRound

log = logging.getLogger(__name__)

# The engine is called this long before the start, so that the clocks are compared as late as is useful.
PREPARE_US = 300_000
# The engine's cause for what was never sent because it was told to stop; why it was told is known here.
CANCELLED = "cancelled"
# A membership may come as much later than its round's deadline: Kafka was away, and both are on their way.
MEMBERSHIP_LATE_S = 600.0
# A finished share is remembered this long after its deadline.
KEEP_US = 3_600_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What running rounds needs."""

    bench: Bench
    journal: Journal
    publisher: Sender
    members: KnownMembers
    metrics: Metrics
    clock: Clock
    after_round: Callable[[], None]
    canaries: Canaries | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Run:
    """One round that was heard, until its account is published. (`partition`, `offset`) is where it was heard."""

    round_: RoundScheduled
    partition: int
    offset: int
    timestamp_ms: int
    cancel: asyncio.Event = field(default_factory=asyncio.Event)
    note: str = ""
    cause: str = ""
    begun: bool = False
    replaced: bool = False

    def stop(self, note: str, *, cause: str) -> None:
        """Send nothing more; the first reason counts. What is then unsent has that cause."""
        if not self.cancel.is_set():
            self.note, self.cause = note, cause
            self.cancel.set()

    def comes_before(self, later: Followed[Any]) -> bool:
        """Whether this round was published before that record, so that a global stop is meant for it."""
        if self.partition == later.partition:
            return self.offset < later.offset
        return self.timestamp_ms <= later.timestamp_ms


class Rounds:
    """All rounds of this agent: those heard, those under load, those of earlier incarnations still to be accounted."""

    def __init__(self, parts: Parts) -> None:
        self.turns = Turns()
        self._parts = parts
        self._runs: dict[int, Run] = {}
        self._shares: dict[tuple[int, int], Share] = {}
        self._pending: list[Run] | None = []
        self._tasks: dict[asyncio.Task[None], Run | None] = {}

    def heard(self, followed: Followed[TaskRound]) -> None:
        """Take one record of task-rounds-v1. Nothing is run before the topic's end: a cancellation may stand there."""
        record = followed.record
        if isinstance(record, RoundScheduled):
            self._scheduled(record, followed)
        elif isinstance(record, RoundCancelled):
            self._cancelled(record, followed)
        if followed.caught_up and self._pending is not None:
            pending, self._pending = self._pending, None
            for run in pending:
                self._start(run)

    def on_settled(self, entry: Entry, cause: str) -> None:
        """A batch of the spool has arrived in Kafka, or with a cause never will."""
        metric: Metric = "rows_lost_total" if cause else "rows_acknowledged_total"
        self._parts.metrics.add(metric, entry.rows if entry.kind == "results" else 0)
        owner = self._shares.get((entry.round_id, entry.incarnation)) if entry.kind == "results" else None
        if owner is not None:
            owner.settle(batch_seq=entry.batch_seq, rows=entry.rows, cause=cause)
        elif cause:
            log.error("event=batch_lost file=%s cause=%r", entry.name, cause)

    def recover(self) -> int:
        """Take over the shares that earlier incarnations left unfinished; how many. Call before the outbox runs."""
        spool = self._parts.bench.store.spool
        on_disk: dict[tuple[int, int], list[Entry]] = {}
        for entry in spool.entries():
            if entry.kind == "results":
                on_disk.setdefault((entry.round_id, entry.incarnation), []).append(entry)
        for key, left in list(self._parts.journal.accounts.items()):
            if left.story.began is None or left.story.finished:
                continue
            entries = on_disk.get(key, [])
            for entry in entries:
                if entry.batch_seq in left.story.lost:
                    spool.remove(entry)
            under_way = [e for e in entries if e.batch_seq not in left.story.lost]
            owner = Share(account=left)
            for entry in under_way:
                owner.sealed(batch_seq=entry.batch_seq, rows=entry.rows)
            self._shares[key] = owner
            self._spawn(self._conclude(owner), run=None)
        return len(self._shares)

    async def stop(self, *, patience_s: float) -> None:
        """End of the agent: rounds under load stop and are accounted, rounds not yet begun are left to a next
        incarnation; whatever is not done after `patience_s` stays in the spool and the journal."""
        self._pending = []
        for task, run in list(self._tasks.items()):
            if run is not None and not run.begun:
                task.cancel()
            elif run is not None:
                run.stop("agent stopped", cause=round_progress.UNSENT_STOPPED)
        self.turns.look_again()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=patience_s)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _scheduled(self, round_: RoundScheduled, followed: Followed[TaskRound]) -> None:
        now_us = self._parts.clock.wall_us()
        group = self._parts.bench.config.identity.group
        reason = refusal(round_=round_, group=group, known=self._known, now_us=now_us)
        run = Run(
            round_=round_, partition=followed.partition, offset=followed.offset, timestamp_ms=followed.timestamp_ms
        )
        if reason == "deadline passed" and self._owes_account(round_, now_us):
            self._never_ran(run)
        elif reason:
            log.debug("event=round_passed_over round=%d why=%r", round_.round_id, reason)
            return
        self._runs[round_.round_id] = run
        if self._parts.canaries is not None and not reason:
            self._parts.canaries.heard(round_, now_us=now_us)
        if self._pending is not None:
            self._pending.append(run)
        else:
            self._start(run)

    def _owes_account(self, round_: RoundScheduled, now_us: int) -> bool:
        return not self._known(round_.round_id) and owes_account(
            round_=round_,
            live=self._pending is None,
            journal_since_us=self._parts.journal.since_us,
            now_us=now_us,
            keep_us=KEEP_US,
        )

    def _never_ran(self, run: Run) -> None:
        """A round whose deadline had passed when all of it was known here. Who was not there then has died."""
        there = self._parts.bench.incarnation < run.round_.deadline_us
        cause = round_progress.UNSENT_HEARD_LATE if there else round_progress.AGENT_DIED
        run.stop("not run: its deadline had passed when it was heard", cause=cause)

    def _known(self, round_id: int) -> bool:
        return round_id in self._runs or self._parts.journal.known(round_id)

    def _cancelled(self, cancelled: RoundCancelled, followed: Followed[TaskRound]) -> None:
        for run in list(self._runs.values()):
            if cancelled.round_id == run.round_.round_id or (
                cancelled.round_id == 0
                and cancelled.task_uid in ("", run.round_.task_uid)
                and run.comes_before(followed)
            ):
                run.stop(f"cancelled: {cancelled.reason}", cause=CANCELLED)
        self.turns.look_again()

    def _start(self, run: Run) -> None:
        self._spawn(self._run(run), run=run)

    def _spawn(self, work: Any, *, run: Run | None) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks[task] = run
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        run = self._tasks.pop(task)
        if run is not None:
            self._runs.pop(run.round_.round_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "event=round_failed", "exception": error, "task": task}
            )

    async def _run(self, run: Run) -> None:
        members = await self._members(run.round_)
        if members is None:
            return
        if run.round_.deadline_us <= self._parts.clock.wall_us():
            self._never_ran(run)
        streams = self._streams(run.round_, members)
        run.replaced = moved(config=self._parts.bench.config, members=members)
        await self._until(run.round_.start_us - PREPARE_US, run)
        clock, round_ = self._parts.clock, run.round_
        start_us = start_monotonic_us(
            start_us=round_.start_us, wall_us=clock.wall_us(), monotonic_us=clock.monotonic_us()
        )
        asked_us = clock.monotonic_us()
        patience_s = (max(start_us, asked_us) + slack_us(round_) - asked_us) / 1e6
        in_turn = await self.turns.take(
            round_id=round_.round_id,
            load_class=round_.load_class,
            patience_s=patience_s,
            give_up=run.cancel.is_set,
        )
        waited_us = shift_us(start_us=start_us, asked_us=asked_us, got_us=clock.monotonic_us())
        if not in_turn:
            run.stop(f"waited {waited_us // 1000} ms for its turn and did not get it", cause="no_turn")
        elif waited_us and not run.note:
            run.note = f"waited {waited_us // 1000} ms for its turn"
        try:
            owner = await self._under_load(run, streams, start_us=start_us, waited_us=waited_us)
        finally:
            self.turns.leave(round_.round_id)
        if owner is not None:
            self._parts.after_round()
            await self._conclude(owner)

    async def _members(self, round_: RoundScheduled) -> tuple[Member, ...] | None:
        """The round's membership; None where it does not come, or this agent takes no part."""
        agent = self._parts.bench.config.identity.agent
        left_us = max(0, round_.deadline_us - self._parts.clock.wall_us())
        try:
            async with asyncio.timeout(left_us / 1e6 + MEMBERSHIP_LATE_S):
                members = await self._parts.members.wait(round_.members)
        except TimeoutError:
            log.error("event=membership_missing round=%d epoch=%d", round_.round_id, round_.members.epoch)
            return None
        if all(member.agent != agent for member in taking_part(round_=round_, members=members)):
            log.debug("event=round_passed_over round=%d why='not a member'", round_.round_id)
            return None
        return members

    def _streams(self, round_: RoundScheduled, members: tuple[Member, ...]) -> tuple[Stream, ...]:
        streams = share(round_=round_, members=members, agent=self._parts.bench.config.identity.agent)
        return with_real_sizes(
            streams=streams, source_address=source_address(streams=streams, serving=self._parts.bench.config.serving)
        )

    async def _until(self, wall_us: int, run: Run) -> None:
        # Read the wall clock again once a minute at the latest: it may be set while we wait.
        while not run.cancel.is_set() and (left_us := wall_us - self._parts.clock.wall_us()) > 0:
            try:
                async with asyncio.timeout(min(left_us / 1e6, 60.0)):
                    await run.cancel.wait()
            except TimeoutError:
                continue

    async def _under_load(
        self, run: Run, streams: tuple[Stream, ...], *, start_us: int, waited_us: int
    ) -> Share | None:
        parts, round_ = self._parts, run.round_
        planned = sum(stream.requests for stream in streams)
        began = Began(
            round_id=round_.round_id,
            number=round_.number,
            task_uid=round_.task_uid,
            task=round_.task,
            incarnation=parts.bench.incarnation,
            planned=planned,
            deadline_us=round_.deadline_us,
            asked_rate=round_.rate * len(streams),
            at_us=parts.clock.wall_us(),
            replaced=run.replaced,
        )
        try:
            kept = parts.journal.begin(began)
        except OSError as error:
            log.error("event=round_not_run round=%d why=%r", round_.round_id, f"journal: {error}")
            return None
        run.begun = True
        owner = Share(account=kept)
        self._shares[owner.key] = owner
        log.info("event=round_begins round=%d task=%s number=%d planned=%d", *_names(began), planned)
        if run.cancel.is_set():
            owner.end(_nothing_sent(run, planned))
            return owner
        left_s = (round_.deadline_us - parts.clock.wall_us()) / 1e6
        deadline = asyncio.get_running_loop().call_later(
            left_s, lambda: run.stop("deadline passed", cause="deadline_passed")
        )
        try:
            ended = await run_share(
                bench=parts.bench,
                owner=owner,
                round_=round_,
                streams=streams,
                start_us=start_us,
                waited_us=waited_us,
                cancel=run.cancel,
            )
        finally:
            deadline.cancel()
        causes = {run.cause if cause == CANCELLED else cause: count for cause, count in ended.unsent_causes.items()}
        owner.end(msgspec.structs.replace(ended, note=run.note, unsent_causes=causes))
        return owner

    async def _conclude(self, owner: Share) -> None:
        parts, identity = self._parts, self._parts.bench.config.identity
        await owner.settled()
        finished = account(
            story=owner.account.story, agent=identity.agent, node=identity.node, at_us=parts.clock.wall_us()
        )
        await parts.publisher.send(
            topic=round_progress.TOPIC.name,
            key=round_progress.TOPIC.key(finished),
            value=round_progress.TOPIC.encode(finished),
        )
        owner.account.write(Finished(at_us=parts.clock.wall_us()))
        owner.account.close()
        del self._shares[owner.key]
        parts.journal.forget(now_us=parts.clock.wall_us(), keep_us=KEEP_US)
        parts.metrics.add("rounds_finished_total")
        _tell(owner.account, finished)


def moved(*, config: Config, members: Iterable[Member]) -> bool:
    """Whether the membership tells peers of another pod of this agent, or of other addresses, than it has. Pure."""
    identity, serving = config.identity, config.serving
    here = (identity.pod, serving.ipv4, serving.ipv6)
    return any(m.agent == identity.agent and (m.pod, m.ipv4, m.ipv6) != here for m in members)


def _nothing_sent(run: Run, planned: int) -> Ended:
    """The end of a share that was not run: unsent with its cause, or missing where the agent was not there at all."""
    if run.cause == round_progress.AGENT_DIED:
        return Ended(unsent=0, unrecorded_cause=run.cause, note=run.note)
    return Ended(unsent=planned, note=run.note, unsent_causes={run.cause: planned} if planned else {})


def _names(began: Began) -> tuple[int, str, int]:
    return began.round_id, began.task, began.number


def _tell(kept: Account, finished: round_progress.AgentFinished) -> None:
    began = kept.story.began
    assert began is not None
    unexplained = finished.planned - finished.sent - finished.unsent - finished.declared_missing
    level = logging.ERROR if unexplained else logging.WARNING if finished.declared_missing else logging.INFO
    log.log(
        level,
        "event=round_finished round=%d task=%s number=%d incarnation=%d planned=%d rows=%d unsent=%d missing=%d "
        "cause=%r unexplained=%d batches=%d lateness_p99_us=%d note=%r",
        *_names(began),
        finished.incarnation,
        finished.planned,
        finished.rows,
        finished.unsent,
        finished.declared_missing,
        finished.missing_cause,
        unexplained,
        finished.batches,
        finished.lateness_p99_us,
        finished.note,
    )
