"""The page of a check: one file, everything escaped, what is wrong first. A task's verdict as rows."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from kpatrol.check.config import CheckConfig
from kpatrol.check.nodes import NodeState
from kpatrol.check.page import as_html
from kpatrol.check.result import Apart, Result, kept
from kpatrol.check.task import obstacle, plan, rows_of
from tests.unit.kpatrol.check.test_check_result import ABSENT, BAD, GOOD, LEFT_OUT, UNKNOWN

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
VOID = {"meta", "link", "br"}


class Balanced(HTMLParser):
    """Every element is closed in order; addresses are noted."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.addresses += [value for name, value in attrs if name in ("href", "src")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_needs_nothing_else_and_tells_the_worst_first(lang: Any) -> None:
    odd = Apart(cluster="c", state=NodeState(node="<b>", standing="absent", why="a & b </td>"))
    changes = {BAD.key: "still_bad"}
    result = Result(rows=[BAD, UNKNOWN, GOOD], apart=[ABSENT, LEFT_OUT, odd], verdicts=(), changes=changes)  # type: ignore[arg-type]
    text = as_html(result, lang=lang, at=AT)
    page = Balanced()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.addresses == ["data:,"]
    assert not re.search(r"<script|@import|url\(", text)
    assert "a & b </td>" in page.cells, "escaped"
    assert text.index("10 of 10: refused") < text.index("nothing was heard") < text.index("<details>")


def test_a_mesh_of_many_nodes_has_rows_but_no_matrix() -> None:
    rows = [replace(GOOD, src=f"n{i}", dst=f"m{i}") for i in range(121)]
    text = as_html(Result(rows=rows, apart=(), verdicts=()), lang="en", at=AT)
    assert 'class="matrix"' not in text
    assert text.count("<tr>") == 122
    assert 'class="matrix"' in as_html(Result(rows=rows[:120], apart=(), verdicts=()), lang="en", at=AT)


def item(status: str, **nodes: list[str]) -> dict[str, Any]:
    names = {"good": "succeedAgentNodeList", "bad": "failedAgentNodeList", "silent": "notReportAgentNodeList"}
    return {"status": status, "why": "2 of 40 lost", **{names[key]: value for key, value in nodes.items()}}


@pytest.mark.parametrize(
    ("found", "rows", "code"),
    [
        (item("succeed", good=["a", "b"]), {"a": "good", "b": "good"}, 0),
        (item("fail", good=["a"], bad=["b"]), {"a": "good", "b": "bad"}, 1),
        (item("unknown", good=["a"], silent=["b"]), {"a": "unknown", "b": "unknown"}, 2),
        (item("fail", good=["a"]), {"a": "good", "*": "bad"}, 1),
        (item("unknown"), {"*": "unknown"}, 2),
    ],
)
def test_a_verdict_as_rows(found: dict[str, Any], rows: dict[str, str], code: int) -> None:
    result = Result(rows=rows_of(found, cluster="c"), apart=(), verdicts=())
    assert {row.src: row.status for row in result.rows} == rows
    assert result.exit_code(strict=False) == code
    # Of a task all is asked again: its rows are no pairs.
    assert kept(result).pairs == ()
    assert {node for _, node in kept(result).nodes} == {node for node, status in rows.items() if status != "good"}


def test_a_task_keeps_to_what_a_patrol_allows() -> None:
    spec = plan(CheckConfig(timeout_ms=3000, requests=100, rate=5.0), run="r")["spec"]
    assert spec["protocols"] == ["icmp", "tcp", "udp", "http"]
    assert spec["intervalSecond"] == 20
    assert spec["perRequestTimeoutInMS"] * 5 <= spec["intervalSecond"] * 1000
    assert plan(CheckConfig(timeout_ms=10), run="r")["spec"]["intervalSecond"] == 5


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (CheckConfig(), ""),
        (CheckConfig(mode="node"), "mode node"),
        (CheckConfig(peer_kubeconfig="b"), "two clusters"),
        (CheckConfig(addresses=("10.0.0.1",), ports=(80,)), "addresses of your own"),
        (CheckConfig(protocols=("dns",)), "no mesh"),
    ],
)
def test_what_no_task_can_ask(config: CheckConfig, why: str) -> None:
    assert obstacle(config) == why
