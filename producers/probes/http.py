"""HTTP and HTTPS requests (HTTP/1.1). Redirects are not followed: their status is the result.

Judgement of a whole reply, first rule that fits: another agent, or none, answers for the agent we asked →
`wrong_peer`; that agent, but not the incarnation of it that answered first in this round → `target_gone`; the task
names a status and this is another → `http_error`; anything else is `ok` with its status, as kdoctor has it.

Each request carries `traceparent` and `kpatrol-from: <agent>;<round id, hex>;<target>;<seq>` (see mark), so the serving
agent can name the very request; the reply carries `kpatrol-agent: <agent>/<incarnation>`.
"""

from collections.abc import Iterable

from producers import mark
from producers.probes.base import Channel, Setup
from producers.probes.codec import Reply, Wire
from producers.probes.http_reply import Judge, Memory, Message, ReplyReader
from producers.probes.incarnation import AGENT_REPLACED, Incarnation
from producers.probes.stream import StreamChannel
from producers.probes.tls import client_context
from topics.ids import MASK64, splitmix64
from topics.outcome import Outcome, Proto
from topics.task_rounds import HttpRequest, Target

USER_AGENT = "kpatrol"
# Mesh probes of a round that says nothing about HTTP ask for the smallest thing an agent serves.
MESH_REQUEST = HttpRequest(url_path="/kpatrol")
_DEFAULT_PORTS = {Proto.http: 80, Proto.https: 443}
# RFC 9110, 9.2.2: what may be sent twice without being asked for twice.
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


def channel(setup: Setup) -> Channel:
    """The channel to an HTTP or HTTPS target. Raises ValueError when the task's request cannot be written."""
    request = setup.round_.http or MESH_REQUEST
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


def fields(*, request: HttpRequest, setup: Setup) -> tuple[str, list[tuple[str, str]]]:
    """The path and the header fields of a request, in the task's order and always with `host`.

    Raises ValueError on a method, path or header that would break the message.
    """
    target = setup.target
    own, host = _headers(request.headers), request.host_header
    named = {name.lower() for name, _ in own}
    pairs = [] if "host" in named and not host else [("host", host or authority(target))]
    pairs += [(n, v) for n, v in (("user-agent", USER_AGENT), ("accept", "*/*")) if n not in named]
    pairs += [(n, v) for n, v in own if not (host and n.lower() == "host")]
    body = request.body.encode()
    if (body or request.method in _WITH_BODY) and "content-length" not in named:
        pairs.append(("content-length", str(len(body))))
    path = target.url_path or request.url_path
    path = path if path.startswith("/") else "/" + path
    if any(_breaks(text) for text in (path, *(text for pair in pairs for text in pair))):
        raise ValueError("request line or header with a line break")
    if not request.method.isalpha() or " " in path:
        raise ValueError("method or path with a blank or worse in it")
    return path, pairs


def judgement(*, target: Target, expected_status: int | None) -> Judge:
    """The rule that turns a whole message into a reply; it remembers which incarnation of the agent answered first."""
    known = Incarnation()

    def judge(message: Message) -> Reply:
        name, _, incarnation = message.agent.partition(b"/")
        peer = name.decode("utf-8", "replace")
        outcome, error = Outcome.ok, "extra_bytes" if message.extra else ""
        if target.agent and peer != target.agent:
            outcome, error = Outcome.wrong_peer, "wrong_peer" if peer else "no_agent"
        elif target.agent and known.replaced(incarnation):
            outcome, error = Outcome.target_gone, AGENT_REPLACED
        elif expected_status is not None and message.status != expected_status:
            outcome, error = Outcome.http_error, str(message.status)
        return Reply(outcome, error, message.status, peer, message.body_bytes, message.keep_alive)

    return judge


def authority(target: Target) -> str:
    """The target as a Host header says it: an IPv6 literal in brackets, the port unless it is the scheme's own."""
    host = f"[{target.address}]" if ":" in target.address else target.address
    return host if target.port == _DEFAULT_PORTS.get(target.proto) else f"{host}:{target.port}"


def server_name(request: HttpRequest) -> str:
    """The name for SNI and verification: the task's, else that of its Host header; empty means the address itself."""
    if request.server_name or not request.host_header:
        return request.server_name
    host = request.host_header
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _headers(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Name and value of each header line, cut at the first colon."""
    pairs = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"header {line!r} has no name before a colon")
        pairs.append((name.strip(), value.strip()))
    return pairs


def _breaks(line: str) -> bool:
    return any(character in line for character in "\r\n\0")


def _escaped(data: bytes) -> bytes:
    return data.replace(b"%", b"%%")
