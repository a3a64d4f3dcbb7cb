"""Shares run on loopback: a round, its streams, and what came of it as rows that can be read."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from producers.load.caps import Governor, Limits
from producers.load.engine import LoadAccount, run_load
from producers.load.ticker import now_us
from producers.rows import Rows, SealedBatch
from topics.outcome import Layer, Outcome, Proto
from topics.share import Stream
from topics.task_rounds import Expect, MembersRef, RoundScheduled, Target

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def unpacked(batches: list[SealedBatch]) -> list[SimpleNamespace]:
    """The rows of sealed batches, with `peer`, `error` and `outcome` as what they mean, in the order of seq."""
    rows = []
    for batch in batches:
        for i in range(batch.rows):
            row = {name: column[i] for name, column in batch.columns.items()}
            row |= {"peer": batch.peers[row["peer"]], "error": batch.errors[row["error"]]}
            rows.append(SimpleNamespace(**row | {"outcome": Outcome(row["outcome"])}))
    return sorted(rows, key=lambda row: row.seq)


# A loop that is this late did not get its CPU: what it measured then says something about the machine.
DISTURBED_S = 0.010
TRIES = 6
# A scene takes two seconds at most; a hang ends here, since the alarm of pytest-timeout does not reach uvloop.
HANGING_S = 60.0


class Pulse:
    """How late the loop was at the most, looked at every few milliseconds."""

    def __init__(self) -> None:
        self.late_max_s = 0.0

    async def beat(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + 0.004
            await asyncio.sleep(0.004)
            self.late_max_s = max(self.late_max_s, loop.time() - due_s)


async def _watched(scene: Callable[[], Awaitable[Any]], pulse: Pulse) -> Any:
    beating = asyncio.ensure_future(pulse.beat())
    try:
        async with asyncio.timeout(HANGING_S):
            return await scene()
    finally:
        # What stood still until now is seen, too.
        await asyncio.sleep(0)
        beating.cancel()


@dataclass
class Lab:
    """Runs shares; a test reads what came of them."""

    agent: str = "node-1"
    cancel: asyncio.Event = field(default_factory=asyncio.Event)

    def run(self, scene: Callable[[], Awaitable[Any]]) -> Any:
        """Run a coroutine function on the loop that agents use.

        A scene that fails while the machine kept the loop waiting is played again, a few times at most; what fails on
        an undisturbed machine, or every time, fails.
        """
        for left in reversed(range(TRIES)):
            pulse = Pulse()
            try:
                return uvloop.run(_watched(scene, pulse))
            # A row that is not there is no assertion: it cannot be unpacked, or not be found.
            except (AssertionError, LookupError, ValueError):
                if not left or pulse.late_max_s < DISTURBED_S:
                    raise
                self.cancel = asyncio.Event()
        raise AssertionError("unreachable")

    def free_port(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
        """A port nobody has."""
        return free_port(kind)

    def target(self, *, port: int, proto: Proto = Proto.http, address: str = "127.0.0.1", **more: Any) -> Target:
        """A target on loopback."""
        return Target(name=f"t{port}", dst="t", proto=proto, layer=Layer.pod, address=address, port=port, **more)

    def round(
        self, *, rate: float = 200.0, duration_s: float = 0.05, timeout_ms: int = 5000, **more: Any
    ) -> RoundScheduled:
        """A short round, patient with a busy machine: a test that wants a timeout says which."""
        more["expect"] = Expect(status_code=more.pop("status_code", None), rcode=more.pop("rcode", None))
        return RoundScheduled(
            round_id=0xAB,
            number=1,
            task_uid="uid",
            task="netreach/t",
            kind="NetReach",
            start_us=1,
            deadline_us=2,
            duration_s=duration_s,
            rate=rate,
            timeout_ms=timeout_ms,
            members=MembersRef(group="default", epoch=1, digest="", count=2),
            planned=0,
            **more,
        )

    @contextlib.asynccontextmanager
    async def server(
        self, script: Script, *, host: str = "127.0.0.1", ssl: ssl.SSLContext | None = None
    ) -> AsyncIterator[int]:
        """A server that plays `script` on every connection; its port. Nothing of it is left afterwards."""
        playing: set[asyncio.Task[Any]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            playing.add(task)
            try:
                await script(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                playing.discard(task)
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

        server = await asyncio.start_server(serve, host, 0, ssl=ssl, backlog=1024)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            left = list(playing)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await asyncio.sleep(0)

    async def load(
        self,
        *targets: Target,
        requests: int = 1,
        limits: Limits | None = None,
        governor: Governor | None = None,
        source_address: str = "",
        **more: Any,
    ) -> tuple[LoadAccount, list[SimpleNamespace]]:
        """Run `requests` to each target; the account and the rows. The account is checked in every test.

        Unless a test sets limits, what is late is sent late.
        """
        batches: list[SealedBatch] = []
        rows = Rows(on_seal=batches.append, max_rows=7)
        account = await run_load(
            round_=self.round(**more),
            streams=tuple(Stream(target=target, requests=requests) for target in targets),
            agent=self.agent,
            incarnation=1,
            trace_id=os.urandom(16),
            source_address=source_address,
            start_monotonic_us=now_us() + 1000,
            rows=rows,
            cancel=self.cancel,
            limits=limits or Limits(late_limit_us=5_000_000),
            governor=governor,
        )
        rows.seal()
        seen = unpacked(batches)
        assert account.planned == requests * len(targets) + account.further
        assert account.sent == rows.count == len(seen)
        assert account.sent + account.unsent == account.planned
        assert sum(count for _, count in account.unsent_causes) == account.unsent
        assert len({row.seq for row in seen}) == len(seen)
        return account, seen


@pytest.fixture
def lab() -> Lab:
    """A fresh one for each test."""
    return Lab()
