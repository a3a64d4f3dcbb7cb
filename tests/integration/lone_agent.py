"""One agent's rounds with the real engine, spool and instrument in a process of its own, without Kafka.

`main(FOLDER)` reads FOLDER/job.json, and leaves there what the agent would have sent: account-N.json a round, and its
batches one after the other in batches.bin, each after its length.
"""

import asyncio
import functools
import struct
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop

from producers.config import Config, Identity, Serving
from producers.instrument import Flavour, Instrument
from producers.journal import Journal
from producers.load.caps import Governor
from producers.load.engine import run_load
from producers.membership import KnownMembers
from producers.metrics import Metrics
from producers.outbox import Outbox
from producers.rounds import Parts, Rounds
from producers.schedule import Clock
from producers.service import new_trace_id
from producers.share import Store
from producers.spool import Spool
from producers.underload import Bench
from tests.integration.cpu_quota import join
from topics import mesh_members, probe_results, round_progress
from topics.connection import KafkaConnection
from topics.follow import Followed
from topics.mesh_members import Member
from topics.task_rounds import HttpRequest, MembersRef, RoundScheduled, Target

GROUP = "lone"
MEMBERS = mesh_members.chunks(
    group=GROUP, epoch=1, at_us=0, members=(Member(slot=0, agent="node-1", node="node-1", ipv4="127.0.0.1"),)
)


class Job(msgspec.Struct, kw_only=True):
    """What to run: so many rounds of the same load, one after the other, perhaps in a cgroup."""

    targets: tuple[Target, ...]
    rate: float
    duration_s: float
    timeout_ms: int = 1000
    rounds: int = 1
    cgroup: str = ""
    flavour: Flavour = "pod"


class Written:
    """Stands where Kafka stands: everything arrives at once, on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.accounts = 0
        self.told = asyncio.Event()

    async def send(self, *, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Keep a record."""
        if topic == probe_results.TOPIC.name:
            with (self._folder / "batches.bin").open("ab") as file:
                file.write(struct.pack(">I", len(value)) + value)
        elif topic == round_progress.TOPIC.name:
            self.accounts += 1
            (self._folder / f"account-{self.accounts}.json").write_bytes(value)
            self.told.set()


def a_round(job: Job, number: int) -> RoundScheduled:
    """A round of the job that starts in a third of a second."""
    start_us = Clock().wall_us() + 350_000
    planned = int(job.rate * job.duration_s) * len(job.targets)
    return RoundScheduled(
        round_id=number,
        number=number,
        task_uid="lone",
        task="netreach/lone",
        kind="NetReach",
        start_us=start_us,
        deadline_us=start_us + 60_000_000,
        duration_s=job.duration_s,
        rate=job.rate,
        timeout_ms=job.timeout_ms,
        members=MembersRef(group=GROUP, epoch=1, digest=MEMBERS[0].digest, count=1),
        planned=planned,
        targets=job.targets,
        http=HttpRequest(),
    )


async def run(job: Job, folder: Path) -> None:
    """All rounds of the job."""
    if job.cgroup:
        join(Path(job.cgroup))
    config = Config(
        identity=Identity(agent="node-1", node="node-1", group=GROUP),
        serving=Serving(ipv4="127.0.0.1"),
        kafka=KafkaConnection(bootstrap="nowhere:1"),
        spool_dir=folder / "spool",
        flavour=job.flavour,
    )
    spool, kafka = Spool(folder=config.spool_dir, max_bytes=1 << 30), Written(folder)
    outbox = Outbox(spool=spool, publisher=kafka)
    members = KnownMembers(group=GROUP)
    for chunk in MEMBERS:
        members.add(chunk)
    bench = Bench(
        config=config,
        incarnation=1,
        version="test",
        store=Store(spool=spool, outbox=outbox),
        instrument=Instrument(flavour=config.flavour),
        load=functools.partial(run_load, governor=Governor(config.limits)),
        trace_id=new_trace_id,
    )
    rounds = Rounds(
        Parts(
            bench=bench,
            journal=Journal(folder=config.spool_dir),
            publisher=kafka,
            members=members,
            metrics=Metrics(),
            clock=Clock(),
            after_round=lambda: None,
        )
    )
    outbox.on_settled = rounds.on_settled
    sending = asyncio.create_task(outbox.run())
    for number in range(1, job.rounds + 1):
        kafka.told.clear()
        (folder / f"round-{number}.json").write_bytes(msgspec.json.encode(round_ := a_round(job, number)))
        rounds.heard(Followed(record=round_, partition=0, offset=number, timestamp_ms=number, caught_up=True))
        await kafka.told.wait()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    spool.close()


def main(place: Path) -> None:
    """Run FOLDER/job.json."""
    uvloop.run(run(msgspec.json.decode((place / "job.json").read_bytes(), type=Job), place))
