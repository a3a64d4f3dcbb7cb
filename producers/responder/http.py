"""The agent's HTTP/1.1 server: answers the other agents with next to no cost, and anybody with kdoctor's echo API.

The same agent asks with the same bytes but for the two values at the end of its head. After one such request was
parsed in full, the next ones on the connection that begin with the very same bytes and end in well-formed values need
no parser: the pattern admits nothing that could change the message's meaning. Everything else is parsed (llhttp).
"""

import asyncio
import re
import time
from collections import deque
from typing import cast

import httptools

from producers import mark
from producers.mark import Mark
from producers.receipts import Receipts
from producers.responder.borrowed import BorrowedSocket, CopiedSocket
from producers.responder.echo import Answer, Counters, Request, answer, encoded, probe_answer, trouble
from producers.responder.segments import Segments
from topics.outcome import Proto

MAX_HEAD_BYTES = 64 << 10
MAX_BODY_BYTES = 64 << 20
MAX_WAITING = 64
IDLE_S = 120.0
_SWEEP_S = 10.0
_MARK = b"traceparent: 00-"
_TAIL = re.compile(rb"[0-9a-f]{32}-[0-9a-f]{16}-01\r\nkpatrol-from: (?:" + mark.PATTERN + rb")\r\n\r\n")
# After the last answer the connection stays until the client has ended it, so that what became of the answer is seen.
LINGER_S = 3.0
# How long a client's report of a duplicate may follow the end of its connection.
REPORT_S = 0.05
# Through TLS there is no ending of one direction alone: the client must see the end soon.
LINGER_TLS_S = 0.5


class HttpService:
    """What the connections of one listener share."""

    def __init__(self, *, agent: str, incarnation: int, proto: Proto, receipts: Receipts) -> None:
        self.identity = f"{agent}/{incarnation}"
        self.agent = agent
        self.proto = proto
        self.receipts = receipts
        self.counters = Counters()
        self.connections: set[HttpConnection] = set()
        self.quick = encoded(probe_answer(), identity=self.identity, keep_alive=True)
        self._loop = asyncio.get_running_loop()
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)
        receipts.add_collector(self.collect)

    def collect(self) -> None:
        """Bring every connection's segment counters up to date."""
        for connection in self.connections:
            connection.segments.collect()

    def close(self) -> None:
        """Close every connection."""
        self._sweeper.cancel()
        self.collect()
        self.receipts.remove_collector(self.collect)
        for connection in list(self.connections):
            connection.abort()

    def _sweep(self) -> None:
        before_s = self._loop.time() - IDLE_S
        for connection in list(self.connections):
            if connection.used_s < before_s:
                connection.abort()
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)


class HttpConnection(asyncio.Protocol):
    """One connection of one client."""

    def __init__(self, service: HttpService) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._prefix = b""
        # Whether the parser stands between two messages.
        self._quiet = True
        self._probe = False
        self._messages = 0
        self._waiting: deque[tuple[Answer, bool, bool]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._client = ""
        self.used_s = self._loop.time()
        self._reset()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has connected."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._client = f"{peer[0]}:{peer[1]}" if peer else ""
        shared = transport.get_extra_info("socket")
        # Through TLS only the transport may write.
        self._direct = transport.get_extra_info("ssl_object") is None
        # A socket object of our own on the transport's descriptor: the transport's stands in for few calls only. A TLS
        # transport says nothing of the client's end before it has closed its descriptor, so there it is a copy.
        self._sock = BorrowedSocket.of(shared) if self._direct else CopiedSocket.of(shared)
        self.segments = Segments(sock=self._sock, receipts=self._service.receipts)
        self._service.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        if self._timer is not None:
            self._timer.cancel()
        self._service.connections.discard(self)
        self.segments.collect()
        self._sock.give_back()

    def eof_received(self) -> bool:
        """The client has ended: the last look at the counters, a moment later where something was sent again."""
        self.segments.collect(ended=True)
        if not (self._direct and self.segments.awaits_report):
            return False
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(REPORT_S, self._transport.close)
        return True

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes of one or more requests."""
        prefix = self._prefix
        if prefix and self._quiet and not self._waiting and not self._closing and data.startswith(prefix):
            match = _TAIL.fullmatch(data, len(prefix))
            told = mark.of(match) if match is not None else None
            if told is not None:
                self._came(told)
                self._send(self._service.quick)
                return
        self._parse(data)

    # --- receipts ---

    def _came(self, told: Mark) -> None:
        """Record whose request it is."""
        service = self._service
        self.segments.begin((told.round_id, told.agent, service.proto, told.target))
        service.receipts.received(
            round_id=told.round_id,
            src_agent=told.agent,
            proto=service.proto,
            target=told.target,
            seq=told.seq,
            now_us=time.time_ns() // 1000,
        )

    # --- parsing ---

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._body_bytes = 0

    def _parse(self, data: bytes) -> None:
        if self._closing:
            return
        whole = self._quiet
        self._messages = 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Taken as a plain request; what follows would be another protocol.
            self._closing = True
        except httptools.HttpParserError as error:
            cause = error.__context__
            refusal = (
                cause.answer if isinstance(cause, _TooLarge) else trouble(status=400, code=400, message="bad request")
            )
            self._put(refusal, keep_alive=False, with_body=True)
            return
        if self._messages == 1 and whole and self._quiet:
            self._learn(data)

    def _learn(self, data: bytes) -> None:
        """Remember the unchanging part of an agent's probe that was exactly this one whole message."""
        at = data.find(_MARK)
        if self._probe and at > 0 and _TAIL.fullmatch(data, at + len(_MARK)):
            self._prefix = data[: at + len(_MARK)]

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._quiet = False

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field."""
        self._count_head(len(name) + len(value) + 4)
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head is whole: say so where the client waits for that."""
        if self._headers.get("expect", "").lower() == "100-continue" and not self._waiting:
            self._send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A piece of the body: counted and dropped."""
        self._body_bytes += len(body)
        if self._body_bytes > MAX_BODY_BYTES:
            raise _TooLarge(413, "body too large")

    def on_message_complete(self) -> None:
        """A whole request."""
        method = self._parser.get_method().decode("latin-1")
        request = Request(
            method=method,
            url=self._url.decode("latin-1"),
            headers=self._headers,
            client=self._client,
            body_bytes=self._body_bytes,
        )
        keep_alive = self._parser.should_keep_alive()
        self._reset()
        self._messages += 1
        self._quiet = True
        said = request.headers.get(mark.HEADER)
        whose = mark.parse(said) if said else None
        if whose is not None:
            self._came(whose)
        told = answer(request=request, counters=self._service.counters, server_name=self._service.agent)
        self._probe = told == probe_answer() and method == "GET" and keep_alive and not request.body_bytes
        self._put(told, keep_alive=keep_alive, with_body=method != "HEAD")

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise _TooLarge(431, "header too large")

    # --- answering ---

    def _put(self, told: Answer, *, keep_alive: bool, with_body: bool) -> None:
        """Answer in order; one that waits holds back those behind it, and too many of them the reading."""
        if self._closing:
            return
        self._closing = not keep_alive
        self._waiting.append((told, keep_alive, with_body))
        if len(self._waiting) == MAX_WAITING:
            self._transport.pause_reading()
        if self._timer is None:
            self._serve()

    def _serve(self) -> None:
        """Send what is due; a delayed answer is sent by its timer, which comes back here."""
        while self._waiting:
            told, keep_alive, with_body = self._waiting[0]
            if told.delay_s and self._timer is None:
                self._timer = self._loop.call_later(told.delay_s, self._serve)
                return
            self._timer = None
            self._waiting.popleft()
            if len(self._waiting) == MAX_WAITING - 1:
                self._transport.resume_reading()
            wire = encoded(told, identity=self._service.identity, keep_alive=keep_alive, with_body=with_body)
            self._send(wire)
            if not keep_alive:
                self._waiting.clear()
                self._end(len(wire))

    def _end(self, last_bytes: int) -> None:
        """Nothing more will be said after an answer of so many bytes."""
        if self._direct:
            self.segments.ending(last_bytes=last_bytes)
            self._transport.write_eof()
        self._timer = self._loop.call_later(LINGER_S if self._direct else LINGER_TLS_S, self._transport.close)

    def _send(self, data: bytes) -> None:
        self.used_s = self._loop.time()
        if not self._direct or self._transport.get_write_buffer_size():
            self._transport.write(data)
            return
        try:
            # Straight to the kernel: the transport would hold it back to the end of the loop's turn.
            written = self._sock.send(data)
        except BlockingIOError:
            written = 0
        except OSError:
            self.abort()
            return
        if written < len(data):
            self._transport.write(data[written:])


class _TooLarge(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.answer = trouble(status=status, code=status, message=message)
