"""The agent as it is measured: its own rounds, engine, spool, outbox and publisher, in a process of their own.

Runs no heartbeat and no responder. Reads one job a line from stdin, answers each with one line of JSON. What is counted
is this process alone, from the moment a round is heard until Kafka has the account of it: pacing, requests, rows,
sealing, encoding, spool, compression, producing. Connecting to Kafka comes before.

Usage: python -m bench.agent FOLDER BOOTSTRAP [--profile]   (BOOTSTRAP `none`: nothing is produced)
"""

import asyncio
import cProfile
import functools
import pstats
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from producers.__main__ import lighten, settle

if TYPE_CHECKING:
    from producers.publish import Sender

AGENT = "bench"


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A target: address and port; `proto` is http, https or dns."""

    proto: str
    port: int
    address: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One round: `rate` requests/s to each of `points`; `keep_rows` wants each request's duration."""

    points: tuple[Point, ...]
    rate: float
    duration_s: float
    new_connection: bool = False
    timeout_ms: int = 1000
    keep_rows: bool = False


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job. CPU times in µs of this process, memory in bytes; `durations_us` by request number.

    `failed` counts rows that are not `ok`. `resident_bytes` is at the end of the round.
    """

    planned: int
    sent: int
    unsent: int
    failed: int
    user_us: int
    system_us: int
    achieved_rate: float
    lateness_p50_us: int
    lateness_p99_us: int
    lateness_max_us: int
    resident_bytes: int
    record_bytes: int
    durations_us: dict[int, int] = {}

    @property
    def cpu_us(self) -> float:
        """CPU per recorded request."""
        return (self.user_us + self.system_us) / max(1, self.sent)


class Tap:
    """Stands before Kafka: passes everything on, and tells when a round's account has gone through."""

    def __init__(self, inner: "Sender | None") -> None:
        self._inner = inner
        self.told: asyncio.Future[Any] | None = None
        self.size_bytes = 0
        self.kept: list[bytes] = []

    async def send(self, *, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Pass a record on."""
        from topics import probe_results, round_progress

        if self._inner is not None:
            await self._inner.send(topic=topic, key=key, value=value, headers=headers)
        if topic == probe_results.TOPIC.name:
            self.size_bytes += len(value)
            self.kept.append(value)
        elif topic == round_progress.TOPIC.name and self.told is not None:
            self.told.set_result(round_progress.TOPIC.decode(value))


class Agent:
    """The parts of an agent that take part in a round."""

    def __init__(self, *, folder: Path, bootstrap: str) -> None:
        from producers.config import Config, Identity, Serving
        from producers.instrument import Instrument
        from producers.journal import Journal
        from producers.load.caps import Governor
        from producers.load.engine import run_load
        from producers.membership import KnownMembers
        from producers.metrics import Metrics
        from producers.outbox import Outbox
        from producers.publish import Publisher, producer_of
        from producers.rounds import Parts, Rounds
        from producers.schedule import Clock
        from producers.service import new_trace_id
        from producers.share import Store
        from producers.spool import Spool
        from producers.underload import Bench
        from topics import mesh_members
        from topics.connection import KafkaConnection
        from topics.mesh_members import Member

        kafka = KafkaConnection(bootstrap=bootstrap)
        config = Config(
            identity=Identity(agent=AGENT, node=AGENT),
            serving=Serving(ipv4="127.0.0.1"),
            kafka=kafka,
            spool_dir=folder,
        )
        self._clock = Clock()
        self._publisher = None if bootstrap == "none" else Publisher(producer_of(kafka=kafka, client_id="bench"))
        self._tap = Tap(self._publisher)
        self._spool = Spool(folder=config.spool_dir, max_bytes=1 << 30)
        self._outbox = Outbox(spool=self._spool, publisher=self._tap)
        self._members = mesh_members.chunks(
            group="default", epoch=1, at_us=0, members=(Member(slot=0, agent=AGENT, node=AGENT, ipv4="127.0.0.1"),)
        )
        known = KnownMembers(group="default")
        for chunk in self._members:
            known.add(chunk)
        bench = Bench(
            config=config,
            incarnation=1,
            version="bench",
            store=Store(spool=self._spool, outbox=self._outbox),
            instrument=Instrument(),
            load=functools.partial(run_load, governor=Governor(config.limits)),
            trace_id=new_trace_id,
        )
        self._rounds = Rounds(
            Parts(
                bench=bench,
                journal=Journal(folder=config.spool_dir),
                publisher=self._tap,
                members=known,
                metrics=Metrics(),
                clock=self._clock,
                after_round=lambda: None,
            )
        )
        self._outbox.on_settled = self._rounds.on_settled
        self._number = 0

    async def serve(self, lines: asyncio.StreamReader, *, profile: bool) -> None:
        """Every job that is asked for, until stdin ends."""
        aside = [asyncio.create_task(self._outbox.run())]
        if self._publisher is not None:
            aside.append(asyncio.create_task(self._publisher.run()))
        while line := await lines.readline():
            done = await self.run(msgspec.json.decode(line, type=Job), profile=profile)
            sys.stdout.buffer.write(msgspec.json.encode(done) + b"\n")
            sys.stdout.buffer.flush()
        for task in aside:
            task.cancel()
        await asyncio.gather(*aside, return_exceptions=True)
        self._spool.close()

    async def run(self, job: Job, *, profile: bool) -> Done:
        """One round, from hearing of it to its account in Kafka."""
        from topics.follow import Followed

        self._number += 1
        tap = self._tap
        tap.told, tap.size_bytes = asyncio.get_running_loop().create_future(), 0
        heard = Followed(record=self._round(job), partition=0, offset=self._number, timestamp_ms=0, caught_up=True)
        recorder = cProfile.Profile()
        before = resource.getrusage(resource.RUSAGE_SELF)
        if profile:
            recorder.enable()
        self._rounds.heard(heard)
        account = await tap.told
        after = resource.getrusage(resource.RUSAGE_SELF)
        if profile:
            recorder.disable()
            pstats.Stats(recorder, stream=sys.stderr).sort_stats("tottime").print_stats(30)
        kept, tap.kept = tap.kept, []
        # Looked at when all is counted.
        failed, durations = _rows(kept, wanted=job.keep_rows)
        return Done(
            planned=account.planned,
            sent=account.rows,
            unsent=account.unsent,
            failed=failed,
            user_us=int((after.ru_utime - before.ru_utime) * 1e6),
            system_us=int((after.ru_stime - before.ru_stime) * 1e6),
            achieved_rate=account.achieved_rate,
            lateness_p50_us=account.lateness_p50_us,
            lateness_p99_us=account.lateness_p99_us,
            lateness_max_us=account.lateness_max_us,
            resident_bytes=account.resident_bytes,
            record_bytes=tap.size_bytes,
            durations_us=durations,
        )

    def _round(self, job: Job) -> Any:
        from topics.outcome import Layer, Proto
        from topics.task_rounds import DnsRequest, HttpRequest, MembersRef, RoundScheduled, Target

        start_us = self._clock.wall_us() + 300_000
        targets = tuple(
            Target(
                name=f"target-{index}",
                dst=f"target-{index}",
                proto=Proto[point.proto],
                layer=Layer.pod,
                address=point.address,
                port=point.port,
            )
            for index, point in enumerate(job.points)
        )
        return RoundScheduled(
            round_id=self._number,
            number=self._number,
            task_uid="bench",
            task="netreach/bench",
            kind="NetReach",
            start_us=start_us,
            deadline_us=start_us + int(job.duration_s * 1e6) + 30_000_000,
            duration_s=job.duration_s,
            rate=job.rate,
            timeout_ms=job.timeout_ms,
            members=MembersRef(group="default", epoch=1, digest=self._members[0].digest, count=1),
            planned=int(job.rate * job.duration_s) * len(targets),
            targets=targets,
            http=HttpRequest(new_connection=job.new_connection),
            dns=DnsRequest(domain="bench.lab"),
        )


def _rows(kept: list[bytes], *, wanted: bool) -> tuple[int, dict[int, int]]:
    """How many requests failed; if wanted, the time each took."""
    from topics import arrow, probe_results
    from topics.outcome import Outcome

    failed, durations = 0, {}
    for value in kept:
        _, rows = arrow.decode(schema=probe_results.SCHEMA, data=value)
        failed += sum(outcome != Outcome.ok for outcome in rows.column("outcome").to_pylist())
        if wanted:
            durations.update(zip(rows.column("seq").to_pylist(), rows.column("dur_us").to_pylist(), strict=True))
    return failed, durations


async def _main(folder: Path, bootstrap: str, profile: bool) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    agent = Agent(folder=folder, bootstrap=bootstrap)
    settle()
    await agent.serve(lines, profile=profile)


if __name__ == "__main__":
    lighten()
    import uvloop

    uvloop.run(_main(Path(sys.argv[1]), sys.argv[2], "--profile" in sys.argv))
