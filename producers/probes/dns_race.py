"""Two DNS queries at the same moment from one new port, as resolver libraries ask for A and AAAA.

Where addresses are translated on the way, both packets of such a pair want to be the first of their connection, and the
one that comes second may be dropped: one answer in time, the other never. Two targets of a round that are `together`
make the pairs; their requests of one planned time share a socket, made for them alone, and are sent back to back. Each
query is a row of its own target. A query whose partner does not come is sent alone after a moment.
"""

import asyncio
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass

from producers.own_sockets import drops_of
from producers.probes.base import LocalTrouble, Setup, bind_source, classify, socket_family
from producers.probes.datagram import Answer, Messages
from producers.rows import Row
from topics.outcome import Outcome

_ALONE_S = 0.005
_DATAGRAM_BYTES = 65_535


class RaceChannel:
    """One half of the pairs. The target has to be an address: a lookup would spoil the moment."""

    def __init__(self, setup: Setup, messages: Messages) -> None:
        self.setup = setup
        self.messages = messages
        self.loop = asyncio.get_running_loop()
        self.family = socket_family(setup.target)
        self._key = ("dns_race", setup.target.address, setup.target.port)
        self._waiting: dict[int, Pair] = setup.shared.setdefault(self._key, {})
        self.open: set[Pair] = set()

    def send(self, seq: int, planned_us: int, sent_us: int) -> None:
        """Start one query: as the first of a pair it waits for the second, a few microseconds."""
        half = Half(self, seq, planned_us, sent_us)
        self.setup.pending[half] = None
        pair = self._waiting.pop(planned_us, None)
        if pair is not None:
            half.pair = pair
            pair.halves.append(half)
            self.open.add(pair)
            pair.go()
            return
        pair = Pair(self._waiting, planned_us, self.loop)
        half.pair = pair
        pair.halves.append(half)
        self.open.add(pair)
        self._waiting[planned_us] = pair

    def close(self) -> None:
        """Close what is open."""
        for pair in list(self.open):
            pair.close()


@dataclass(slots=True, eq=False)
class Half:
    """One query."""

    channel: RaceChannel
    seq: int
    planned_us: int
    sent_us: int
    pair: "Pair | None" = None
    number: int = 0
    gone_out: bool = False

    def end(self, outcome: Outcome, error: str) -> None:
        """End it from outside."""
        self.finish(Answer(outcome, error), 0)

    def finish(self, answer: Answer, size: int) -> None:
        """Report its row; the pair's socket is closed with the second."""
        setup, pair = self.channel.setup, self.pair
        assert pair is not None
        setup.pending.pop(self, None)
        packets = int(self.gone_out)
        took_us = setup.clock() - self.sent_us
        lateness_us = self.sent_us - setup.start_us - self.planned_us
        lost = packets if answer.outcome is Outcome.timeout else 0
        row: Row = (
            *(self.seq, setup.index, self.planned_us, lateness_us, took_us, 0, 0, 0, took_us if size else 0),
            *(answer.outcome, answer.error, answer.status, answer.peer, pair.port),
            *(packets, lost, packets, int(size > 0), 0, 0, self.channel.messages.req_bytes, size, 0, 0),
        )
        pair.ended(self)
        setup.report(row)


class Pair:
    """A socket for two queries."""

    def __init__(self, waiting: "dict[int, Pair]", planned_us: int, loop: asyncio.AbstractEventLoop) -> None:
        self.halves: list[Half] = []
        self.port = 0
        self._waiting = waiting
        self._planned_us = planned_us
        self._loop = loop
        self._sock: socket.socket | None = None
        self._dropped: Callable[[int], None] = lambda _: None
        self._timer: asyncio.TimerHandle | None = loop.call_later(_ALONE_S, self.go)

    def go(self) -> None:
        """Send what there is, back to back."""
        self._stop_waiting()
        if not self.halves:
            return
        first = self.halves[0].channel
        target = first.setup.target
        self._dropped = first.setup.dropped
        try:
            self._sock = sock = socket.socket(first.family, socket.SOCK_DGRAM)
            sock.setblocking(False)
            bind_source(sock, first.setup.source_address)
            sock.connect((target.address, target.port))
            self.port = sock.getsockname()[1]
            self._loop.add_reader(sock.fileno(), self._ready)
        except OSError as error:
            self._failed(error)
            return
        number = random.randrange(1 << 16)
        ready = []
        for half in self.halves:
            number = half.number = number + 1 & 0xFFFF
            ready.append((half, half.channel.messages.request(number, half.seq, half.sent_us)))
        for half, data in ready:
            half.sent_us = half.channel.setup.clock()
            try:
                sock.send(data)
            except OSError as error:
                self._failed(error)
                return
            half.gone_out = True

    def ended(self, half: Half) -> None:
        """One of the two is over."""
        half.channel.open.discard(self)
        if half in self.halves:
            self.halves.remove(half)
        if not self.halves:
            self.close()

    def close(self) -> None:
        """Give the socket back."""
        self._stop_waiting()
        for half in self.halves:
            half.channel.open.discard(self)
        sock, self._sock = self._sock, None
        if sock is not None:
            self._dropped(drops_of(sock.fileno()))
            self._loop.remove_reader(sock.fileno())
            sock.close()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.pop(self._planned_us, None)

    def _ready(self) -> None:
        while self._sock is not None:
            try:
                data = self._sock.recv(_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._failed(error)
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        for half in self.halves:
            messages = half.channel.messages
            if half.gone_out and messages.number(data) == half.number:
                now_us = half.channel.setup.clock()
                half.finish(messages.answer(data, half.number, half.sent_us, now_us), len(data))
                return

    def _failed(self, error: OSError) -> None:
        for half in list(self.halves):
            try:
                outcome, text = classify(error)
            except LocalTrouble as trouble:
                setup = half.channel.setup
                setup.pending.pop(half, None)
                self.ended(half)
                setup.give_up(setup.index, str(trouble))
            else:
                half.finish(Answer(outcome, text), 0)
