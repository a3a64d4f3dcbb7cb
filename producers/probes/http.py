"""HTTP and HTTPS requests (HTTP/1.1). Redirects are not followed: their status is the result.

Each request carries `traceparent` and `kpatrol-from: <agent>;<round id, hex>;<target>;<seq>` (see mark), so the serving
agent can name the very request; the reply carries `kpatrol-agent: <agent>/<incarnation>`.
"""

import json
from pathlib import Path

from msgspec.structs import replace

from producers import mark
from producers.probes.base import Channel, Setup
from producers.probes.codec import Wire
from producers.probes.http_message import IDEMPOTENT, fields, judgement, server_name
from producers.probes.http_reply import Memory, ReplyReader
from producers.probes.stream import StreamChannel
from producers.probes.tls import client_context
from topics.ids import MASK64, splitmix64
from topics.outcome import Proto
from topics.task_rounds import HttpRequest

# Mesh probes of a round that says nothing about HTTP ask for the smallest thing an agent serves.
MESH_REQUEST = HttpRequest(url_path="/kpatrol")


def with_body(request: HttpRequest) -> HttpRequest:
    """The request with the files of its body's folder in it. Raises ValueError when they cannot be read."""
    if not request.body_folder:
        return request
    try:
        # Of a mounted ConfigMap, what begins with two dots is the kubelet's.
        files = [path for path in Path(request.body_folder).iterdir() if not path.name.startswith("..")]
        data = {path.name: path.read_text() for path in files}
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"body of the task: {error}") from error
    return replace(request, body=json.dumps(data, sort_keys=True, separators=(",", ":")))


def channel(setup: Setup) -> Channel:
    """The channel to an HTTP or HTTPS target. Raises ValueError when the task's request cannot be written or its body
    cannot be read."""
    request = with_body(setup.round_.http or MESH_REQUEST)
    target = setup.target
    tls = target.proto is Proto.https or request.tls
    if request.http2:
        # Few tasks ask for it, and every agent has to be small.
        from producers.probes import http2

        return http2.channel(setup, request)
    form = template(request=request, setup=setup)
    low = int.from_bytes(setup.trace_id[8:], "big")
    judge = judgement(target=target, expected_status=setup.round_.expect.status_code)
    memory = Memory()
    head_only = request.method == "HEAD"
    wire = Wire(
        codec=lambda: HttpCodec(
            form=form, low=low, reader=ReplyReader(judge=judge, memory=memory, head_only=head_only)
        ),
        req_bytes=len(request.body.encode()),
        tls=client_context(request) if tls else None,
        server_name=server_name(request),
        keep=not request.new_connection,
        repeatable=request.method in IDEMPOTENT,
        dscp=setup.round_.mesh.dscp if setup.round_.mesh else 0,
    )
    return StreamChannel(setup, wire)


class HttpCodec:
    """Writes requests from a template, reads replies."""

    __slots__ = ("_form", "_low", "eof", "feed")

    def __init__(self, *, form: bytes, low: int, reader: ReplyReader) -> None:
        self._form = form
        self._low = low
        self.feed = reader.feed
        self.eof = reader.eof

    def request(self, seq: int) -> bytes:
        """The bytes of request `seq`; its span id is topics.ids.span_id."""
        return self._form % (splitmix64((self._low + seq) & MASK64), seq)


def template(*, request: HttpRequest, setup: Setup) -> bytes:
    """The request as a bytes format of two values: the span id and the sequence number.

    What is the same in all requests comes first, so a serving agent needs to parse it only once. Raises ValueError on
    a method, path or header that would break the message.
    """
    path, pairs = fields(request=request, setup=setup)
    if request.new_connection:
        pairs.append(("connection", "close"))
    lines = [f"{request.method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in pairs)]
    head = "\r\n".join([*lines, f"traceparent: 00-{setup.trace_id.hex()}-"]).encode("utf-8")
    whose = mark.prefix(agent=setup.agent, round_id=setup.round_.round_id, target=setup.index)
    middle = f"-01\r\n{mark.HEADER}: {whose}".encode()
    return _escaped(head) + b"%016x" + _escaped(middle) + b"%d\r\n\r\n" + _escaped(request.body.encode())


def _escaped(data: bytes) -> bytes:
    return data.replace(b"%", b"%%")
