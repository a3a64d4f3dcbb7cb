"""One TCP or TLS connection: connect, keep, time, count segments. What is said on it is a codec's job.

A request on a kept connection that the server had just closed for idleness says nothing about the network. Only where
all of this holds is it sent once more, on a new connection, and its row says `attempt` 1: the connection had served
before and then lay idle for a second or more, not one byte of a reply came, and the codec calls the request repeatable.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, cast

from producers.probes import tcp_info
from producers.probes.base import BadReply, Closed, LocalTrouble, classify
from producers.probes.codec import Codec, Reply
from producers.probes.plain_transport import PlainTransport
from producers.probes.poller import WRITABLE
from producers.probes.tcp_info import DATA_SEGS_OUT, DSACK_DUPS, MIN_RTT, RETRANS, SEGS_IN, SEGS_OUT
from producers.probes.tcp_socket import tcp_socket
from topics.outcome import Outcome

if TYPE_CHECKING:
    from producers.probes.stream import StreamChannel

STALE_IDLE_US = 1_000_000


class StreamConnection(asyncio.Protocol):
    """One connection, and the request that is on it."""

    __slots__ = (
        "attempt",
        "before",
        "buffered",
        "busy",
        "channel",
        "codec",
        "connect_us",
        "dns_us",
        "first_us",
        "held",
        "idle_since_us",
        "opened",
        "opening_retrans",
        "planned_us",
        "port",
        "sent_us",
        "seq",
        "served",
        "sock",
        "task",
        "tls_us",
        "transport",
        "written_us",
    )

    def __init__(self, channel: "StreamChannel") -> None:
        self.channel = channel
        self.codec: Codec | None = None
        self.sock: socket.socket | None = None
        self.transport: asyncio.Transport | PlainTransport | None = None
        self.task: asyncio.Task[None] | None = None
        self.held: tuple[asyncio.TimerHandle, int, Reply] | None = None
        self.busy = False
        self.buffered = False
        self.opened = True
        self.served = 0
        self.idle_since_us = 0
        self.port = 0
        self.before = tcp_info.NOTHING
        self.opening_retrans = 0
        self.dns_us = self.connect_us = self.tls_us = 0
        channel.open.add(self)

    # --- a request's way out ---

    def begin(self, seq: int, planned_us: int, sent_us: int, attempt: int) -> None:
        """Take a request: write it, or open the connection first."""
        self.seq = seq
        self.planned_us = planned_us
        self.sent_us = sent_us
        self.attempt = attempt
        self.first_us = 0
        self.busy = True
        pending = self.channel.pending
        pending[self] = None
        if attempt:
            # Its deadline counts from the first attempt, so it comes before all that were sent since.
            pending.move_to_end(self, last=False)
        if self.transport is not None:
            self.opened = False
            self.written_us = sent_us
            self._write()
            return
        self.written_us = sent_us
        if self.channel.literal:
            # Now, not in a later turn: the SYN leaves at the time the row says.
            target = self.channel.setup.target
            self._dial((target.address, target.port))
        else:
            self._aside(self._look_up())

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        self.task = self.channel.loop.create_task(work)
        self.task.add_done_callback(self._aside_done)

    def _aside_done(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            # Not in the task itself: one that is cancelled before its first turn never enters its own clean-up.
            if self.transport is None and self.sock is not None:
                self.sock.close()
        elif (error := task.exception()) is not None and self.busy and self.transport is None:
            self._failed(error)

    async def _look_up(self) -> None:
        channel = self.channel
        target = channel.setup.target
        found = await channel.loop.getaddrinfo(
            target.address, target.port, family=channel.family, type=socket.SOCK_STREAM
        )
        self.dns_us = max(1, channel.clock() - self.sent_us)
        self._dial(found[0][4])

    def _dial(self, address: tuple[object, ...]) -> None:
        """Send the SYN."""
        channel = self.channel
        self.written_us = channel.clock()
        try:
            source_address = channel.setup.source_address
            self.sock = sock = tcp_socket(family=channel.family, wire=channel.wire, source_address=source_address)
            code = sock.connect_ex(address)
            # Asked for now: a refused socket forgets its port.
            self.port = sock.getsockname()[1]
        except OSError as error:
            self._failed(error)
            return
        if code == errno.EINPROGRESS:
            channel.poller.watch(sock.fileno(), WRITABLE, self._dialled)
        else:
            self._connected(code)

    def _dialled(self, _: int) -> None:
        assert self.sock is not None
        self._connected(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _connected(self, code: int) -> None:
        """The handshake is over, with the system's code of how."""
        channel, sock = self.channel, self.sock
        assert sock is not None
        wire = channel.wire
        if code or wire.codec is None or wire.tls is not None:
            channel.poller.forget(sock.fileno())
        if code:
            self._failed(OSError(code, "connect"))
            return
        now_us = channel.clock()
        self.connect_us = max(1, now_us - self.written_us)
        self.written_us = now_us
        self.opening_retrans = tcp_info.read(sock)[RETRANS]
        if wire.codec is None:
            self._finish(Reply(Outcome.ok, "", 0, "", 0, False), now_us)
            return
        self.codec = wire.codec()
        # From here on the transport speaks: connection_made writes the request.
        if wire.tls is None:
            self.connection_made(PlainTransport(poller=channel.poller, sock=sock, protocol=self))
        else:
            self._aside(self._secure(sock, wire.tls))

    async def _secure(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        name = self.channel.wire.server_name or self.channel.setup.target.address
        await self.channel.loop.create_connection(lambda: self, sock=sock, ssl=context, server_hostname=name)

    def _write(self) -> None:
        assert self.codec is not None
        assert self.transport is not None
        data = self.codec.request(self.seq)
        if self.channel.wire.tls is not None:
            self.transport.write(data)
            return
        # Straight to the kernel: the transport would hold it back to the end of the loop's turn.
        assert self.sock is not None
        try:
            written = self.sock.send(data)
        except BlockingIOError:
            written = 0
        except OSError as error:
            self._failed(error)
            return
        if written < len(data):
            self.buffered = True
            self.transport.write(data[written:])

    # --- the reply's way in (called by the loop) ---

    def connection_made(self, transport: asyncio.BaseTransport | PlainTransport) -> None:
        """Open, with TLS where asked for: the request goes out."""
        self.transport = cast("asyncio.Transport | PlainTransport", transport)
        if not self.busy:
            self.transport.abort()
            return
        if self.channel.wire.tls is not None:
            now_us = self.channel.setup.clock()
            self.tls_us = max(1, now_us - self.written_us)
            self.written_us = now_us
        self._write()

    def data_received(self, data: bytes) -> None:
        """Bytes of the reply."""
        codec = self.codec
        if not self.busy or codec is None:
            # Nobody asked: whatever it is, this connection cannot be trusted with the next request.
            if self.held is None:
                self.shut()
            else:
                timer, done_us, told = self.held
                self.held = (timer, done_us, told._replace(reusable=False))
            return
        now_us = self.channel.clock()
        if not self.first_us:
            self.first_us = now_us
        try:
            reply = codec.feed(data)
        except BadReply as error:
            self._failed(error)
            return
        if reply is not None:
            self._finish(reply, now_us)

    def eof_received(self) -> bool:
        """The other side has ended the connection; true keeps it for the last look at its counters."""
        if not self.busy:
            if self.held is None:
                self.shut()
            return self._stays()
        assert self.codec is not None
        now_us = self.channel.setup.clock()
        try:
            reply = self.codec.eof()
        except (BadReply, ConnectionError) as error:
            self._failed(error)
            return self._stays()
        self._finish(reply, now_us)
        return self._stays()

    def _stays(self) -> bool:
        """Whether an ended connection is kept until its request is settled; a TLS transport cannot be."""
        if self.held is not None and self.channel.wire.tls is not None:
            self._settle_now()
        return self.held is not None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self.transport is None:
            # Lost while it was being made (TLS): the task reports it.
            return
        if self.busy:
            self._failed(exc or Closed())
        elif self.held is None:
            self.shut()
        else:
            self._settle_now()

    # --- ends ---

    def end(self, outcome: Outcome, error: str) -> None:
        """End the request from outside; a name that did not come in time is the name service's fault."""
        if self.sock is None and outcome is Outcome.timeout:
            outcome, error = Outcome.dns_error, "name_lookup_timeout"
            self.dns_us = self.channel.setup.clock() - self.sent_us
        self._report(Reply(outcome, error, 0, "", 0, False), self.channel.setup.clock())

    def _failed(self, error: BaseException) -> None:
        if self._stale(error):
            self._again()
            return
        try:
            outcome, text = classify(error)
        except LocalTrouble as trouble:
            self.busy = False
            self.channel.setup.pending.pop(self, None)
            self.shut()
            self.channel.setup.give_up(self.channel.setup.index, str(trouble))
            return
        self._finish(Reply(outcome, text, 0, "", 0, False), self.channel.setup.clock())

    def _stale(self, error: BaseException) -> bool:
        return (
            self.served > 0
            and not self.opened
            and not self.first_us
            and isinstance(error, ConnectionError)
            and self.sent_us - self.idle_since_us >= STALE_IDLE_US
            and self.channel.wire.repeatable
        )

    def _again(self) -> None:
        channel = self.channel
        self.busy = False
        channel.setup.pending.pop(self, None)
        self.shut()
        StreamConnection(channel).begin(self.seq, self.planned_us, self.sent_us, self.attempt + 1)

    def _finish(self, reply: Reply, done_us: int) -> None:
        assert self.sock is not None or not reply.reusable
        if self.sock is None:
            self._report(reply, done_us)
            return
        info = tcp_info.read(self.sock)
        if info[RETRANS] == self.before[RETRANS] + (self.opening_retrans if self.opened else 0):
            self._report(reply, done_us, info)
            return
        # Something was sent again. Whether it or its answer was lost, the peer may say in a moment.
        self.busy = False
        self.channel.setup.pending.pop(self, None)
        handle = self.channel.loop.call_later(tcp_info.dsack_wait_s(info), self._settle)
        self.held = (handle, done_us, reply)

    def _settle_now(self) -> None:
        if self.held is not None:
            self.held[0].cancel()
            self._settle()

    def _settle(self) -> None:
        if self.held is not None:
            _, done_us, reply = self.held
            self.held = None
            self._report(reply, done_us)

    def _report(self, reply: Reply, done_us: int, info: tcp_info.Info | None = None) -> None:
        channel = self.channel
        self.busy = False
        channel.pending.pop(self, None)
        outcome, error, status, peer, resp_bytes, reusable = reply
        if info is None:
            info = tcp_info.read(self.sock) if self.sock is not None else tcp_info.NOTHING
        before, opened = self.before, self.opened
        retrans = info[RETRANS] - before[RETRANS]
        if opened or retrans or info[DSACK_DUPS] != before[DSACK_DUPS] or outcome is Outcome.timeout:
            sent, lost, segs_out, segs_in, retrans, min_rtt_us = tcp_info.packets(
                before,
                info,
                opened=opened and self.sock is not None,
                opening_retrans=self.opening_retrans if self.transport is not None else info[RETRANS],
                timed_out=outcome is Outcome.timeout,
            )
        else:
            # The same rule where nothing was lost, without the price of a call: this is nearly every request.
            lost = 0
            sent, min_rtt_us = info[DATA_SEGS_OUT] - before[DATA_SEGS_OUT], info[MIN_RTT]
            segs_out, segs_in = info[SEGS_OUT] - before[SEGS_OUT], info[SEGS_IN] - before[SEGS_IN]
        planned_us, first_us, sent_us = self.planned_us, self.first_us, self.sent_us
        row = (
            self.seq,
            channel.index,
            planned_us,
            sent_us - channel.start_us - planned_us,
            done_us - sent_us,
            self.dns_us if opened else 0,
            self.connect_us if opened else 0,
            self.tls_us if opened else 0,
            first_us - self.written_us if first_us else 0,
            outcome,
            error,
            status,
            peer,
            self.port,
            sent,
            lost,
            segs_out,
            segs_in,
            retrans,
            min_rtt_us,
            channel.req_bytes,
            resp_bytes,
            self.attempt,
            0,
        )
        if reusable and channel.keep and self._can_serve():
            self.before = info
            self.opened = False
            self.served += 1
            self.idle_since_us = done_us
            channel.idle.append(self)
        else:
            self.shut()
        channel.report(row)

    def _can_serve(self) -> bool:
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        if self.buffered:
            # Answered before all of the request was read: the rest must not run into the next one.
            self.buffered = transport.get_write_buffer_size() > 0
        return not self.buffered

    def shut(self) -> None:
        """Close; a request that waits for its last counters reports first."""
        self._settle_now()
        channel = self.channel
        channel.open.discard(self)
        if self in channel.idle:
            channel.idle.remove(self)
        task = self.task
        opening = task is not None and not task.done() and task is not asyncio.current_task()
        if opening and task is not None:
            task.cancel()
        if self.transport is not None:
            # Nothing of ours is left to send, and a TLS transport that closes politely waits for the other side.
            self.transport.abort()
        elif self.sock is not None and not opening:
            channel.poller.closing(self.sock.fileno())
            self.sock.close()
