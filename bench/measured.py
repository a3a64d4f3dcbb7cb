"""A measured agent in a process of its own, driven from here; a real Kafka for what it produces."""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from bench.agent import Done, Job, Point
from bench.broker import broker
from bench.servers import ADDRESSES

T = TypeVar("T")


def with_kafka(work: Callable[[Path, str], T]) -> T:
    """What `work(folder, bootstrap)` returns, in a folder of its own and with a Kafka that ends with it."""

    async def scene(folder: Path) -> T:
        async with broker(folder) as kafka:
            return await asyncio.to_thread(work, folder, kafka.bootstrap)

    with tempfile.TemporaryDirectory(prefix="kpatrol-bench-") as name:
        return asyncio.run(scene(Path(name)))


class Measured:
    """The other end of an agent's stdin and stdout."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def run(self, job: Job) -> Done:
        """One round. Raises RuntimeError when the agent ends instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(job) + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the measured agent ended")
        return msgspec.json.decode(answer, type=Done)


@contextmanager
def agent(*, folder: Path, bootstrap: str, port: int, profile: bool = False) -> Iterator[Measured]:
    """A new agent that has reached Kafka and served one short round to that HTTP port, so that nothing is its first."""
    place = folder / f"agent-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "bench.agent", str(place), bootstrap, *(["--profile"] if profile else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        try:
            measured = Measured(process)
            measured.run(Job(points=points(proto="http", port=port, count=1), rate=1000, duration_s=0.3))
            yield measured
            process.stdin.close()
            process.wait(10)
        finally:
            if process.poll() is None:
                process.kill()


def points(*, proto: str, port: int, count: int) -> tuple[Point, ...]:
    """So many targets, all the same server."""
    return tuple(Point(proto=proto, port=port, address=address) for address in ADDRESSES[:count])
