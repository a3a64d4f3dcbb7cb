"""`kpatrol agents`: from the views and by a controller, the same answer and exit codes."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, cast

import msgspec
import pytest

from controller.members import Heard
from controller.netchecker_api.payload import answer
from controller.netchecker_api.presence import check
from kpatrol.reading import agents
from kpatrol.reading.show import make_console
from kpatrol.reading.store import CannotRead, Store
from topics.agent_reports import EXAMPLE as REPORT
from topics.agent_reports import AgentReport
from topics.round_verdicts import EXAMPLE as VERDICT
from topics.round_verdicts import AgentAccount

NOW_US = 1_790_000_100_000_000


class Views:
    """Two agents, one of them silent for a minute, and a third that the last round expected."""

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[Any]:
        if "v_agent" in sql:
            other = msgspec.structs.replace(REPORT, agent="node-2", node="node-2", lookups={"svc": ()})
            return [(_text(REPORT), 1.5), (_text(other), 60.0)]
        account = AgentAccount(
            agent="node-3", node="node-3", planned=1, stored=0, unsent=0, declared_missing=1, unexplained=0
        )
        return [(msgspec.json.encode(msgspec.structs.replace(VERDICT, accounts=(account,))).decode(),)]


def _text(report: AgentReport) -> str:
    return msgspec.json.encode(report).decode()


def test_the_views_tell_present_outdated_and_absent_apart() -> None:
    found = agents.from_views(cast(Store, Views()), now_us=NOW_US)
    states = {agent["Name"]: agent["State"] for agent in found["Agents"]}
    assert states == {"node-1": "present", "node-2": "outdated", "node-3": "absent"}
    assert agents.exit_code(found) == 1
    console = make_console()
    with console.capture() as printed:
        console.print(agents.table(found))
    assert "DNS on node-2 has no answer for svc" in " ".join(printed.get().split())


def test_nobody_is_nothing_known() -> None:
    nobody = answer(check(heard={}, members={}, pods=[], nodes={}, now_us=NOW_US))
    assert agents.exit_code(nobody) == 2


@contextmanager
def server(status: int, body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.handle_request)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        thread.join(5)


def test_a_controller_gives_the_same_and_a_stranger_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    heard = {"node-1": Heard(report=REPORT, at_us=NOW_US)}
    found = answer(check(heard=heard, members={"x": "n"}, pods=[], nodes={}, now_us=NOW_US))
    with server(400, json.dumps(found).encode()) as url:
        assert agents.agents(url="", server=url, as_json=True, env={}) == 1
    assert json.loads(capsys.readouterr().out)["Absent"] == ["x"]
    with server(200, b"{}") as url, pytest.raises(CannotRead, match="none of a kpatrol controller"):
        agents.agents(url="", server=url, as_json=True, env={})
    with pytest.raises(CannotRead, match="refused"):
        agents.agents(url="", server="http://127.0.0.1:1", as_json=True, env={})
