"""The documented queries, `kpatrol history` and `kpatrol sql`, on a filled store and with the reader's rights."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.seed import node
from kpatrol.reading.store import Store
from tests.integration.endpoint_fixture import READER_PASSWORD, Endpoint
from tests.integration.seeded import LOSSY, MESH, seeded

ROOT = Path(__file__).parents[2]


def queries() -> list[str]:
    found = []
    for page in ("queries.md", "tables.md"):
        found += re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    return found


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with seeded(tmp_path_factory.mktemp("queries")) as running:
        yield running


@pytest.fixture(scope="module")
def store(endpoint: Endpoint) -> Iterator[Store]:
    opened = Store(url=f"http://reader@127.0.0.1:{endpoint.port}/kpatrol", password=READER_PASSWORD)
    yield opened
    opened.close()


@pytest.mark.parametrize("sql", queries(), ids=lambda sql: " ".join(sql.split())[:60])
def test_a_documented_query_is_answered(store: Store, sql: str) -> None:
    # Receipts and one fixed round are not in the filled store: such a query only has to be right.
    fixed = "round_id = 7" in sql
    names, rows = store.named_rows(sql)
    assert names
    assert rows or fixed


def test_there_are_documented_queries() -> None:
    assert len(queries()) >= 20


def run(endpoint: Endpoint, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    url = f"http://reader:{READER_PASSWORD}@127.0.0.1:{endpoint.port}/kpatrol"
    environment = {**os.environ, "KPATROL_CLICKHOUSE_URL": url, "COLUMNS": "160"}
    return subprocess.run(
        [sys.executable, "-m", "kpatrol", *arguments], env=environment,
        input=stdin, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_history_says_who_loses_with_interval_and_course(endpoint: Endpoint) -> None:
    done = run(endpoint, "history", "mesh", "--since", "1d", "--by", "node", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    lines = {line["name"]: line for line in found["lines"]}
    assert found["source"] == "v_pair_1h"
    worst = max(lines.values(), key=lambda line: line["loss_low"] or 0)
    assert worst["name"] == f"from {LOSSY}"
    # The interval holds the true rate 19 times in 20; this holds always.
    assert 0.03 < worst["loss_low"] < worst["loss_high"] < 0.08
    assert lines[f"to {LOSSY}"]["loss_high"] < 0.03
    assert all(line["p50_us"] <= line["p99_us"] for line in lines.values())
    raw = run(endpoint, "sql", f"SELECT sum(lost) AS lost, count() AS n FROM v_probe WHERE task = '{MESH}'", "--json")
    total = json.loads(run(endpoint, "history", MESH, "--since", "1d", "--json").stdout)["lines"][0]
    assert json.loads(raw.stdout) == [{"lost": total["packets_lost"], "n": total["requests"]}]
    assert sum(point["requests"] for point in total["points"]) == total["requests"]


def test_history_of_a_pair_has_both_ways_in_a_table_with_charts(endpoint: Endpoint) -> None:
    done = run(endpoint, "history", MESH, "--since", "2h", "--pair", f"{node(1)},{LOSSY}")
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert f"{LOSSY} → {node(1)}" in text
    assert f"{node(1)} → {LOSSY}" in text
    assert "from v_pair_1m, 5 min a point" in text
    assert "packet loss [95 %]" in text
    assert re.search(r"│.*[▁▂▃▄▅▆▇█]", text)


def test_history_compares_and_writes_csv(endpoint: Endpoint) -> None:
    done = run(endpoint, "history", MESH, "--since", "1h", "--by", "zone", "--compare", "1h", "--json")
    lines = json.loads(done.stdout)["lines"]
    assert {line["change"] for line in lines} <= {"worse", "better", "same", "unknown"}
    assert all(line["before"]["requests"] > 0 for line in lines)
    table = run(endpoint, "history", MESH, "--since", "1h", "--by", "protocol", "--csv")
    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    assert {row["name"] for row in rows} == {"icmp", "udp", "tcp", "http"}
    assert sum(int(row["requests"]) for row in rows if row["name"] == "tcp") > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("history", "nobody"), "nothing of task 'nobody'"),
        (("history", "--since", "yesterday"), "--since: found 'yesterday'"),
        (("history", "--pair", "a"), "--pair: found 'a', expected source,destination"),
        (("history", "--protocol", "quic"), "--protocol: found 'quic', allowed: icmp"),
        (("history", "--json", "--csv"), "choose one of"),
        (("sql", "DROP VIEW v_probe"), "ClickHouse at"),
        (("sql", "SELECT count() FROM probe"), "views only"),
        (("sql", "SELECT nonsense"), "ClickHouse at"),
    ],
)
def test_what_cannot_be_answered_is_said_in_one_line(endpoint: Endpoint, arguments: tuple[str, ...], said: str) -> None:
    done = run(endpoint, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_sql_from_standard_input_as_table_json_and_csv(endpoint: Endpoint) -> None:
    statement = "SELECT task, count() AS n, max(ts) AS last FROM v_probe GROUP BY task ORDER BY task;"
    assert MESH in run(endpoint, "sql", stdin=statement).stdout
    rows = json.loads(run(endpoint, "sql", statement, "--json").stdout)
    assert [row["task"] for row in rows] == ["apphttphealthy/web", "netdns/names", "netpatrol/mesh"]
    head, *lines = run(endpoint, "sql", statement, "--csv").stdout.splitlines()
    assert (head, len(lines)) == ("task,n,last", 3)
    assert run(endpoint, "sql", "SELECT task FROM v_probe WHERE 0", "--csv").stdout == "task\n"
    views = json.loads(run(endpoint, "sql", "--views", "--json").stdout)
    listed = {v["view"] for v in views}
    assert listed == {p.name[3:-4] for p in (ROOT / "streams" / "views").glob("*_v_*.sql")} | {"otel_traces"}
    assert all(v["what"] for v in views)
