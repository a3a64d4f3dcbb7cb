"""Requests by datagram: connected sockets, many requests in flight on each, matched by a number. No retry, ever.

A datagram without a reply within the time allowed is one packet lost; which way it was lost, only a protocol whose
replies tell can say. An ICMP error quotes the packet it is about and ends that request alone; a closed port ends all
that are under way on the socket, since all went to that port.
"""

import asyncio
import errno
import itertools
import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

from producers.own_sockets import drops_of
from producers.probes import marking, net_errors
from producers.probes.base import ATTEMPT, LocalTrouble, Setup, bind_source, classify, is_literal, socket_family
from producers.probes.poller import READABLE
from topics.outcome import Outcome

SOCKETS = 4
_IDS = 1 << 16
_DATAGRAM_BYTES = 65_535


class Answer(NamedTuple):
    """What a datagram that answers a request says. `resp_bytes` -1 means the datagram's whole length; `min_rtt_us` is
    the round trip without the time the target took, `there_us` the way there; 0 where unknown."""

    outcome: Outcome
    error: str = ""
    status: int = 0
    peer: str = ""
    resp_bytes: int = -1
    min_rtt_us: int = 0
    there_us: int = 0


class Messages(Protocol):
    """The datagrams of a protocol as pure functions."""

    req_bytes: int

    def numbers(self) -> Iterator[int]:
        """The numbers by which a new socket knows its requests; without end."""

    def request(self, number: int, seq: int, sent_us: int) -> bytes:
        """The datagram of request `seq`, known by `number`, sent at `sent_us` of the load's clock."""

    def number(self, data: bytes) -> int | None:
        """Which request a datagram answers; None where it is nobody's reply."""

    def answer(self, data: bytes, number: int, sent_us: int, now_us: int) -> Answer:
        """The judgement of a datagram whose `number` is that of a request under way."""

    def quoted(self, data: bytes) -> int | None:
        """Which request an ICMP error is about, from what it quotes; None where that does not tell."""

    def silence(self, number: int) -> str:
        """The error of a request that had no answer in time."""


class Numbered:
    """What protocols with a 16-bit id and replies that tell nothing else have in common."""

    def numbers(self) -> Iterator[int]:
        """Every id in turn, from a random one on."""
        first = random.randrange(_IDS)
        return (number % _IDS for number in itertools.count(first))

    def silence(self, number: int) -> str:
        """Nothing but that the time is over."""
        return "timeout"


def udp_socket(family: socket.AddressFamily, source_address: str) -> socket.socket:
    """A socket that sends from there. Raises OSError."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        bind_source(sock, source_address)
    except OSError:
        sock.close()
        raise
    return sock


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """How a channel's sockets are made. `ports` of them are used in turn, so that several source ports are seen on the
    way; `whole` packets are never fragmented."""

    make: Callable[[socket.AddressFamily, str], socket.socket] = udp_socket
    ports: int = SOCKETS
    dscp: int = 0
    whole: bool = False


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
        if outcome is Outcome.timeout:
            error = self.home.channel.messages.silence(self.number)
        self.home.finish(self, Answer(outcome, error), 0)


class DatagramChannel:
    """A few sockets to one target, used in turn."""

    def __init__(self, setup: Setup, messages: Messages, wire: Wire | None = None) -> None:
        self.setup = setup
        self.messages = messages
        self.wire = wire or Wire()
        self.loop = asyncio.get_running_loop()
        self.sockets: list[DatagramSocket] = []
        self._turn = 0
        self._literal = is_literal(setup.target.address)
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, seq: int, planned_us: int, sent_us: int) -> None:
        """Send one datagram now; a target that is a name is looked up first, for every socket once."""
        if len(self.sockets) < self.wire.ports:
            if not self._literal:
                task = self.loop.create_task(self._look_up(seq, planned_us, sent_us))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                return
            if not self._add_socket((self.setup.target.address, self.setup.target.port), seq, planned_us, sent_us):
                return
        self._turn = (self._turn + 1) % len(self.sockets)
        self.sockets[self._turn].send(seq, planned_us, sent_us, 0)

    def follow(self, query: "Query", answer: Answer) -> Callable[[], None] | None:
        """What to do after this one's row, if anything: a further attempt, whose row has its number by then."""
        return None

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
            try:
                self.sockets.append(DatagramSocket(self, address))
                return True
            except OSError as error:
                outcome, text = classify(error)
        except LocalTrouble as trouble:
            self.setup.give_up(self.setup.index, str(trouble))
        else:
            Lookup(self, seq, planned_us, sent_us, None).report(outcome, text)
        return False


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
        setup.report((self.seq, setup.index, *times, outcome, error, 0, "", *(0,) * 11))


class DatagramSocket:
    """One connected socket and the requests under way on it. Raises OSError or LocalTrouble when it cannot be made."""

    def __init__(self, channel: DatagramChannel, address: tuple[str, int]) -> None:
        self.channel = channel
        self.queries: dict[int, Query] = {}
        # Datagrams that came and answered nobody under way: copies, and replies after their time.
        self.unasked = 0
        self._numbers = channel.messages.numbers()
        wire = channel.wire
        self._sock = wire.make(socket_family(channel.setup.target), channel.setup.source_address)
        try:
            self._sock.setblocking(False)
            marking.keep_errors(self._sock)
            marking.set_dscp(self._sock, wire.dscp)
            if wire.whole:
                marking.never_fragment(self._sock)
            self._sock.connect(address)
        except OSError:
            self._sock.close()
            raise
        self.port: int = self._sock.getsockname()[1]
        self._recv = self._sock.recv
        channel.setup.poller.watch(self._sock.fileno(), READABLE, self._ready)

    def send(self, seq: int, planned_us: int, sent_us: int, dns_us: int) -> None:
        """Send one request; its number is free among those under way here."""
        channel = self.channel
        if len(self.queries) >= _IDS // 2:
            channel.setup.give_up(channel.setup.index, "no_free_id")
            return
        number = next(self._numbers)
        while number in self.queries:
            number = next(self._numbers)
        query = Query(self, number, seq, planned_us, sent_us, dns_us)
        data = channel.messages.request(number, seq, sent_us)
        mtu = 0
        try:
            try:
                self._sock.send(data)
            except BlockingIOError:
                raise
            except OSError as error:
                # The network's answer to an earlier datagram, or our own kernel's to this one: try once more.
                mtu = self._errors(error)
                self._sock.send(data)
        except BlockingIOError:
            channel.setup.give_up(channel.setup.index, "no_buffers")
            return
        except OSError as error:
            self._not_sent(query, error, mtu)
            return
        self.queries[number] = query
        channel.setup.pending[query] = None

    def _not_sent(self, query: Query, error: OSError, mtu: int) -> None:
        setup = self.channel.setup
        query.packets = 0
        for found in net_errors.pending(self._sock):
            mtu = found.mtu or mtu
        try:
            outcome, text = classify(error)
        except LocalTrouble as trouble:
            setup.give_up(setup.index, str(trouble))
            return
        self.finish(query, Answer(outcome, text, min(mtu, 0xFFFF)), 0)

    def _errors(self, error: OSError | None) -> int:
        """Errors came back: end whom they are about. The path MTU that our own kernel names, 0 where it does not."""
        mtu = 0
        told = error is None or error.errno == errno.EMSGSIZE
        for found in net_errors.pending(self._sock):
            told = True
            if found.origin == net_errors.LOCAL:
                mtu = found.mtu
                continue
            number = self.channel.messages.quoted(found.quote)
            self._failed(OSError(found.error, "network"), number, text=found.text, mtu=found.mtu)
        if error is not None and not told:
            self._failed(error, None)
        return mtu

    def _failed(self, error: OSError, number: int | None, *, text: str = "", mtu: int = 0) -> None:
        """An ICMP error: a closed port refuses all that are under way; another error, the one it names, else the
        oldest."""
        try:
            outcome, errors_text = classify(error)
        except LocalTrouble:
            return
        if outcome is Outcome.refused:
            hit = list(self.queries.values())
        elif number is not None:
            hit = [self.queries[number]] if number in self.queries else []
        else:
            hit = list(self.queries.values())[:1]
        for query in hit:
            self.finish(query, Answer(outcome, text or errors_text, min(mtu, 0xFFFF)), 0)

    def _ready(self, _: int) -> None:
        """One datagram or one error; what else is there is said again."""
        try:
            data = self._recv(_DATAGRAM_BYTES)
        except BlockingIOError:
            # Woken by an error whose other trace somebody has read.
            self._errors(None)
        except OSError as error:
            self._errors(error)
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        messages = self.channel.messages
        number = messages.number(data)
        if number is None:
            return
        query = self.queries.get(number)
        if query is None:
            self.unasked += 1
            return
        now_us = self.channel.setup.clock()
        self.finish(query, messages.answer(data, number, query.sent_us, now_us), len(data), now_us)

    def finish(self, query: Query, answer: Answer, size: int, done_us: int = 0) -> None:
        """Report one request and forget it; `size` is that of its reply, 0 where there is none. It ended just now, or
        at `done_us`."""
        setup = self.channel.setup
        done_us = done_us or setup.clock()
        self.queries.pop(query.number, None)
        setup.pending.pop(query, None)
        took_us = done_us - query.sent_us
        came, self.unasked = self.unasked + (size > 0), 0
        then = self.channel.follow(query, answer)
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
                answer.outcome,
                answer.error,
                answer.status,
                answer.peer,
                self.port,
                query.packets,
                1 if answer.outcome is Outcome.timeout else 0,
                query.packets,
                came,
                0,
                answer.min_rtt_us,
                self.channel.messages.req_bytes,
                size if answer.resp_bytes < 0 else answer.resp_bytes,
                query.seq // ATTEMPT,
                answer.there_us,
            )
        )
        if then is not None:
            then()

    def close(self) -> None:
        """Close; no request may be under way."""
        if self._sock.fileno() >= 0:
            self.channel.setup.dropped(drops_of(self._sock.fileno()))
            self.channel.setup.poller.forget(self._sock.fileno())
            self._sock.close()
