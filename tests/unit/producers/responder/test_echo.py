"""kdoctor's echo API as a pure function."""

import json
from typing import Any

import pytest

from producers.responder.echo import Answer, Counters, Request, answer, encoded


def ask(method: str = "GET", url: str = "/", *, body_bytes: int = 0, **headers: str) -> Request:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method=method, url=url, headers=names, client="10.0.0.9:4711", body_bytes=body_bytes)


def told(request: Request, counters: Counters | None = None) -> Answer:
    return answer(request=request, counters=counters or Counters(), server_name="node-2")


@pytest.mark.parametrize("path", ["/", "/kdoctoragent"])
def test_get_tells_the_request_back(path: str) -> None:
    reply = told(ask(url=f"{path}?task=t1&delay=2", user_agent="curl/8"))
    assert reply.status == 200
    assert reply.delay_s == 2
    assert reply.body.endswith(b"\n")
    body: dict[str, Any] = json.loads(reply.body)
    assert set(body) == {
        "TaskName",
        "clientIp",
        "paramDetail",
        "requestCount",
        "requestHeader",
        "requestMethod",
        "requestParam",
        "requestUrl",
        "serverName",
        "supportedMethod",
    }
    assert (body["TaskName"], body["clientIp"], body["serverName"]) == ("t1", "10.0.0.9:4711", "node-2")
    assert body["requestHeader"] == {"User-Agent": " curl/8 "}
    assert body["requestUrl"] == f"{path}?task=t1&delay=2"


def test_without_a_delay_there_is_no_parameter() -> None:
    assert "requestParam" not in json.loads(told(ask()).body)


def test_each_task_has_its_counter_and_delete_sets_it_back() -> None:
    counters = Counters()

    def count(url: str) -> int:
        return int(json.loads(told(ask(url=url), counters).body)["requestCount"])

    assert [count("/"), count("/"), count("/?task=x")] == [1, 2, 1]
    told(ask("PUT"), counters)
    assert count("/") == 4
    assert told(ask("DELETE"), counters) == Answer(status=200)
    assert count("/") == 1


def test_counters_are_bounded() -> None:
    counters = Counters()
    for i in range(3000):
        told(ask(url=f"/?task={i}"), counters)
    assert len(counters.by_task) <= 1001
    assert sum(counters.by_task.values()) == 3000


@pytest.mark.parametrize("method", ["HEAD", "PUT", "PATCH", "OPTIONS"])
def test_other_methods_are_answered_empty(method: str) -> None:
    assert told(ask(method)) == Answer(status=200)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (ask(url="/nowhere"), 404, 404),
        (ask("TRACE"), 405, 405),
        (ask(url="/?delay=soon"), 422, 601),
        (ask("POST"), 422, 602),
        (ask("POST", body_bytes=3, content_type="text/plain"), 415, 415),
    ],
)
def test_what_cannot_be_served_says_why(request_: Request, status: int, code: int) -> None:
    reply = told(request_)
    assert reply.status == status
    body = json.loads(reply.body)
    assert body["code"] == code
    assert body["message"]
    assert (("allow", "GET,POST,DELETE,PUT,HEAD,OPTIONS,PATCH") in reply.headers) == (status == 405)


def test_a_post_with_json_is_taken() -> None:
    assert told(ask("POST", body_bytes=9, content_type="application/json; charset=utf-8")) == Answer(status=200)


def test_a_delay_has_bounds() -> None:
    assert told(ask(url="/?delay=100000")).delay_s == 60
    assert told(ask(url="/?delay=-5")).delay_s == 0


def test_an_agents_probe_gets_the_smallest_answer_unless_it_asks_for_more() -> None:
    assert told(ask(kpatrol_from="node-1;7;0;1")).body == b"ok\n"
    assert told(ask(url="/kpatrol")).body == b"ok\n"
    assert json.loads(told(ask(url="/?task=x", kpatrol_from="node-1;7;0;1")).body)["TaskName"] == "x"


def test_an_answer_says_who_gave_it() -> None:
    wire = encoded(Answer(status=200, body=b"ok\n"), identity="node-2/7", keep_alive=False)
    head, _, body = wire.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"HTTP/1.1 200 OK"
    assert b"kpatrol-agent: node-2/7" in head
    assert b"connection: close" in head
    assert body == b"ok\n"
