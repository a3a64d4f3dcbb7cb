"""Many sockets behind one descriptor of the event loop: what is ready is handed out in one go.

The event loop's own way costs a handle for each socket, made and freed with it; to a connection that lives for one
request that is a third of its price. On Linux an epoll of ours is watched by the loop instead. Level-triggered: what a
callback leaves unread is said again.
"""

import asyncio
import select
from collections.abc import Callable
from typing import TypeAlias

READABLE, WRITABLE = 1, 4  # as EPOLLIN and EPOLLOUT
BROKEN = 8 | 16  # as EPOLLERR and EPOLLHUP, said unasked
_TURN = 256

Ready: TypeAlias = Callable[[int], None]


class EpollPoller:
    """An epoll watched by the loop. Raises OSError where there is no descriptor for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._callbacks: dict[int, Ready] = {}
        self._fresh: set[int] = set()
        self._in_turn = False
        loop.add_reader(self._epoll.fileno(), self._go)

    def watch(self, descriptor: int, events: int, ready: Ready) -> None:
        """Call `ready(events)` when one of these, or an error, is there; replaces what was watched before."""
        if descriptor in self._callbacks:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
            if self._in_turn:
                self._fresh.add(descriptor)
        self._callbacks[descriptor] = ready

    def forget(self, descriptor: int) -> None:
        """Watch it no more; it stays open."""
        if self._callbacks.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def closing(self, descriptor: int) -> None:
        """The same for a descriptor that is closed right after: the kernel forgets it by itself."""
        self._callbacks.pop(descriptor, None)

    def close(self) -> None:
        """Give the descriptor back."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
        self._callbacks.clear()

    def _go(self) -> None:
        callbacks, fresh = self._callbacks, self._fresh
        self._in_turn = True
        for descriptor, events in self._epoll.poll(0, _TURN):
            ready = callbacks.get(descriptor)
            # A number closed and given out again within this turn: what is said here was about the old one.
            if ready is not None and descriptor not in fresh:
                try:
                    ready(events)
                except Exception as error:
                    # One connection's bug is not the others'.
                    self._loop.call_exception_handler({"message": "event=socket_callback_failed", "exception": error})
        self._in_turn = False
        fresh.clear()


class LoopPoller:
    """The loop's own way, where there is no epoll."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: dict[int, int] = {}

    def watch(self, descriptor: int, events: int, ready: Ready) -> None:
        """As EpollPoller.watch."""
        self.forget(descriptor)
        self._watched[descriptor] = events
        if events & READABLE:
            self._loop.add_reader(descriptor, ready, READABLE)
        if events & WRITABLE:
            self._loop.add_writer(descriptor, ready, WRITABLE)

    def forget(self, descriptor: int) -> None:
        """As EpollPoller.forget."""
        events = self._watched.pop(descriptor, 0)
        if events & READABLE:
            self._loop.remove_reader(descriptor)
        if events & WRITABLE:
            self._loop.remove_writer(descriptor)

    closing = forget

    def close(self) -> None:
        """Watch nothing any more."""
        for descriptor in list(self._watched):
            self.forget(descriptor)


Poller: TypeAlias = EpollPoller | LoopPoller


def poller(loop: asyncio.AbstractEventLoop) -> Poller:
    """The best that this machine has."""
    return EpollPoller(loop) if hasattr(select, "epoll") else LoopPoller(loop)
