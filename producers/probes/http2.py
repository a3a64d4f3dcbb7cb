"""HTTP/2 requests (RFC 9113): many at once on one connection, by TLS with ALPN `h2`, or without TLS as prior knowledge.

Judged as HTTP/1.1 is (see http_message). A connection takes as many requests as the server allows; beyond that another
one is opened. Redirects are not followed. A server that does not speak HTTP/2 is `bad_reply` / `http2_not_negotiated`,
a stream given up by the server `reset`. A request is sent again on a new connection where the server says without blame
that it has not begun with it (GOAWAY or REFUSED_STREAM; three times at most), and once where a connection that had been
idle is found closed; the row's `attempt` says how often.

Several requests share a connection, so its segments are counted to the request that ends next: the sums over a
channel's rows are exact, a single row's are not. Who waited for a connection that was being opened for another request
has that wait as `connect_us`.
"""

import asyncio
from collections import deque
from collections.abc import Callable

import hpack

from producers import mark
from producers.probes.base import Channel, Setup, is_literal, socket_family
from producers.probes.http2_connection import Http2Connection
from producers.probes.http2_request import Http2Request, Plan
from producers.probes.http2_session import Header, Nobody, Session
from producers.probes.http_message import IDEMPOTENT, fields, judgement, server_name
from producers.probes.tls import client_context
from topics.ids import MASK64, splitmix64
from topics.outcome import Proto
from topics.task_rounds import HttpRequest

MAX_CONNECTIONS = 8
# RFC 9113, 8.2.2: what is of one connection has no place in a request.
_NOT_SENT = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host"})


def channel(setup: Setup, request: HttpRequest) -> Channel:
    """The channel to a server. Raises ValueError when the task's request cannot be written."""
    tls = client_context(request, alpn=("h2",)) if setup.target.proto is Proto.https or request.tls else None
    headers = request_headers(request=request, setup=setup)
    # Tried now, so that no request has to be given up for it.
    Session(Nobody()).begin(headers(0), b"")
    plan = Plan(
        headers=headers,
        body=request.body.encode(),
        judge=judgement(target=setup.target, expected_status=setup.round_.expect.status_code),
        tls=tls,
        server_name=server_name(request) or setup.target.address,
        single=request.new_connection,
        repeatable=request.method in IDEMPOTENT,
        dscp=setup.round_.mesh.dscp if setup.round_.mesh else 0,
    )
    return Http2Channel(setup, plan)


def request_headers(*, request: HttpRequest, setup: Setup) -> Callable[[int], list[Header]]:
    """The header list of request `seq`. Raises ValueError as http_message.fields does."""
    path, pairs = fields(request=request, setup=setup)
    host = next(value for name, value in pairs if name.lower() == "host")
    tls = setup.target.proto is Proto.https or request.tls
    first = [
        (":method", request.method),
        (":scheme", "https" if tls else "http"),
        (":authority", host),
        (":path", path),
    ]
    own = [(name.lower(), value) for name, value in pairs if name.lower() not in _NOT_SENT]
    same = [(name.encode(), value.encode()) for name, value in (*first, *own)]
    trace = f"00-{setup.trace_id.hex()}-"
    whose = mark.prefix(agent=setup.agent, round_id=setup.round_.round_id, target=setup.index)
    low = int.from_bytes(setup.trace_id[8:], "big")

    def headers(seq: int) -> list[Header]:
        span = splitmix64((low + seq) & MASK64)
        # Never the same twice: not for the table that both ends keep.
        return [
            *same,
            hpack.NeverIndexedHeaderTuple(b"traceparent", b"%s%016x-01" % (trace.encode(), span)),
            hpack.NeverIndexedHeaderTuple(mark.HEADER.encode(), b"%s%d" % (whose.encode(), seq)),
        ]

    return headers


class Http2Channel:
    """Requests to one target and the connections they share; `waiting` have no connection at all."""

    def __init__(self, setup: Setup, plan: Plan) -> None:
        self.setup = setup
        self.plan = plan
        self.loop = asyncio.get_running_loop()
        self.family = socket_family(setup.target)
        self.literal = is_literal(setup.target.address)
        self.connections: list[Http2Connection] = []
        self.waiting: deque[Http2Request] = deque()

    def send(self, seq: int, planned_us: int, sent_us: int) -> None:
        """Start one request on a connection that has room, or wait for one."""
        request = Http2Request(self, seq, planned_us, sent_us)
        self.setup.pending[request] = None
        self.place(request)

    def place(self, request: Http2Request) -> bool:
        """Find a connection for a request that is in `pending`; false when it has to wait until one has room."""
        if not self.plan.single:
            for connection in self.connections:
                if connection.has_room():
                    connection.begin(request)
                    return True
            for connection in self.connections:
                if connection.joinable:
                    connection.queue.append(request)
                    return True
            if len(self.connections) >= MAX_CONNECTIONS:
                self.waiting.append(request)
                return False
        connection = Http2Connection(self)
        self.connections.append(connection)
        connection.queue.append(request)
        connection.open()
        return True

    def advance(self) -> None:
        """Something has changed: those who wait may have room now."""
        for _ in range(len(self.waiting)):
            if not self.place(self.waiting.popleft()):
                # Back in line, and to its head: nobody is overtaken.
                self.waiting.rotate(1)
                return

    def close(self) -> None:
        """Close every connection; rows that wait for a DSACK are reported now."""
        self.waiting.clear()
        for connection in list(self.connections):
            connection.shut()
