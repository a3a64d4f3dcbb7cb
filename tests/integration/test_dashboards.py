"""Every query of every dashboard, variable, annotation and alert rule, expanded and asked of a filled store.

Asked by the Go client that Grafana's data source stands on; where there is no Go (`make test CLUSTER=no`), by Python's.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec
import pytest

from bench.seed import node
from dashboards.__main__ import HERE
from dashboards.alerts import RULES, Rule
from dashboards.boards.all_boards import BOARDS
from dashboards.macros import ALL, Range, expand
from dashboards.parts import ANNOTATIONS, Board, Show
from kpatrol.reading.store import Store
from streams.alarm_things import MANY, TASK, Thing, evidence_query
from tests.integration.endpoint_fixture import READER_PASSWORD
from tests.integration.go_client import go_client, why_not
from tests.integration.seeded import DNS, LOSSY, MESH, WEB, seeded

# The filled store is healthy there: an answer without rows is the right one.
QUIET = {"Rounds whose instrument was not fit", "Loss there and back"}
TASK_OF = {"kpatrol-dns": DNS, "kpatrol-http": WEB}


class Asking(Protocol):
    """A client of the store."""

    def named_rows(self, sql: str) -> tuple[list[str], list[Any]]:
        """Names and rows of a statement."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with seeded(tmp_path_factory.mktemp("dashboards")) as endpoint:
        if not why_not():
            with go_client(endpoint, user="reader") as go:
                yield go
            return
        opened = Store(url=f"http://reader@127.0.0.1:{endpoint.port}/kpatrol", password=READER_PASSWORD)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def asked(store: Asking) -> dict[str, Range]:
    """Per board and choice: everything ("All"), and single values."""
    now = datetime.now(UTC)
    # Not every round has requests that failed: the seed draws them anew for every hour of the day.
    failing = f"SELECT round_id FROM v_probe WHERE task = '{MESH}' AND ts > now() - INTERVAL 1 DAY AND outcome != 'ok'"
    first = (
        f"SELECT toString(round_id) FROM v_finding WHERE task = '{MESH}' AND round_id IN ({failing}) "
        "ORDER BY round_at LIMIT 1"
    )
    ((round_id,),) = store.named_rows(first)[1]
    found = {}
    for board in BOARDS:
        single = {"task": [TASK_OF.get(board.uid, MESH)], "proto": ["http", "icmp"], "node": [LOSSY, node(1)]}
        single |= {"src": [LOSSY], "dst": [node(1)], "round": [round_id]}
        everything = {v.name: [ALL] if v.multi else single[v.name] for v in board.variables}
        # As long as Grafana's own default for this board, but at most what is filled.
        bounds: Mapping[str, Any] = {"since": now - timedelta(hours=2), "until": now, "options": single}
        found[f"{board.uid} all"] = Range(chosen=everything, **bounds)
        found[f"{board.uid} single"] = Range(chosen={v.name: single[v.name] for v in board.variables}, **bounds)
    return found


def test_the_evidence_of_an_alarm_is_a_query_that_runs(store: Asking) -> None:
    thing = Thing(element=f"node {LOSSY}", direction="egress", kind="loss", severity="critical", sentence="")
    names, rows = store.named_rows(evidence_query(task=MESH, thing=thing, since_us=0))
    assert rows
    assert "spared" in names
    of_task = msgspec.structs.replace(thing, element=TASK)
    assert store.named_rows(evidence_query(task=MESH, thing=of_task, since_us=0))[1]
    many = msgspec.structs.replace(thing, element=MANY, kind="it's")
    assert store.named_rows(evidence_query(task=MESH, thing=many, since_us=0))[1] == []


def panels() -> list[tuple[Board, Show]]:
    return [(board, show) for board in BOARDS for _, shows in board.rows for show in shows]


@pytest.mark.parametrize("choice", ["all", "single"])
@pytest.mark.parametrize(("board", "show"), panels(), ids=lambda x: x.uid if isinstance(x, Board) else x.title)
def test_a_panel_is_answered(store: Asking, asked: dict[str, Range], board: Board, show: Show, choice: str) -> None:
    names, rows = store.named_rows(expand(show.sql, asked[f"{board.uid} {choice}"]))
    assert rows or show.title in QUIET
    if not rows:
        return
    check_shape(show, names, rows)
    for column in show.columns:
        assert column.name in names
        assert all(value in names for _, value in column.sends)


def check_shape(show: Show, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """What Grafana can draw: time, text labels and numbers of a course; one number of a stat; three of a matrix."""
    if show.format == "timeseries":
        assert names[0] == "time"
        assert all(isinstance(row[0], datetime) for row in rows)
        assert [row[0] for row in rows] == sorted(row[0] for row in rows)
        assert all(isinstance(value, str | int | float) or value is None for row in rows for value in row[1:])
        assert any(isinstance(value, int | float) for value in rows[0][1:])
    elif show.kind == "stat":
        assert len(rows) == 1
        assert len(names) == 1
        assert isinstance(rows[0][0], int | float), rows
    elif show.kind == "matrix":
        assert tuple(names) == show.matrix
        keys = [(row[0], row[1]) for row in rows]
        assert len(keys) == len(set(keys))


@pytest.mark.parametrize("board", BOARDS, ids=lambda b: b.uid)
def test_variables_have_options(store: Asking, asked: dict[str, Range], board: Board) -> None:
    for variable in board.variables:
        names, rows = store.named_rows(expand(variable.sql, asked[f"{board.uid} all"]))
        assert rows, variable.name
        assert len(names) in (1, 2)
        assert all(isinstance(row[0], str) for row in rows)


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=lambda a: a[0])
def test_annotations_have_time_text_and_tags(
    store: Asking, asked: dict[str, Range], annotation: tuple[str, str, str]
) -> None:
    names, rows = store.named_rows(expand(annotation[2], asked["kpatrol-overview all"]))
    assert names == ["time", "text", "tags"]
    assert rows


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.uid)
def test_an_alert_rule_gives_labels_and_one_number(store: Asking, rule: Rule) -> None:
    now = datetime.now(UTC)
    names, rows = store.named_rows(expand(rule.sql, Range(since=now - timedelta(minutes=rule.minutes), until=now)))
    assert rows or rule.uid == "kpatrol-agent-silent"
    labels = [tuple(v for v in row if isinstance(v, str)) for row in rows]
    assert len(labels) == len(set(labels))
    assert all(sum(isinstance(v, int | float) for v in row) == 1 for row in rows)
    assert all(len(label) == len(names) - 1 for label in labels)
    firing = {row[-1] > rule.above for row in rows}
    expected = {"kpatrol-alarm-open": {True}, "kpatrol-agent-silent": set(), "kpatrol-loss": firing}
    assert firing == expected.get(rule.uid, {False})


def test_the_files_hold_the_very_queries_that_were_asked() -> None:
    in_files = set()
    for path in (HERE / "json").glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            in_files |= {target["rawSql"] for target in panel.get("targets", [])}
    assert in_files == {show.sql for _, show in panels()}
