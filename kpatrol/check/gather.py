"""Running rounds on attached agents: memberships and rounds go out, records come back, each acknowledged.

A stream that breaks is opened again while there is time: the agent keeps what was not acknowledged. What comes twice is
known by its identity, as in the sink.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
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
    """Attach to the rounds' agents, run the rounds at one time, and gather: `attached` for a single wave."""
    sites = [site for site, _ in rounds]
    async with attached(sites=sites, attach=attach, told=told, attach_s=attach_s) as agents:
        return await agents.run(rounds, settle_s=settle_s)


@asynccontextmanager
async def attached(
    *,
    sites: Sequence[Site],
    attach: Attach,
    told: Callable[[Gathered], None] = lambda _: None,
    attach_s: float = 60.0,
) -> AsyncGenerator[Attached, None]:
    """Streams to all agents of the sites, open inside: every agent has been heard, or ``attach_s`` are over."""
    agents = Attached(sites=list({site.name: site for site in sites}.values()), attach=attach, told=told)
    try:
        await agents.wait(attach_s)
        yield agents
    finally:
        await agents.close()


class Attached:
    """The streams to all agents, one to each, whatever sites it is of. Rounds run in waves, one after the other; a
    stream that breaks is opened again."""

    def __init__(self, *, sites: Sequence[Site], attach: Attach, told: Callable[[Gathered], None]) -> None:
        self._all_attached, self._all_in = asyncio.Event(), asyncio.Event()
        self._attach, self._told = attach, told
        of: dict[str, tuple[Member, list[Site]]] = {}
        for site in sites:
            for member in site.members:
                of.setdefault(member.agent, (member, []))[1].append(site)
        self._silent = set(of)
        self._gathered = Gathered()
        self._owed: set[tuple[int, str]] = set()
        self._troubles: dict[str, str] = {}
        # Set and made anew with every wave: what a stream waits for before it tells its agent more.
        self._next = asyncio.Event()
        self._serving = [asyncio.create_task(self._serve(member, own)) for member, own in of.values()]

    async def wait(self, patience_s: float) -> None:
        """Until every agent has been heard, at most so long."""
        await _until(self._all_attached, self._serving, patience_s=patience_s)

    async def run(self, rounds: Sequence[tuple[Site, RoundScheduled]], *, settle_s: float = 3.0) -> Gathered:
        """One wave: its rounds at one time, until each agent has finished, or to the last deadline.

        `Gathered.rounds` are the rounds as they were run, deadlines moved along. Agents without an account by then are
        gone, with their stream's last word as the cause. Receipts have ``settle_s`` to come after the last account.
        """
        start_us = now_us() + LEAD_US
        moved = [(site, _moved(round_, start_us)) for site, round_ in rounds]
        self._gathered = gathered = Gathered(rounds=moved, events=[round_ for _, round_ in moved])
        self._owed = {(round_.round_id, member.agent) for site, round_ in moved for member in site.members}
        self._all_in.clear()
        self._next, before = asyncio.Event(), self._next
        before.set()
        deadline_us = max(round_.deadline_us for _, round_ in moved)
        if await _until(self._all_in, self._serving, patience_s=(deadline_us - now_us()) / 1e6):
            await asyncio.sleep(settle_s)
        for site, round_ in moved:
            for member in site.members:
                if not gathered.finished(round_id=round_.round_id, agent=member.agent):
                    cause = self._troubles.get(member.agent, "no account in time")
                    gathered.events.append(_gone(round_, member, cause))
        return gathered

    async def close(self) -> None:
        """End the streams."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, member: Member, sites: Sequence[Site]) -> None:
        """One agent's stream, opened again when it breaks. A wave is told each time: an agent runs a round once."""
        while True:
            try:
                async with self._attach(member) as stream, asyncio.TaskGroup() as group:
                    log.info("%s: attached to %s", member.node, member.agent)
                    ordering = group.create_task(self._order(stream, sites))
                    async for line in stream.lines():
                        frame = wire.decode(line)
                        self._took(frame, member)
                        await stream.write(wire.encode(wire.Frame(number=frame.number)))
                    ordering.cancel()
                self._troubles[member.agent] = "the stream ended"
            except* (Broken, ValueError, OSError) as errors:
                first = errors.exceptions[0]
                why = str(first) or type(first).__name__
                if self._troubles.get(member.agent) != why:
                    log.warning("%s: %s", member.node, why)
                self._troubles[member.agent] = why
            await asyncio.sleep(REOPEN_S)

    async def _order(self, stream: Stream, sites: Sequence[Site]) -> None:
        for site in sites:
            which = site.reference
            for chunk in mesh_members.chunks(group=which.group, epoch=which.epoch, at_us=0, members=site.members):
                await stream.write(_line(mesh_members.TOPIC, chunk))
        names = {site.name for site in sites}
        while True:
            wave, following = self._gathered.rounds, self._next
            for site, round_ in wave:
                if site.name in names:
                    await stream.write(_line(task_rounds.TOPIC, round_))
            await following.wait()

    def _took(self, frame: wire.Frame, member: Member) -> None:
        # An agent speaks as soon as somebody attaches: it has a heartbeat to tell.
        self._silent.discard(member.agent)
        if not self._silent:
            self._all_attached.set()
        self._gathered.take(frame, now_us=now_us())
        self._told(self._gathered)
        if self._owed and self._owed <= self._gathered.heard:
            self._all_in.set()


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
