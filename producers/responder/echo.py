"""What the agent's HTTP server answers, as pure functions: kdoctor's echo API, and a small page for probes.

Echo API on `/` and `/kdoctoragent`: GET tells the request back as JSON; HEAD, PUT, PATCH, OPTIONS are counted; POST
takes a JSON body; DELETE sets the counter back. `?delay=` waits that many whole seconds (60 at most), `?task=` names
the counter. A GET of another agent (it says `kpatrol-from`) without a query gets three bytes; so does `/kpatrol`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

ECHO_PATHS = frozenset({"/", "/kdoctoragent"})
PROBE_PATH = "/kpatrol"
METHODS = ("GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH")
MAX_DELAY_S = 60
_MAX_TASKS = 1000
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    431: "Request Header Fields Too Large",
}
_PARAMETERS = {
    "delay": f"whole seconds to wait before the answer, {MAX_DELAY_S} at most",
    "task": "name of the counter, default by default",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it came; header names in lower case, `body_bytes` of body."""

    method: str
    url: str
    headers: Mapping[str, str]
    client: str
    body_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to send, and after how many seconds."""

    status: int
    body: bytes = b""
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: int = 0


@dataclass(slots=True)
class Counters:
    """Requests per task name; bounded."""

    by_task: dict[str, int] = field(default_factory=dict)

    def add(self, task: str) -> int:
        """Count one request of a task; how many by now (a name too many shares the default's counter)."""
        name = task if task in self.by_task or len(self.by_task) < _MAX_TASKS else "default"
        self.by_task[name] = self.by_task.get(name, 0) + 1
        return self.by_task[name]


class Refused(Exception):
    """A request that gets an error as its answer."""

    def __init__(self, status: int, code: int, message: str, *headers: tuple[str, str]) -> None:
        super().__init__(message)
        self.answer = trouble(status=status, code=code, message=message, headers=headers)


def answer(*, request: Request, counters: Counters, server_name: str) -> Answer:
    """The answer to a request; counts it."""
    url = urlsplit(request.url)
    probing = "kpatrol-from" in request.headers and not url.query
    if request.method in ("GET", "HEAD") and (url.path == PROBE_PATH or (probing and url.path in ECHO_PATHS)):
        return probe_answer()
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    try:
        _check_route(request.method, url.path)
        _check_post(request)
        delay_s = _delay_s(query)
    except Refused as refused:
        return refused.answer
    return _counted(request=request, query=query, counters=counters, server_name=server_name, delay_s=delay_s)


def _counted(
    *, request: Request, query: Mapping[str, str], counters: Counters, server_name: str, delay_s: int
) -> Answer:
    task = query.get("task", "default")
    if request.method == "DELETE":
        counters.by_task.pop(task, None)
        return Answer(status=200, delay_s=delay_s)
    count = counters.add(task)
    if request.method != "GET":
        return Answer(status=200, delay_s=delay_s)
    told = _echo(request=request, query=query, task=task, count=count, server_name=server_name)
    body = json.dumps(told, separators=(",", ":"), sort_keys=True).encode() + b"\n"
    return Answer(status=200, body=body, content_type="application/json", delay_s=delay_s)


def probe_answer() -> Answer:
    """The smallest answer with a body."""
    return Answer(status=200, body=b"ok\n", content_type="text/plain")


def trouble(*, status: int, code: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """An error as JSON."""
    body = json.dumps({"code": code, "message": message}, separators=(",", ":")).encode()
    return Answer(status=status, body=body, content_type="application/json", headers=headers)


def encoded(answer: Answer, *, identity: str, keep_alive: bool, with_body: bool = True) -> bytes:
    """An answer on the wire; `identity` is `<agent>/<incarnation>`."""
    lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Error')}"]
    if answer.content_type:
        lines.append(f"content-type: {answer.content_type}")
    lines.append(f"content-length: {len(answer.body)}")
    lines.append(f"kpatrol-agent: {identity}")
    lines += [f"{name}: {value}" for name, value in answer.headers]
    if not keep_alive:
        lines.append("connection: close")
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return head + answer.body if with_body else head


def _check_route(method: str, path: str) -> None:
    if path not in ECHO_PATHS:
        raise Refused(404, 404, f"path {path} was not found")
    if method not in METHODS:
        allowed = ",".join(METHODS)
        raise Refused(405, 405, f"method {method} is not allowed, but [{allowed}] are", ("allow", allowed))


def _delay_s(query: Mapping[str, str]) -> int:
    text = query.get("delay", "0")
    try:
        return min(MAX_DELAY_S, max(0, int(text)))
    except ValueError:
        raise Refused(422, 601, f"delay in query must be of type int64: {text!r}") from None


def _check_post(request: Request) -> None:
    if request.method != "POST":
        return
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if not request.body_bytes:
        raise Refused(422, 602, "body in body is required")
    if kind != "application/json":
        raise Refused(415, 415, f"unsupported media type {kind!r}, only [application/json] is allowed")


def _echo(*, request: Request, query: Mapping[str, str], task: str, count: int, server_name: str) -> dict[str, object]:
    told: dict[str, object] = {
        "TaskName": task,
        "clientIp": request.client,
        "paramDetail": _PARAMETERS,
        "requestCount": count,
        "requestHeader": {name.title(): f" {value} " for name, value in request.headers.items()},
        "requestMethod": request.method,
        "requestUrl": request.url,
        "serverName": server_name,
        "supportedMethod": " ".join(METHODS),
    }
    if "delay" in query:
        told["requestParam"] = f"delay={query['delay']}"
    return told
