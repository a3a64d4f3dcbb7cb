"""Running rounds on attached agents: memberships and rounds go out, records come back, each acknowledged.

A stream that breaks is opened again while there is time: the agent keeps what was not acknowledged. What comes twice is
known by its identity, as in the sink.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from kpatrol.check.mesh import Site
from topics import mesh_members, probe_receipts, probe_results, round_progress, task_rounds, wire
from topics.mesh_members import Member
from topics.probe_receipts import Receipts
from topics.probe_results import Batch
from topics.round_progress import AgentFinished, AgentGone, BatchesStored, RoundProgress, StoredBatch
from topics.spec import InvalidMessage, Topic
from topics.task_rounds import RoundScheduled

log = logging.getLogger(__name__)

REOPEN_S = 1.0
# From telling a round to its start.
LEAD_US = 1_500_000


class Broken(Exception):
    """The stream to an agent ended or could not be opened; the text says why."""


class Stream(Protocol):
    """A way to one agent, open."""

    async def write(self, data: bytes) -> None:
        """Give it bytes. Raises Broken."""
        ...

    def lines(self) -> AsyncIterator[bytes]:
        """Its lines, until it ends. Raises Broken."""
        ...


Attach = Callable[[Member], AbstractAsyncContextManager[Stream]]


@dataclass(slots=True, kw_only=True)
class Gathered:
    """All that came of the rounds: batches and receipts as they are, and the events that the judge folds."""

    rounds: list[tuple[Site, RoundScheduled]] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    receipts: list[Receipts] = field(default_factory=list)
    events: list[RoundProgress] = field(default_factory=list)
    heard: set[tuple[int, str]] = field(default_factory=set)

    def take(self, frame: wire.Frame, *, now_us: int) -> None:
        """One record of an agent. What cannot be read is logged; its requests then stay unexplained."""
        take = _TAKERS.get(frame.topic)
        if take is None:
            return
        topic, keep = take
        try:
            keep(self, topic.decode(frame.value), now_us)
        except InvalidMessage as error:
            log.error("%s: %s", frame.topic, error)

    def finished(self, *, round_id: int, agent: str) -> bool:
        """Whether that agent has given its account of the round."""
        return (round_id, agent) in self.heard


def _keep_batch(gathered: Gathered, batch: Batch, now_us: int) -> None:
    head = batch.head
    gathered.batches.append(batch)
    stored = StoredBatch(head.round_id, head.agent, head.incarnation, head.batch_seq, batch.rows.num_rows)
    gathered.events.append(
        BatchesStored(task_uid=head.task_uid, partition=0, next_offset=0, at_us=now_us, batches=(stored,))
    )


def _keep_receipts(gathered: Gathered, receipts: Receipts, now_us: int) -> None:
    gathered.receipts.append(receipts)


def _keep_event(gathered: Gathered, event: Any, now_us: int) -> None:
    gathered.events.append(event)
    if isinstance(event, AgentFinished):
        gathered.heard.add((event.round_id, event.agent))


_TAKERS: Mapping[str, tuple[Topic[Any], Callable[[Gathered, Any, int], None]]] = {
    probe_results.TOPIC.name: (probe_results.TOPIC, _keep_batch),
    probe_receipts.TOPIC.name: (probe_receipts.TOPIC, _keep_receipts),
    round_progress.TOPIC.name: (round_progress.TOPIC, _keep_event),
}


def now_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


async def run(
    *,
    rounds: Sequence[tuple[Site, RoundScheduled]],
    attach: Attach,
    told: Callable[[Gathered], None] = lambda _: None,
    attach_s: float = 60.0,
    settle_s: float = 3.0,
) -> Gathered:
    """Attach to all agents, run all rounds at one time, and gather until each has finished, or to the last deadline.

    The rounds start when every agent has been heard, at the latest after ``attach_s``; `Gathered.rounds` are the
    rounds as they were run, deadlines moved along. Agents without an account by then are gone, with their stream's
    last word as the cause. Receipts have ``settle_s`` to come after the last account.
    """
    session = _Session(rounds=rounds, attach=attach, told=told)
    sites = {site.name: site for site, _ in rounds}
    serving = [asyncio.create_task(session.serve(member, site)) for site in sites.values() for member in site.members]
    try:
        await _until(session.all_attached, serving, patience_s=attach_s)
        session.start()
        if await _until(session.all_in, serving, patience_s=(session.deadline_us - now_us()) / 1e6):
            await asyncio.sleep(settle_s)
    finally:
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
    return session.ended()


class _Session:
    """The streams to all agents, and what has come over them."""

    def __init__(
        self, *, rounds: Sequence[tuple[Site, RoundScheduled]], attach: Attach, told: Callable[[Gathered], None]
    ) -> None:
        self.all_attached, self.all_in, self._started = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.deadline_us = 0
        self._gathered = Gathered(rounds=list(rounds))
        self._attach, self._told = attach, told
        self._silent = {(site.name, member.agent) for site, _ in rounds for member in site.members}
        self._owed = {(round_.round_id, member.agent) for site, round_ in rounds for member in site.members}
        self._troubles: dict[str, str] = {}

    def start(self) -> None:
        """Fix the rounds' times, and let the streams tell them."""
        start_us = now_us() + LEAD_US
        rounds = [(site, _moved(round_, start_us)) for site, round_ in self._gathered.rounds]
        self._gathered.rounds = rounds
        self._gathered.events.extend(round_ for _, round_ in rounds)
        self.deadline_us = max(round_.deadline_us for _, round_ in rounds)
        self._started.set()

    def ended(self) -> Gathered:
        """All that came; agents without an account are gone."""
        for site, round_ in self._gathered.rounds:
            for member in site.members:
                if not self._gathered.finished(round_id=round_.round_id, agent=member.agent):
                    cause = self._troubles.get(member.agent, "no account in time")
                    self._gathered.events.append(_gone(round_, member, cause))
        return self._gathered

    async def serve(self, member: Member, site: Site) -> None:
        """One agent's stream, opened again when it breaks. The rounds are told each time: an agent runs each once."""
        while True:
            try:
                async with self._attach(member) as stream, asyncio.TaskGroup() as group:
                    ordering = group.create_task(self._order(stream, site))
                    async for line in stream.lines():
                        frame = wire.decode(line)
                        self._took(frame, member, site)
                        await stream.write(wire.encode(wire.Frame(number=frame.number)))
                    ordering.cancel()
                self._troubles[member.agent] = "the stream ended"
            except* (Broken, ValueError, OSError) as errors:
                first = errors.exceptions[0]
                self._troubles[member.agent] = str(first) or type(first).__name__
                log.warning("%s: %s", member.node, self._troubles[member.agent])
            await asyncio.sleep(REOPEN_S)

    async def _order(self, stream: Stream, site: Site) -> None:
        reference = site.reference
        chunks = mesh_members.chunks(group=reference.group, epoch=reference.epoch, at_us=0, members=site.members)
        for chunk in chunks:
            await stream.write(_line(mesh_members.TOPIC, chunk))
        await self._started.wait()
        for mine, round_ in self._gathered.rounds:
            if mine.name == site.name:
                await stream.write(_line(task_rounds.TOPIC, round_))

    def _took(self, frame: wire.Frame, member: Member, site: Site) -> None:
        # An agent speaks as soon as somebody attaches: it has a heartbeat to tell.
        self._silent.discard((site.name, member.agent))
        if not self._silent:
            self.all_attached.set()
        self._gathered.take(frame, now_us=now_us())
        self._told(self._gathered)
        if self._owed <= self._gathered.heard:
            self.all_in.set()


def _line(topic: Topic[Any], record: Any) -> bytes:
    return wire.encode(wire.Frame(topic=topic.name, value=topic.encode(record)))


def _moved(round_: RoundScheduled, start_us: int) -> RoundScheduled:
    deadline_us = start_us + round_.deadline_us - round_.start_us
    return msgspec.structs.replace(round_, start_us=start_us, deadline_us=deadline_us)


async def _until(event: asyncio.Event, serving: Sequence[asyncio.Task[None]], *, patience_s: float) -> bool:
    """Whether the event came in time. Raises what a stream's task has ended with: that is a fault of ours."""
    waiting = asyncio.create_task(event.wait())
    try:
        done, _ = await asyncio.wait(
            {waiting, *serving}, timeout=max(0.0, patience_s), return_when=asyncio.FIRST_COMPLETED
        )
        for task in done - {waiting}:
            task.result()
        return waiting in done
    finally:
        waiting.cancel()


def _gone(round_: RoundScheduled, member: Member, cause: str) -> AgentGone:
    return AgentGone(
        task_uid=round_.task_uid, round_id=round_.round_id, agent=member.agent, node=member.node, at_us=now_us(),
        cause=cause,
    )  # fmt: skip
