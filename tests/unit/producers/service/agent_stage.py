"""A stage for one agent's rounds: a sender that keeps what is sent, a load engine that does as it is told."""

import asyncio
import contextlib
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from producers.config import Config, Identity, Serving
from producers.instrument import Instrument
from producers.journal import Journal
from producers.load.engine import LoadAccount
from producers.membership import KnownMembers
from producers.metrics import Metrics
from producers.outbox import Outbox
from producers.publish import Unpublishable
from producers.rounds import Parts, Rounds
from producers.rows import Row, Rows
from producers.schedule import Clock
from producers.share import Store
from producers.spool import Spool
from producers.underload import Bench
from topics import mesh_members, probe_results, round_progress
from topics.connection import KafkaConnection
from topics.follow import Followed
from topics.mesh_members import Member
from topics.round_progress import AgentFinished
from topics.share import Stream
from topics.task_rounds import EXAMPLE, MembersRef, RoundCancelled, RoundScheduled, TaskRound

MEMBERS = tuple(Member(slot=i, agent=f"node-{i}", node=f"node-{i}", ipv4=f"127.0.0.{i}") for i in (1, 2, 3))
CHUNK = mesh_members.chunks(group="default", epoch=1, at_us=0, members=MEMBERS)[0]
REF = MembersRef(group="default", epoch=1, digest=CHUNK.digest, count=3)


def a_round(
    *, number: int = 1, starts_in_s: float = 0.0, deadline_in_s: float = 30.0, **changes: Any
) -> RoundScheduled:
    """A round of the three members, each 10 requests to each of the other two, starting soon."""
    now_us = Clock().wall_us()
    return replace(
        EXAMPLE,
        round_id=100 + number,
        number=number,
        start_us=now_us + int(starts_in_s * 1e6),
        deadline_us=now_us + int(deadline_in_s * 1e6),
        duration_s=1.0,
        rate=10.0,
        members=REF,
        **changes,
    )


def a_row(seq: int, planned_us: int = 0) -> Row:
    """A good request."""
    return (seq, 0, planned_us, 0, 100, 0, 0, 0, 0, 1, "", 200, "node-2", 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)


@dataclass
class Sent:
    """One record that reached the fake Kafka."""

    topic: str
    key: bytes
    value: bytes
    headers: dict[str, bytes]


@dataclass
class FakeKafka:
    """Acknowledges at once while `up`; counts what is sent."""

    records: list[Sent] = field(default_factory=list)
    up: asyncio.Event = field(default_factory=asyncio.Event)
    refuse: bool = False

    async def send(self, *, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Keep the record once Kafka is up."""
        await self.up.wait()
        if self.refuse and topic == probe_results.TOPIC.name:
            raise Unpublishable("too large")
        self.records.append(Sent(topic, key, value, dict(headers)))

    def batches(self) -> list[probe_results.Batch]:
        """The batches of results sent so far."""
        return [probe_results.decode(r.value) for r in self.records if r.topic == probe_results.TOPIC.name]

    def accounts(self) -> list[AgentFinished]:
        """The accounts sent so far."""
        found = [round_progress.TOPIC.decode(r.value) for r in self.records if r.topic == round_progress.TOPIC.name]
        return [f for f in found if isinstance(f, AgentFinished)]


async def until(true: Callable[[], object]) -> None:
    """Return once it is true; fails after half a minute."""
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 (what is looked at has no event to wait for)
            await asyncio.sleep(0.002)


def cut_file(folder: Path, pattern: str, cut: Callable[[bytes], bytes]) -> None:
    """Change the one file that matches."""
    (path,) = folder.glob(pattern)
    path.write_bytes(cut(path.read_bytes()))


Play = Callable[[int, Rows, asyncio.Event], Awaitable[LoadAccount]]


def ended(*, planned: int, sent: int) -> LoadAccount:
    """An engine's account."""
    return LoadAccount(
        planned=planned,
        sent=sent,
        unsent=planned - sent,
        cancelled=0,
        asked_rate=20.0,
        achieved_rate=19.0,
        lateness_p50_us=1,
        lateness_p99_us=2,
        lateness_max_us=3,
        loop_lag_max_us=4,
    )


async def send_all(planned: int, rows: Rows, cancel: asyncio.Event) -> LoadAccount:
    """An engine that sends everything at once."""
    for seq in range(planned):
        rows.add(a_row(seq))
    return ended(planned=planned, sent=planned)


async def send_until_cancelled(planned: int, rows: Rows, cancel: asyncio.Event) -> LoadAccount:
    """An engine that sends half and then waits for the end."""
    for seq in range(planned // 2):
        rows.add(a_row(seq))
    await cancel.wait()
    return ended(planned=planned, sent=planned // 2)


@dataclass
class Stage:
    """The agent's parts around the rounds, on real files."""

    rounds: Rounds
    kafka: FakeKafka
    spool: Spool
    journal: Journal
    outbox: Outbox
    members: KnownMembers
    starts_us: list[int]
    offset: int = 0

    def hear(self, *records: TaskRound | None) -> None:
        """Hear records as from the topic, caught up from the first on."""
        for record in records:
            self.offset += 1
            self.rounds.heard(
                Followed(record=record, partition=0, offset=self.offset, timestamp_ms=self.offset, caught_up=True)
            )

    def hear_behind(self, record: TaskRound) -> None:
        """Hear an old record, with more to come."""
        self.offset += 1
        self.rounds.heard(
            Followed(record=record, partition=0, offset=self.offset, timestamp_ms=self.offset, caught_up=False)
        )

    async def accounts(self, count: int) -> list[AgentFinished]:
        """The accounts, once there are so many."""
        await until(lambda: len(self.kafka.accounts()) >= count)
        return self.kafka.accounts()


@contextlib.asynccontextmanager
async def staged(
    folder: Path, play: Play = send_all, *, incarnation: int = 1000, max_bytes: int = 1 << 30, kafka_up: bool = True
) -> AsyncIterator[Stage]:
    """An agent `node-1` whose load engine is `play`."""
    config = Config(
        identity=Identity(agent="node-1", node="node-1"),
        serving=Serving(ipv4="127.0.0.1"),
        kafka=KafkaConnection(bootstrap="nowhere:1"),
        spool_dir=folder,
    )
    kafka = FakeKafka()
    if kafka_up:
        kafka.up.set()
    spool, journal = Spool(folder=folder, max_bytes=max_bytes, window=2), Journal(folder=folder)
    outbox = Outbox(spool=spool, publisher=kafka)
    members = KnownMembers(group="default")
    starts_us: list[int] = []

    async def load(  # noqa: PLR0913 (the engine's own signature)
        *,
        round_: RoundScheduled,
        streams: tuple[Stream, ...],
        agent: str,
        incarnation: int,
        trace_id: bytes,
        source_address: str,
        start_monotonic_us: int,
        rows: Rows,
        cancel: asyncio.Event,
    ) -> LoadAccount:
        assert (agent, source_address, len(trace_id)) == ("node-1", "127.0.0.1", 16)
        starts_us.append(start_monotonic_us)
        return await play(sum(s.requests for s in streams), rows, cancel)

    bench = Bench(
        config=config,
        incarnation=incarnation,
        version="test",
        store=Store(spool=spool, outbox=outbox),
        instrument=Instrument(),
        load=load,
        trace_id=lambda: bytes(range(16)),
    )
    rounds = Rounds(
        Parts(
            bench=bench,
            journal=journal,
            publisher=kafka,
            members=members,
            metrics=Metrics(),
            clock=Clock(),
            after_round=lambda: None,
        )
    )
    outbox.on_settled = rounds.on_settled
    rounds.recover()
    sending = asyncio.create_task(outbox.run())
    members.add(CHUNK)
    try:
        yield Stage(
            rounds=rounds,
            kafka=kafka,
            spool=spool,
            journal=journal,
            outbox=outbox,
            members=members,
            starts_us=starts_us,
        )
    finally:
        await rounds.stop(patience_s=0.0)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        spool.close()


def column(batch: probe_results.Batch, name: str) -> "array[int]":
    """A column of a batch as numbers."""
    return array("Q", [int(value) for value in batch.rows.column(name).to_pylist() if value is not None])


def stop_everything() -> RoundCancelled:
    """The global stop."""
    return RoundCancelled(round_id=0, task_uid="", reason="global stop", at_us=0)
