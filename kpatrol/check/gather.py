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
    settle_s: float = 3.0,
) -> Gathered:
    """Run all rounds on their agents and gather until each has finished, at the latest at the last deadline.

    Agents that are not heard of by then are gone, with the stream's last word as the cause. Receipts have ``settle_s``
    to come after the last account. ``told`` is called with what has come, at every record.
    """
    gathered = Gathered()
    gathered.events.extend(round_ for _, round_ in rounds)
    deadline_us = max(round_.deadline_us for _, round_ in rounds)
    sites = {site.name: site for site, _ in rounds}
    troubles: dict[str, str] = {}
    done = asyncio.Event()
    owed = {(round_.round_id, member.agent) for site, round_ in rounds for member in site.members}

    def took(frame: wire.Frame) -> None:
        gathered.take(frame, now_us=now_us())
        told(gathered)
        if owed <= gathered.heard:
            done.set()

    tasks = [
        asyncio.create_task(
            _serve(member, site, [r for s, r in rounds if s.name == site.name], attach, took, troubles, deadline_us)
        )
        for site in sites.values()
        for member in site.members
    ]
    try:
        await asyncio.wait_for(done.wait(), max(0.0, (deadline_us - now_us()) / 1e6))
        await asyncio.sleep(settle_s)
    except TimeoutError:
        for site, round_ in rounds:
            for member in site.members:
                if not gathered.finished(round_id=round_.round_id, agent=member.agent):
                    gathered.events.append(_gone(round_, member, troubles.get(member.agent, "no account in time")))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return gathered


def _gone(round_: RoundScheduled, member: Member, cause: str) -> AgentGone:
    return AgentGone(
        task_uid=round_.task_uid, round_id=round_.round_id, agent=member.agent, node=member.node, at_us=now_us(),
        cause=cause,
    )  # fmt: skip


async def _serve(
    member: Member,
    site: Site,
    rounds: Sequence[RoundScheduled],
    attach: Attach,
    took: Callable[[wire.Frame], None],
    troubles: dict[str, str],
    deadline_us: int,
) -> None:
    """One agent's stream, opened again when it breaks. The rounds are told each time: an agent runs each once."""
    while now_us() < deadline_us:
        try:
            async with attach(member) as stream:
                for record in _orders(site, rounds):
                    await stream.write(wire.encode(record))
                async for line in stream.lines():
                    frame = wire.decode(line)
                    took(frame)
                    await stream.write(wire.encode(wire.Frame(number=frame.number)))
            troubles[member.agent] = "the stream ended"
        except (Broken, ValueError, OSError) as error:
            troubles[member.agent] = str(error) or type(error).__name__
            log.warning("%s: %s", member.node, troubles[member.agent])
        await asyncio.sleep(REOPEN_S)


def _orders(site: Site, rounds: Sequence[RoundScheduled]) -> list[wire.Frame]:
    reference = site.reference
    chunks = mesh_members.chunks(group=reference.group, epoch=reference.epoch, at_us=0, members=site.members)
    frames = [wire.Frame(topic=mesh_members.TOPIC.name, value=mesh_members.TOPIC.encode(chunk)) for chunk in chunks]
    frames += [wire.Frame(topic=task_rounds.TOPIC.name, value=task_rounds.TOPIC.encode(r)) for r in rounds]
    return frames
