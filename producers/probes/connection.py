"""One TCP or TLS connection: connect, keep, time, count segments. What is said on it is a codec's job.

A request on a kept connection that the server had just closed for idleness says nothing about the network. Only where
all of this holds is it sent once more, on a new connection, and its row says `attempt` 1: the connection had served
before and then lay idle for a second or more, not one byte of a reply came, and the codec calls the request repeatable.
"""

import asyncio
import errno
import socket
import struct
from typing import TYPE_CHECKING, cast

from producers.probes import tcp_info
from producers.probes.base import BadReply, Closed, LocalTrouble, bind_source, classify
from producers.probes.codec import Codec, Reply
from producers.probes.marking import set_dscp
from producers.probes.tcp_info import DSACK_DUPS, RETRANS
from topics.outcome import Outcome

if TYPE_CHECKING:
    from producers.probes.stream import StreamChannel

STALE_IDLE_US = 1_000_000
# struct linger: closing throws away what is unsent and resets.
_NO_LINGER = struct.pack("=ii", 1, 0)


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
        self.transport: asyncio.Transport | None = None
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
        code = 0
        if self.channel.literal:
            target = self.channel.setup.target
            try:
                # Now, not in the task's first turn: the SYN leaves at the time the row says.
                code = self._dial((target.address, target.port))
            except OSError as error:
                self._failed(error)
                return
        self.task = self.channel.loop.create_task(self._open(code))
        self.task.add_done_callback(self._given_up)

    def _dial(self, address: tuple[object, ...]) -> int:
        """Send the SYN; the system's code of it. Raises OSError when there is no socket or address to send from."""
        channel = self.channel
        self.written_us = channel.setup.clock()
        sock = socket.socket(channel.family, socket.SOCK_STREAM)
        self.sock = sock
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        set_dscp(sock, channel.wire.dscp)
        if channel.wire.reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        bind_source(sock, channel.setup.source_address)
        code = sock.connect_ex(address)
        # Asked for now: a refused socket forgets its port.
        self.port = sock.getsockname()[1]
        return code

    async def _open(self, code: int) -> None:
        try:
            await self._connect(code)
        except Exception as error:
            if self.busy and self.transport is None:
                self._failed(error)
        finally:
            self.task = None

    def _given_up(self, opening: "asyncio.Task[None]") -> None:
        # Not in the task itself: one that is cancelled before its first turn never enters its own clean-up.
        if opening.cancelled() and self.transport is None and self.sock is not None:
            self.sock.close()

    async def _connect(self, code: int) -> None:
        channel, clock = self.channel, self.channel.setup.clock
        loop, target, wire = channel.loop, channel.setup.target, channel.wire
        if not channel.literal:
            found = await loop.getaddrinfo(target.address, target.port, family=channel.family, type=socket.SOCK_STREAM)
            self.dns_us = max(1, clock() - self.sent_us)
            code = self._dial(found[0][4])
        sock, started_us = self.sock, self.written_us
        assert sock is not None
        await self._handshake(sock, code)
        self.written_us = clock()
        self.connect_us = max(1, self.written_us - started_us)
        self.opening_retrans = tcp_info.read(sock)[RETRANS]
        if wire.codec is None:
            self._finish(Reply(Outcome.ok, "", 0, "", 0, False), self.written_us)
            return
        self.codec = wire.codec()
        # From here on the transport speaks: connection_made writes the request.
        if wire.tls is None:
            await loop.create_connection(lambda: self, sock=sock)
        else:
            name = wire.server_name or target.address
            await loop.create_connection(lambda: self, sock=sock, ssl=wire.tls, server_hostname=name)

    async def _handshake(self, sock: socket.socket, code: int) -> None:
        """Wait for the connection. Raises OSError."""
        if code == errno.EINPROGRESS:
            loop, descriptor = self.channel.loop, sock.fileno()
            ready = loop.create_future()
            loop.add_writer(descriptor, _wake, ready)
            try:
                await ready
            finally:
                loop.remove_writer(descriptor)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, "connect")

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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open, with TLS where asked for: the request goes out."""
        self.transport = cast("asyncio.Transport", transport)
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
        planned_us, written_us, first_us, sent_us = self.planned_us, self.written_us, self.first_us, self.sent_us
        if self.opened:
            dns_us, connect_us, tls_us = self.dns_us, self.connect_us, self.tls_us
        else:
            dns_us = connect_us = tls_us = 0
        row = (
            self.seq,
            channel.index,
            planned_us,
            sent_us - channel.start_us - planned_us,
            done_us - sent_us,
            dns_us,
            connect_us,
            tls_us,
            first_us - written_us if first_us else 0,
            outcome,
            error,
            status,
            peer,
            self.port,
            *self._packets(info, outcome),
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

    def _packets(self, info: tcp_info.Info, outcome: Outcome) -> tuple[int, int, int, int, int, int]:
        """What the request cost in packets."""
        before = self.before
        if (
            not self.opened
            and info[RETRANS] == before[RETRANS]
            and info[DSACK_DUPS] == before[DSACK_DUPS]
            and outcome is not Outcome.timeout
        ):
            # The rule of tcp_info.packets where nothing was lost, without its price.
            _, _, _, out_before, in_before, _, data_before, _ = before
            _, _, _, out_now, in_now, min_rtt_us, data_now, _ = info
            return data_now - data_before, 0, out_now - out_before, in_now - in_before, 0, min_rtt_us
        return tcp_info.packets(
            before,
            info,
            opened=self.opened and self.sock is not None,
            opening_retrans=self.opening_retrans if self.transport is not None else info[RETRANS],
            timed_out=outcome is Outcome.timeout,
        )

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
        opening = self.task is not None and self.task is not asyncio.current_task()
        if opening and self.task is not None:
            self.task.cancel()
        if self.transport is not None:
            # Nothing of ours is left to send, and a TLS transport that closes politely waits for the other side.
            self.transport.abort()
        elif self.sock is not None and not opening:
            self.sock.close()


def _wake(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
