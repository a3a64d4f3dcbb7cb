"""`kpatrol agents`: who reports, who is absent, who is outdated, and why. From ClickHouse's views or a controller."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import msgspec
from rich.console import Group
from rich.table import Table
from rich.text import Text

from controller.members import Heard
from controller.netchecker_api.payload import answer
from controller.netchecker_api.presence import check
from kpatrol.reading.show import make_console, open_store
from kpatrol.reading.store import CannotRead, Store
from topics.agent_reports import AgentReport
from topics.round_verdicts import RoundVerdict

Json = dict[str, Any]

_STYLES = {"absent": "bold red", "outdated": "bold red", "node": "yellow", "starting": "yellow", "present": "green"}
_ANSWER_PATIENCE_S = 10


def agents(*, url: str, server: str, as_json: bool, env: Mapping[str, str]) -> int:
    """Print; the exit code: 0 all report, 1 somebody does not, 2 nobody is expected. Raises CannotRead."""
    found = _asked(server) if server else _read(url, env)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        make_console().print(table(found))
    return exit_code(found)


def exit_code(found: Json) -> int:
    """0, 1 or 2. Nobody expected is nothing known."""
    if not found["Expected"]:
        return 2
    return 1 if found["Absent"] or found["Outdated"] else 0


def table(found: Json) -> Group:
    """The answer for a person: every agent, worst first, then the verdict."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("agent", "node", "network", "state", "last report", "version", "reason"):
        rows.add_column(name, justify="right" if name == "last report" else "left", overflow="fold")
    for agent in found["Agents"]:
        age = agent["AgeSeconds"]
        rows.add_row(
            agent["Name"],
            agent["Node"],
            agent["Flavour"],
            Text(agent["State"], style=_STYLES.get(agent["State"], "")),
            "never" if age is None else f"{age:.1f} s",
            agent["Version"],
            agent["Reason"] or "; ".join(agent["Notes"]),
        )
    return Group(rows, Text(""), Text(found["Message"], style="bold green" if exit_code(found) == 0 else "bold red"))


def _read(url: str, env: Mapping[str, str]) -> Json:
    store = open_store(url=url, env=env)
    try:
        return from_views(store, now_us=time.time_ns() // 1000)
    finally:
        store.close()


def from_views(store: Store, *, now_us: int) -> Json:
    """The answer from what is stored: agents of the last day, and those that the last round expected."""
    rows = store.rows("SELECT document, silent_s FROM v_agent WHERE silent_s < 86400")
    heard = {}
    for document, silent_s in rows:
        report = msgspec.json.decode(document, type=AgentReport)
        heard[report.agent] = Heard(report=report, at_us=now_us - round(silent_s * 1e6))
    last = store.rows("SELECT document FROM v_round ORDER BY round_at DESC LIMIT 1")
    members = {}
    for (document,) in last:
        accounts = msgspec.json.decode(document, type=RoundVerdict).accounts
        members = {account.agent: account.node for account in accounts}
    return answer(check(heard=heard, members=members, pods=[], nodes={}, now_us=now_us))


def _asked(server: str) -> Json:
    address = server.rstrip("/") + "/api/v1/connectivity_check"
    try:
        with urllib.request.urlopen(address, timeout=_ANSWER_PATIENCE_S) as reply:
            body = reply.read()
    except urllib.error.HTTPError as error:
        # 400 is netchecker's way to say that somebody is missing.
        body = error.read() if error.code == 400 else b""
    except (OSError, ValueError) as error:
        raise CannotRead(f"{address}: {getattr(error, 'reason', error)}") from error
    try:
        found: Json = json.loads(body)
        if not {"Agents", "Expected", "Message"} <= found.keys():
            raise ValueError
    except (ValueError, AttributeError) as error:
        raise CannotRead(f"{address}: the answer is none of a kpatrol controller") from error
    return found
