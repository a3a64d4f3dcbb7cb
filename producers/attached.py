"""`python -m producers.attached`: an agent without Kafka, for a check of a cluster that has nothing installed.

It answers its peers like any agent, and waits on a socket in its spool folder. `python -m producers.attached relay`,
started beside it (by `kubectl exec`), joins its own standard input and output to that socket. Over it go the same
records as over the topics, a line each (`topics.wire`): memberships and rounds come in, batches, receipts and accounts
go out; each is kept until it is acknowledged, so a stream that broke loses nothing: attach again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from topics import wire
from topics.follow import Followed
from topics.spec import InvalidMessage, Topic

log = logging.getLogger("producers.attached")

R = TypeVar("R")
SOCKET = "attach.sock"
LINE_BYTES = 16 << 20


class AttachedLine:
    """A line to whoever is attached, one at a time; the newest wins. `sender` and `hear` as in `producers.line`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: asyncio.StreamWriter | None = None
        self._number = 0
        self._unsettled: dict[int, tuple[bytes, asyncio.Future[None]]] = {}
        self._heard: dict[str, asyncio.Queue[wire.Frame]] = {}
        self.repeats = 0

    @property
    def sender(self) -> AttachedLine:
        """Itself: what is sent goes to whoever is attached."""
        return self

    @property
    def reachable(self) -> bool:
        """Whether somebody is attached."""
        return self._writer is not None

    async def send(self, *, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Return when it was acknowledged; said again to whoever attaches next."""
        self._number += 1
        line = wire.encode(wire.Frame(number=self._number, topic=topic, key=key, value=value, headers=tuple(headers)))
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unsettled[self._number] = (line, settled)
        self._write(line)
        try:
            await settled
        finally:
            self._unsettled.pop(self._number, None)

    def _write(self, line: bytes) -> None:
        if self._writer is not None:
            self._writer.write(line)

    async def hear(self, topic: Topic[R], *, as_name: str) -> AsyncIterator[Followed[R]]:
        """Records of that topic as they are handed in; nothing stands before them."""
        queue = self._heard.setdefault(topic.name, asyncio.Queue())
        yield Followed(record=None, partition=0, offset=-1, timestamp_ms=0, caught_up=True)
        offset = 0
        while True:
            frame = await queue.get()
            try:
                record = topic.decode(frame.value)
            except InvalidMessage as error:
                log.error("event=record_refused topic=%s as=%s why=%r", topic.name, as_name, str(error))
                continue
            yield Followed(
                record=record, partition=0, offset=offset, timestamp_ms=time.time_ns() // 1_000_000, caught_up=True
            )
            offset += 1

    async def run(self) -> None:
        """Wait for those who attach, until cancelled."""
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._attached, str(self._path), limit=LINE_BYTES)
        self._path.chmod(0o600)
        log.info("event=waits_to_be_attached socket=%s", self._path)
        async with server:
            await server.serve_forever()

    async def _attached(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = writer
        for line, _ in self._unsettled.values():
            self.repeats += 1
            writer.write(line)
        try:
            async for line in reader:
                self._take(wire.decode(line))
        except (ConnectionError, ValueError, asyncio.IncompleteReadError) as error:
            log.warning("event=attachment_broken why=%r", str(error))
        finally:
            if self._writer is writer:
                self._writer = None
            writer.close()

    def _take(self, frame: wire.Frame) -> None:
        if not frame.topic:
            _, settled = self._unsettled.get(frame.number, (b"", None))
            if settled is not None and not settled.done():
                settled.set_result(None)
            return
        self._heard.setdefault(frame.topic, asyncio.Queue()).put_nowait(frame)


def relay(path: Path) -> int:
    """Join standard input and output to the agent's socket until either side ends. 0, or 3 where no agent waits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        try:
            agent.connect(str(path))
        except OSError as error:
            print(f"relay: {path}: {error.strerror or error}", file=sys.stderr)
            return 3
        threading.Thread(target=_copy_in, args=(agent,), daemon=True).start()
        with contextlib.suppress(OSError):
            while data := agent.recv(1 << 16):
                os.write(1, data)
    return 0


def _copy_in(agent: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(0, 1 << 16):
            agent.sendall(data)
        agent.shutdown(socket.SHUT_WR)


def main(arguments: Sequence[str]) -> int:
    """The agent, or with `relay` the way to it; exit code as of `python -m producers`."""
    if list(arguments) == ["relay"]:
        return relay(Path(os.environ.get("KPATROL_SPOOL_DIR", ".")) / SOCKET)
    from producers.__main__ import serve

    def attached(config: Any) -> AttachedLine:
        return AttachedLine(config.spool_dir / SOCKET)

    return serve(attached, with_kafka=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
