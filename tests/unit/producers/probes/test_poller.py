"""Sockets behind one descriptor of the loop."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from producers.probes.plain_transport import PlainTransport
from producers.probes.poller import READABLE, WRITABLE, EpollPoller, LoopPoller, Poller

Make = Callable[[asyncio.AbstractEventLoop], Poller]


@pytest.fixture(params=[EpollPoller, LoopPoller])
def make(request: pytest.FixtureRequest) -> Make:
    kind: Make = request.param
    return kind


def run(make: Make, scene: Callable[[Poller, socket.socket, socket.socket], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        poller = make(asyncio.get_running_loop())
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            async with asyncio.timeout(30):
                await scene(poller, ours, theirs)
        finally:
            poller.close()
            ours.close()
            theirs.close()

    uvloop.run(main())


def test_what_is_ready_is_said_until_it_is_read(make: Make) -> None:
    async def scene(poller: Poller, ours: socket.socket, theirs: socket.socket) -> None:
        heard: asyncio.Queue[int] = asyncio.Queue()
        poller.watch(ours.fileno(), READABLE, heard.put_nowait)
        theirs.send(b"x")
        assert await heard.get() & READABLE
        assert await heard.get() & READABLE
        ours.recv(10)
        poller.forget(ours.fileno())
        theirs.send(b"y")
        while not heard.empty():
            heard.get_nowait()
        await asyncio.sleep(0.02)
        assert heard.empty()

    run(make, scene)


def test_a_callback_that_fails_does_not_keep_others_from_theirs() -> None:
    async def scene(poller: Poller, ours: socket.socket, theirs: socket.socket) -> None:
        told: list[str] = []
        done = asyncio.Event()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(str(context["exception"])))

        def bad(_: int) -> None:
            poller.forget(ours.fileno())
            raise RuntimeError("bug")

        poller.watch(ours.fileno(), WRITABLE, bad)
        poller.watch(theirs.fileno(), WRITABLE, lambda _: done.set())
        await done.wait()
        await asyncio.sleep(0.01)
        assert told == ["bug"]

    run(EpollPoller, scene)


def test_a_number_given_out_again_is_not_told_of_its_former_life() -> None:
    async def scene(poller: Poller, ours: socket.socket, theirs: socket.socket) -> None:
        more, other = socket.socketpair()
        heard: list[str] = []

        def first(_: int) -> None:
            """Whichever is told first closes the other, and a new socket takes its number."""
            if heard:
                return
            heard.append("first")
            for mine in (ours, more):
                poller.closing(mine.fileno())
            number = more.fileno()
            more.close()
            fresh = socket.socket()
            kept.append(fresh)
            assert fresh.fileno() == number
            poller.watch(number, READABLE, lambda _: heard.append("ghost"))

        kept: list[socket.socket] = []
        poller.watch(ours.fileno(), READABLE, first)
        poller.watch(more.fileno(), READABLE, first)
        theirs.send(b"x")
        other.send(b"x")
        # Both in one turn: nothing has run in between.
        poller._go()  # type: ignore[union-attr]
        assert heard == ["first"]
        other.close()
        kept[0].close()

    run(EpollPoller, scene)


class Told(asyncio.Protocol):
    """Writes down what a transport says."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.heard = asyncio.Event()
        self.stays = False

    def _say(self, event: object) -> None:
        self.events.append(event)
        self.heard.set()

    def data_received(self, data: bytes) -> None:
        self._say(data)

    def eof_received(self) -> bool:
        self._say("eof")
        return self.stays

    def connection_lost(self, exc: Exception | None) -> None:
        self._say(type(exc))


def test_a_transport_reads_to_the_end_and_closes(make: Make) -> None:
    async def scene(poller: Poller, ours: socket.socket, theirs: socket.socket) -> None:
        told = Told()
        transport = PlainTransport(poller=poller, sock=ours, protocol=told)
        theirs.send(b"hello")
        await told.heard.wait()
        told.heard.clear()
        theirs.close()
        await told.heard.wait()
        assert told.events == [b"hello", "eof"]
        assert transport.is_closing()
        await asyncio.sleep(0)
        assert ours.fileno() == -1

    run(make, scene)


def test_a_transport_that_is_to_stay_keeps_its_socket_until_aborted(make: Make) -> None:
    async def scene(poller: Poller, ours: socket.socket, theirs: socket.socket) -> None:
        told = Told()
        told.stays = True
        transport = PlainTransport(poller=poller, sock=ours, protocol=told)
        theirs.close()
        await told.heard.wait()
        await asyncio.sleep(0.01)
        assert told.events == ["eof"]
        assert ours.fileno() >= 0
        transport.abort()
        transport.abort()
        assert ours.fileno() == -1

    run(make, scene)


def test_a_reset_is_told_with_the_socket_still_open(make: Make) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        poller, told = make(loop), Told()
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
            theirs, _ = server.accept()
            ours.setblocking(False)
            transport = PlainTransport(poller=poller, sock=ours, protocol=told)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            theirs.close()
            async with asyncio.timeout(30):
                await told.heard.wait()
            assert told.events == [ConnectionResetError]
            assert transport.is_closing()
            assert ours.fileno() >= 0
            transport.abort()
        poller.close()

    uvloop.run(main())


def test_what_does_not_fit_is_sent_when_there_is_room(make: Make) -> None:
    async def scene(poller: Poller, ours: socket.socket, theirs: socket.socket) -> None:
        transport = PlainTransport(poller=poller, sock=ours, protocol=Told())
        theirs.setblocking(False)
        data = bytes(1_000_000)
        transport.write(data[ours.send(data) :])
        assert transport.get_write_buffer_size() > 0
        received = 0
        while received < len(data):
            received += len(await asyncio.get_running_loop().sock_recv(theirs, 1 << 20))
        assert transport.get_write_buffer_size() == 0
        transport.abort()

    run(make, scene)
