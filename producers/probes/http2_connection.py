"""One HTTP/2 connection: opened, filled with requests, emptied; what it sent is counted to the requests' rows."""

import asyncio
import errno
import socket
from typing import TYPE_CHECKING, cast

from producers.probes import tcp_info
from producers.probes.base import BadReply, Closed, bind_source
from producers.probes.codec import Reply
from producers.probes.connection import STALE_IDLE_US
from producers.probes.http2_request import Http2Request
from producers.probes.http2_session import Session
from producers.probes.http_reply import Message
from producers.probes.marking import set_dscp
from producers.probes.tcp_info import RETRANS
from topics.outcome import Outcome

if TYPE_CHECKING:
    from producers.probes.http2 import Http2Channel

# A server that makes us answer (PING, SETTINGS) and does not read what we say.
_UNREAD_BYTES = 1 << 20
# How often a request is sent again that the server has not begun with.
MAX_RESENDS = 3


class Http2Connection(asyncio.Protocol):
    """One connection. `queue` waits for it to open and settle; `streams` are under way on it."""

    def __init__(self, channel: "Http2Channel") -> None:
        self.channel = channel
        self.queue: list[Http2Request] = []
        self.streams: dict[int, Http2Request] = {}
        self.opening = True
        self.retired = False
        self.sock: socket.socket | None = None
        self.transport: asyncio.Transport | None = None
        self.session = Session(self)
        self.port = 0
        self.begun_us = channel.setup.clock()
        self._lost: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._shut = False
        self._served = self._begun = 0
        self._heard_us = 0
        self._idle_since_us = 0
        self._before = tcp_info.NOTHING
        self._told = False
        self._opening_retrans = 0
        self._held: list[tuple[Http2Request, Reply, int]] = []
        self._timer: asyncio.TimerHandle | None = None

    # --- opening ---

    def open(self) -> None:
        """Connect; who waits in `queue` is told of it."""
        self._task = self.channel.loop.create_task(self._open())
        self._task.add_done_callback(self._opened)

    async def _open(self) -> None:
        channel, plan = self.channel, self.channel.plan
        target, clock, first = channel.setup.target, channel.setup.clock, self.queue[0]
        address: tuple[object, ...] = (target.address, target.port)
        begun_us = clock()
        if not channel.literal:
            found = await channel.loop.getaddrinfo(
                target.address, target.port, family=channel.family, type=socket.SOCK_STREAM
            )
            address, now_us = found[0][4], clock()
            first.dns_us, begun_us = max(1, now_us - begun_us), now_us
        self.sock = sock = socket.socket(channel.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        set_dscp(sock, plan.dscp)
        bind_source(sock, channel.setup.source_address)
        code = sock.connect_ex(address)
        self.port = sock.getsockname()[1]
        if code == errno.EINPROGRESS:
            await self._handshake(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, "connect")
        now_us = clock()
        first.connect_us, begun_us = max(1, now_us - begun_us), now_us
        self._opening_retrans = tcp_info.read(sock)[RETRANS]
        name = plan.server_name if plan.tls is not None else None
        await channel.loop.create_connection(lambda: self, sock=sock, ssl=plan.tls, server_hostname=name)
        assert self.transport is not None
        if plan.tls is not None:
            first.tls_us = max(1, clock() - begun_us)
            tls = self.transport.get_extra_info("ssl_object")
            if tls.selected_alpn_protocol() != "h2":
                raise BadReply("http2_not_negotiated")

    async def _handshake(self, sock: socket.socket) -> None:
        loop = self.channel.loop
        over = asyncio.Event()
        loop.add_writer(sock.fileno(), over.set)
        try:
            await over.wait()
        finally:
            loop.remove_writer(sock.fileno())

    def _opened(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            if self.transport is None and self.sock is not None:
                self.sock.close()
            return
        self.opening = False
        queue = self.queue
        if not queue:
            self.shut()
            return
        error = task.exception() or self._lost
        if error is not None:
            self.queue = []
            for request in queue:
                request.connection = self
                request.failed(error)
            self.shut()
            return
        first, self.queue = queue[0], queue[1:]
        self.begin(first)
        self._drain()

    def _drain(self) -> None:
        """Send what waited, as soon as the server has said how much it takes."""
        if self.opening or not self.session.settled or not self.queue:
            return
        now_us = self.channel.setup.clock()
        queue, self.queue = self.queue, []
        for request in queue:
            request.connect_us = max(1, now_us - request.sent_us)
            if self.has_room():
                self.begin(request)
            else:
                self.channel.place(request)

    # --- requests ---

    @property
    def joinable(self) -> bool:
        """Whether to wait here until it is known how much the server takes."""
        return self.opening or not (self.session.settled or self.retired or self._shut)

    def has_room(self) -> bool:
        """Whether it takes another request now."""
        usable = not (self.opening or self.retired or self._shut)
        return usable and self.session.room > 0 and not (self.channel.plan.single and self._begun)

    def begin(self, request: Http2Request) -> None:
        """Send a request."""
        plan = self.channel.plan
        request.connection = self
        if not self.streams:
            self._idle_since_us = self._idle_since_us or request.sent_us
        try:
            request.stream = self.session.begin(plan.headers(request.seq), plan.body)
        except BadReply:
            # All numbers of streams are used up.
            self.retired = True
            request.connection = None
            self.channel.place(request)
            return
        self._begun += 1
        self.streams[request.stream] = request
        request.written_us = self.channel.setup.clock()
        self._write()

    def ended(self, request: Http2Request, reply: Reply, done_us: int) -> None:
        """A request has ended, from inside or outside; nothing of it is left here."""
        if self.streams.pop(request.stream, None) is None:
            return
        self.session.cancel(request.stream)
        if reply.outcome is Outcome.timeout and self._heard_us < request.written_us:
            # Nothing at all came meanwhile: the next request tries another connection.
            self.retired = True
        self.charged(request, reply, done_us)
        self._write()
        self._after()

    def _after(self) -> None:
        if not self.streams:
            self._idle_since_us = self.channel.setup.clock()
            if self.retired or self.session.last_allowed is not None or (self.channel.plan.single and self._begun):
                self.shut()
        if self.channel.waiting:
            self.channel.advance()

    # --- what the session tells ---

    def began(self, stream: int) -> None:
        """The head of a reply is here."""
        request = self.streams.get(stream)
        if request is not None and not request.first_us:
            request.first_us = self.channel.setup.clock()

    def replied(self, stream: int, message: Message) -> None:
        """A whole reply."""
        self._served += 1
        self._end(stream, self.channel.plan.judge(message))

    def reset(self, stream: int, error: str, *, unseen: bool) -> None:
        """The server gave a request up."""
        request = self.streams.get(stream)
        if request is not None and unseen and request.attempt < MAX_RESENDS:
            del self.streams[stream]
            self.retired = True
            request.again()
        else:
            self._end(stream, Reply(Outcome.reset, error, 0, "", 0, False))

    def spoiled(self, stream: int, error: str) -> None:
        """A reply that breaks the rules."""
        self._end(stream, Reply(Outcome.bad_reply, error, 0, "", 0, False))

    def _end(self, stream: int, reply: Reply) -> None:
        request = self.streams.get(stream)
        if request is not None:
            self.ended(request, reply, self.channel.setup.clock())

    # --- the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open; the preface goes out with the first request."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes from the server."""
        if self._shut:
            return
        self._heard_us = self.channel.setup.clock()
        try:
            self.session.feed(data)
        except BadReply as error:
            self._write()
            self._over(error)
            return
        self._write()
        self._drain()
        if not self._shut:
            self._after()

    def eof_received(self) -> None:
        """The server has ended the connection."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self.opening:
            self._lost = exc or Closed()
        else:
            self._over(exc or Closed())

    def _over(self, error: BaseException) -> None:
        """No request on it can be answered any more."""
        streams, self.streams = self.streams, {}
        self.retired = True
        for request in streams.values():
            if self._stale(request, error):
                request.again()
            else:
                request.failed(error)
        self.shut()

    def _stale(self, request: Http2Request, error: BaseException) -> bool:
        return (
            self._served > 0
            and not request.attempt
            and isinstance(error, ConnectionError)
            and self._heard_us < request.written_us
            and request.sent_us - self._idle_since_us >= STALE_IDLE_US
            and self.channel.plan.repeatable
        )

    def _write(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        data = self.session.out()
        if data:
            self.transport.write(data)
            if self.transport.get_write_buffer_size() > _UNREAD_BYTES + len(self.channel.plan.body):
                self._over(BadReply("frame_flood"))

    # --- rows ---

    def charged(self, request: Http2Request, reply: Reply, done_us: int) -> None:
        """Report a request with what the connection sent since the last one; later, where the peer may still say that
        it had a segment twice."""
        self.channel.setup.pending.pop(request, None)
        if self.sock is None:
            request.report(reply, done_us)
            return
        info = tcp_info.read(self.sock)
        if not self._shut and (
            self._held or info[RETRANS] != self._before[RETRANS] + (0 if self._told else self._opening_retrans)
        ):
            self._held.append((request, reply, done_us))
            if self._timer is None:
                self._timer = self.channel.loop.call_later(tcp_info.dsack_wait_s(info), self._settle)
            return
        self._tell(request, reply, done_us, info)

    def _settle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        for request, reply, done_us in held:
            info = tcp_info.read(self.sock) if self.sock is not None else tcp_info.NOTHING
            self._tell(request, reply, done_us, info)

    def _tell(self, request: Http2Request, reply: Reply, done_us: int, info: tcp_info.Info) -> None:
        if info == tcp_info.NOTHING:
            # Closed already: what it sent last, nobody knows any more.
            info = self._before
        packets = tcp_info.packets(
            self._before,
            info,
            opened=not self._told,
            opening_retrans=self._opening_retrans if self.transport is not None else info[RETRANS],
            timed_out=reply.outcome is Outcome.timeout,
        )
        self._before, self._told = info, True
        request.report(reply, done_us, packets, self.port)

    def shut(self) -> None:
        """Close; rows that wait are reported first."""
        self._settle()
        if self._shut:
            return
        self._shut = self.retired = True
        if self in self.channel.connections:
            self.channel.connections.remove(self)
        queue, self.queue = self.queue, []
        opening, self.opening = self.opening, False
        if opening and self._task is not None and not self._task.done():
            self._task.cancel()
        if self.transport is not None:
            self.transport.abort()
        elif self.sock is not None and not opening:
            self.sock.close()
        for request in queue:
            self.channel.place(request)
