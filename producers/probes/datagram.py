"""Requests by datagram: connected sockets, many requests in flight on each, matched by an id. No retry, ever.

A datagram without a reply within the time allowed is one packet lost; which way it was lost, the client cannot say.
An ICMP error tells no id: it ends all that are under way on its socket, since all went to the same port.
"""

import asyncio
import random
import socket
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

from producers.probes.base import LocalTrouble, Setup, bind_source, classify, is_literal, socket_family
from topics.outcome import Outcome

SOCKETS = 4
_IDS = 1 << 16
_DATAGRAM_BYTES = 65_535


class Answer(NamedTuple):
    """A datagram that answers: which request, and its judgement."""

    number: int
    outcome: Outcome
    error: str
    status: int
    peer: str


class Messages(Protocol):
    """The datagrams of a protocol as pure functions."""

    req_bytes: int

    def request(self, number: int, seq: int) -> bytes:
        """The datagram of request `seq`, known by the 16-bit `number`."""

    def answer(self, data: bytes) -> Answer | None:
        """What a datagram answers; None where it is nobody's reply."""


@dataclass(slots=True, eq=False)
class Query:
    """One datagram under way."""

    home: "DatagramSocket"
    number: int
    seq: int
    planned_us: int
    sent_us: int
    dns_us: int = 0
    packets: int = 1

    def end(self, outcome: Outcome, error: str) -> None:
        """End it from outside."""
        self.home.finish(self, outcome, error, 0, "", 0)


class DatagramChannel:
    """A few sockets to one target, used in turn, so that several source ports are seen on the way."""

    def __init__(self, setup: Setup, messages: Messages) -> None:
        self.setup = setup
        self.messages = messages
        self.loop = asyncio.get_running_loop()
        self.sockets: list[DatagramSocket] = []
        self._turn = 0
        self._literal = is_literal(setup.target.address)
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, seq: int, planned_us: int, sent_us: int) -> None:
        """Send one datagram now; a target that is a name is looked up first, for every socket once."""
        if len(self.sockets) < SOCKETS:
            if not self._literal:
                task = self.loop.create_task(self._look_up(seq, planned_us, sent_us))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                return
            if not self._add_socket((self.setup.target.address, self.setup.target.port), seq, planned_us, sent_us):
                return
        self._turn = (self._turn + 1) % len(self.sockets)
        self.sockets[self._turn].send(seq, planned_us, sent_us, 0)

    def close(self) -> None:
        """Close the sockets."""
        for task in list(self._tasks):
            task.cancel()
        for each in self.sockets:
            each.close()
        self.sockets.clear()

    async def _look_up(self, seq: int, planned_us: int, sent_us: int) -> None:
        target = self.setup.target
        waiting = Lookup(self, seq, planned_us, sent_us, cast("asyncio.Task[None]", asyncio.current_task()))
        self.setup.pending[waiting] = None
        try:
            found = await self.loop.getaddrinfo(
                target.address, target.port, family=socket_family(target), type=socket.SOCK_DGRAM
            )
        except (OSError, UnicodeError) as error:
            if self.setup.pending.pop(waiting, waiting) is None:
                waiting.report(*classify(error))
            return
        if self.setup.pending.pop(waiting, waiting) is not None:
            return
        if self._add_socket(cast("tuple[str, int]", found[0][4]), seq, planned_us, sent_us):
            self.sockets[-1].send(seq, planned_us, sent_us, max(1, self.setup.clock() - sent_us))

    def _add_socket(self, address: tuple[str, int], seq: int, planned_us: int, sent_us: int) -> bool:
        try:
            self.sockets.append(DatagramSocket(self, address))
        except OSError as error:
            try:
                outcome, text = classify(error)
            except LocalTrouble as trouble:
                self.setup.give_up(self.setup.index, str(trouble))
            else:
                Lookup(self, seq, planned_us, sent_us, None).report(outcome, text)
            return False
        return True


@dataclass(slots=True, eq=False)
class Lookup:
    """A request whose target's name is being looked up."""

    channel: DatagramChannel
    seq: int
    planned_us: int
    sent_us: int
    task: "asyncio.Task[None] | None"

    def end(self, outcome: Outcome, error: str) -> None:
        """End it from outside: a name that did not come in time is the name service's fault."""
        self.channel.setup.pending.pop(self, None)
        if self.task is not None:
            self.task.cancel()
        if outcome is Outcome.timeout:
            outcome, error = Outcome.dns_error, "name_lookup_timeout"
        self.report(outcome, error)

    def report(self, outcome: Outcome, error: str) -> None:
        """The row of a request that was never a datagram."""
        setup = self.channel.setup
        took_us = setup.clock() - self.sent_us
        lateness_us = self.sent_us - setup.start_us - self.planned_us
        dns_us = took_us if outcome is Outcome.dns_error else 0
        times = (self.planned_us, lateness_us, took_us, dns_us, 0, 0, 0)
        setup.report((self.seq, setup.index, *times, outcome, error, 0, "", *(0,) * 10))


class DatagramSocket:
    """One connected socket and the requests under way on it. Raises OSError when it cannot be made."""

    def __init__(self, channel: DatagramChannel, address: tuple[str, int]) -> None:
        self.channel = channel
        self.queries: dict[int, Query] = {}
        self._next = random.randrange(_IDS)
        self._sock = socket.socket(socket_family(channel.setup.target), socket.SOCK_DGRAM)
        try:
            self._sock.setblocking(False)
            bind_source(self._sock, channel.setup.source_address)
            self._sock.connect(address)
        except OSError:
            self._sock.close()
            raise
        self.port: int = self._sock.getsockname()[1]
        channel.loop.add_reader(self._sock.fileno(), self._ready)

    def send(self, seq: int, planned_us: int, sent_us: int, dns_us: int) -> None:
        """Send one request; its id is free among those under way here."""
        channel = self.channel
        if len(self.queries) >= _IDS // 2:
            channel.setup.give_up(channel.setup.index, "no_free_id")
            return
        number = self._next
        while number in self.queries:
            number = (number + 1) % _IDS
        self._next = (number + 1) % _IDS
        query = Query(self, number, seq, planned_us, sent_us, dns_us)
        data = channel.messages.request(number, seq)
        try:
            try:
                self._sock.send(data)
            except BlockingIOError:
                raise
            except OSError as error:
                # The network's answer to an earlier datagram; this one has not been sent yet.
                self._failed(error)
                self._sock.send(data)
        except BlockingIOError:
            channel.setup.give_up(channel.setup.index, "no_buffers")
            return
        except OSError as error:
            self._not_sent(query, error)
            return
        self.queries[number] = query
        channel.setup.pending[query] = None

    def _not_sent(self, query: Query, error: OSError) -> None:
        setup = self.channel.setup
        query.packets = 0
        try:
            outcome, text = classify(error)
        except LocalTrouble as trouble:
            setup.give_up(setup.index, str(trouble))
            return
        self.finish(query, outcome, text, 0, "", 0)

    def _failed(self, error: OSError) -> None:
        """An ICMP error came back. A closed port refuses all that are under way; another error, the oldest."""
        try:
            outcome, text = classify(error)
        except LocalTrouble:
            return
        hit = list(self.queries.values())
        for query in hit if outcome is Outcome.refused else hit[:1]:
            self.finish(query, outcome, text, 0, "", 0)

    def _ready(self) -> None:
        messages = self.channel.messages
        nothing = True
        while self._sock.fileno() >= 0:
            try:
                data = self._sock.recv(_DATAGRAM_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                self._failed(error)
                nothing = True
                break
            nothing = False
            answer = messages.answer(data)
            query = self.queries.get(answer.number) if answer is not None else None
            if query is not None and answer is not None:
                self.finish(query, answer.outcome, answer.error, answer.status, answer.peer, len(data))
        if nothing:
            # Woken by an error, whoever has read it. uvloop gives up a descriptor after that; watch it anew.
            self.channel.loop.call_soon(self._watch)

    def _watch(self) -> None:
        descriptor = self._sock.fileno()
        if descriptor >= 0:
            self.channel.loop.remove_reader(descriptor)
            self.channel.loop.add_reader(descriptor, self._ready)

    def finish(self, query: Query, outcome: Outcome, error: str, status: int, peer: str, size: int) -> None:
        """Report one request and forget it."""
        setup = self.channel.setup
        done_us = setup.clock()
        self.queries.pop(query.number, None)
        setup.pending.pop(query, None)
        took_us = done_us - query.sent_us
        setup.report(
            (
                query.seq,
                setup.index,
                query.planned_us,
                query.sent_us - setup.start_us - query.planned_us,
                took_us,
                query.dns_us,
                0,
                0,
                took_us - query.dns_us if size else 0,
                outcome,
                error,
                status,
                peer,
                self.port,
                query.packets,
                1 if outcome is Outcome.timeout else 0,
                0,
                0,
                0,
                0,
                self.channel.messages.req_bytes,
                size,
                0,
            )
        )

    def close(self) -> None:
        """Close; no request may be under way."""
        if self._sock.fileno() >= 0:
            self.channel.loop.remove_reader(self._sock.fileno())
            self._sock.close()
