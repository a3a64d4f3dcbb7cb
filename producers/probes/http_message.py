"""What a request over HTTP/1.1 and one over HTTP/2 have in common: what is sent, and how a reply is judged.

Judgement of a whole reply, first rule that fits: another agent, or none, answers for the agent we asked →
`wrong_peer`; that agent, but not the incarnation of it that answered first in this round → `target_gone`; the task
names a status and this is another → `http_error`; anything else is `ok` with its status, as kdoctor has it.
"""

from collections.abc import Iterable

from producers.probes.base import Setup
from producers.probes.codec import Reply
from producers.probes.http_reply import Judge, Message
from producers.probes.incarnation import AGENT_REPLACED, Incarnation
from topics.outcome import Outcome, Proto
from topics.task_rounds import HttpRequest, Target

USER_AGENT = "kpatrol"
# RFC 9110, 9.2.2: what may be sent twice without being asked for twice.
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_DEFAULT_PORTS = {Proto.http: 80, Proto.https: 443}


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
