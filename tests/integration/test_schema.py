"""Tables, views and migrations on a real endpoint, through the streams' own door."""

import os
import shutil
import subprocess
import sys
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import clickhouse_connect
import msgspec
import numpy as np
import pyarrow as pa
import pytest

import streams.migrate
from streams.clickhouse import Attempts, ClickHouse, ClickHouseAway, ClickHouseRefused, StoredBatch
from streams.expand import TargetTables, deliver, expand
from streams.judging.findings import evidence_where
from streams.migrate import Migration, MigrationRefused, Values
from tests.integration.endpoint_fixture import READER_PASSWORD, WRITER_PASSWORD, Endpoint, running_endpoint
from tests.unit.streams.judging.mesh import line, nodes, table
from tests.unit.streams.judging.test_places import CASES, found, mesh
from topics import probe_results
from topics.ids import span_id
from topics.outcome import Layer, Outcome, Proto

SOURCE = Path(streams.migrate.__file__).parent
START_US = 1_790_000_000_000_000


def door(endpoint: Endpoint, user: str = "writer", database: str = "kpatrol") -> ClickHouse:
    password = {"writer": WRITER_PASSWORD, "reader": READER_PASSWORD}[user]
    return ClickHouse(url=f"http://{user}@127.0.0.1:{endpoint.port}/{database}", password=password)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with running_endpoint(tmp_path_factory.mktemp("schema")) as running:
        clickhouse = door(running)
        clickhouse.wait_ready(timeout_s=60)
        # START_US is a fixed day: let no TTL drop it.
        Migration(clickhouse=clickhouse, values=Values(raw_days=7300, minute_days=7300)).apply()
        clickhouse.close()
        yield running


@pytest.fixture
def writer(endpoint: Endpoint) -> Iterator[ClickHouse]:
    clickhouse = door(endpoint)
    yield clickhouse
    clickhouse.close()


def batch(
    *, round_id: int, agent: str, batch_seq: int = 0, rows: int = 500, outcome: Outcome = Outcome.ok, seed: int = 1
) -> probe_results.Batch:
    head = probe_results.BatchHead(
        round_id=round_id,
        round_number=1,
        start_us=START_US,
        task="netreach/t",
        task_uid="u",
        agent=agent,
        incarnation=7,
        batch_seq=batch_seq,
        node=agent,
        trace_id="0af7651916cd43dd8448eb211c80319c",
        zone="z1",
        targets=tuple(
            probe_results.BatchTarget(
                name=f"T_{n}", dst=f"node-{n}", dst_node=f"node-{n}", dst_zone="z2", proto=Proto.http, layer=Layer.pod,
                dst_ip=f"10.0.0.{n}", src_ip="fd00::1", dst_port=80, size=64,
            )
            for n in range(4)
        ),
        peers=("", "node-9"),
    )  # fmt: skip
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {name: array(code, [0] * rows) for name, code in probe_results.TYPECODES.items()}
    columns["seq"] = array("I", range(batch_seq * rows, (batch_seq + 1) * rows))
    columns["target"] = array("H", [n % 4 for n in range(rows)])
    columns["planned_us"] = array("Q", [n * 1000 for n in range(rows)])
    columns["lateness_us"] = array("I", random.integers(0, 50, rows).tolist())
    columns["dur_us"] = array("I", random.integers(100, 100_000, rows).tolist())
    columns["outcome"] = array("B", [int(outcome)] * rows)
    columns["sent"] = array("I", [3] * rows)
    columns["lost"] = array("I", [n % 2 for n in range(rows)])
    return probe_results.decode(probe_results.encode_columns(head=head, columns=columns, rows=rows))


def stored(batches: list[probe_results.Batch], *, partition: int = 0, first: int = 0) -> pa.RecordBatch:
    tables = TargetTables()
    return expand([deliver(b, partition=partition, offset=first + n, tables=tables) for n, b in enumerate(batches)])


def numbers(clickhouse: ClickHouse, sql: str) -> dict[str, Any]:
    return clickhouse.query_rows(sql)[0]


def test_a_second_run_does_nothing(writer: ClickHouse) -> None:
    migration = Migration(clickhouse=writer, values=Values(raw_days=7300, minute_days=7300))
    assert migration.apply() == []
    steps = migration.status()
    assert {s.state for s in steps} == {"applied"}
    assert len(steps) == len(list((SOURCE / "schema").glob("*.sql"))) + len(list((SOURCE / "views").glob("*.sql")))


def test_the_cluster_variant_of_every_file_parses(writer: ClickHouse) -> None:
    values = Values(cluster="main").placeholders()
    for path in [*(SOURCE / "schema").glob("*.sql"), *(SOURCE / "views").glob("*.sql")]:
        text = path.read_text(encoding="utf-8")
        for name, value in values.items():
            text = text.replace(f"${{{name}}}", value)
        formatted = numbers(
            writer, "SELECT formatQuery('" + text.replace("\\", "\\\\").replace("'", "\\'") + "') AS f"
        )["f"]
        assert "ON CLUSTER main" in formatted, path.name


def test_edited_missing_and_new_files_are_told_apart(tmp_path: Path) -> None:
    with running_endpoint(tmp_path) as running:
        clickhouse = door(running)
        schema, views = tmp_path / "schema", tmp_path / "views"
        shutil.copytree(SOURCE / "schema", schema)
        shutil.copytree(SOURCE / "views", views)
        migration = Migration(clickhouse=clickhouse, schema=schema, views=views)
        before = migration.status()
        assert {s.state for s in before} == {"pending"}
        assert len(migration.apply()) == len(before)

        (schema / "0099_more.sql").write_text(
            "-- more\nCREATE TABLE more (a UInt8) ENGINE = ${NOT_THERE}MergeTree ORDER BY a\n"
        )
        with pytest.raises(MigrationRefused, match=r"0099_more\.sql.*NOT_THERE"):
            migration.apply()
        (schema / "0099_more.sql").write_text(
            "-- more\nCREATE TABLE more (a UInt8) ENGINE = ${ENGINE}MergeTree ORDER BY a\n"
        )
        assert [s.file for s in migration.apply()] == ["0099_more.sql"]

        view = views / "46_v_event.sql"
        view.write_text(view.read_text().replace("SELECT *", "SELECT at, object"))
        assert [(s.file, s.state) for s in migration.apply()] == [("46_v_event.sql", "changed")]
        columns = clickhouse.query_rows(
            "SELECT name FROM system.columns WHERE database = 'kpatrol' AND table = 'v_event'"
        )
        assert [c["name"] for c in columns] == ["at", "object"]

        probe = schema / "0001_probe.sql"
        original = probe.read_text()
        probe.write_text(original + "-- edited\n")
        with pytest.raises(MigrationRefused, match=r"0001_probe\.sql was edited"):
            migration.apply()
        probe.write_text(original)
        (schema / "0099_more.sql").unlink()
        with pytest.raises(MigrationRefused, match=r"0099_\?\.sql was applied here but is not among the files"):
            migration.apply()
        clickhouse.close()


def test_the_command_migrates_says_what_it_did_and_what_is_wrong(tmp_path: Path) -> None:
    with running_endpoint(tmp_path) as running:
        env = {
            **os.environ,
            "KPATROL_CLICKHOUSE_URL": f"http://writer@127.0.0.1:{running.port}/kpatrol",
            "KPATROL_CLICKHOUSE_PASSWORD_FILE": str(running.password_file),
        }

        def run(*arguments: str, **changed: str) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [sys.executable, "-m", "streams.migrate", *arguments],
                env={**env, **changed}, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip

        assert "pending  table  0001_probe.sql" in run("--dry-run").stdout
        first = run()
        assert (first.returncode, first.stdout.splitlines()[0]) == (0, "done     table  0001_probe.sql")
        assert run().stdout == "nothing to do\n"
        refused = run(KPATROL_CLICKHOUSE_URL=f"http://nobody@127.0.0.1:{running.port}/kpatrol")
        assert refused.returncode == 2
        assert "Authentication failed" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_rows_of_the_sink_arrive_as_they_are(writer: ClickHouse) -> None:
    writer.insert_arrow(table="probe", rows=stored([batch(round_id=1, agent="node-0")]), token="types")
    row = numbers(
        writer,
        "SELECT *, total_us, span_id, lower(hex(trace_id)) AS trace, toUnixTimestamp64Micro(ts) AS ts_us, "
        "toUnixTimestamp64Milli(round_at) AS at_ms, toString(dst_ip) AS dst_text "
        "FROM probe WHERE round_id = 1 AND seq = 5",
    )
    assert (row["task"], row["src_node"], row["agent"], row["dst"], row["target"]) == (
        *("netreach/t", "node-0", "node-0", "node-1", "T_1"),
    )
    assert (row["proto"], row["layer"], row["family"], row["outcome"]) == ("http", "pod", "ipv4", "ok")
    assert (row["dst_text"], row["dst_port"], row["size"]) == ("::ffff:10.0.0.1", 80, 64)
    assert (row["ts_us"], row["at_ms"]) == (START_US + 5000, START_US // 1000)
    assert row["total_us"] == row["lateness_us"] + row["dur_us"]
    assert row["span_id"] == span_id(trace_id=bytes.fromhex(row["trace"]), seq=5)


def test_total_time_stays_at_the_greatest_number_of_its_column(writer: ClickHouse) -> None:
    rows = stored([batch(round_id=12, agent="node-0", rows=4)])
    most = pa.array([2**32 - 1] * 4, type=pa.uint32())
    for name in ("lateness_us", "dur_us"):
        rows = rows.set_column(rows.schema.names.index(name), name, most)
    writer.insert_arrow(table="probe", rows=rows, token="most")
    greatest = numbers(writer, "SELECT min(total_us) AS a, max(total_us) AS b FROM v_probe WHERE round_id = 12")
    assert greatest == {"a": 2**32 - 1, "b": 2**32 - 1}


def test_span_ids_agree_for_many_trace_ids_and_seqs(writer: ClickHouse) -> None:
    rows = stored([batch(round_id=2, agent="a"), batch(round_id=2, agent="b", batch_seq=3)])
    random = np.random.default_rng(5)
    traces = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), rows.num_rows, [None, pa.py_buffer(random.bytes(16 * rows.num_rows))]
    )
    rows = rows.set_column(rows.schema.names.index("trace_id"), "trace_id", traces)
    writer.insert_arrow(table="probe", rows=rows, token="spans")
    found = writer.query_rows("SELECT lower(hex(trace_id)) AS trace, seq, span_id FROM probe WHERE round_id = 2")
    assert len(found) == 1000
    assert all(r["span_id"] == span_id(trace_id=bytes.fromhex(r["trace"]), seq=r["seq"]) for r in found)


def test_a_flush_sent_again_is_stored_once_in_table_and_view(writer: ClickHouse) -> None:
    rows = stored([batch(round_id=3, agent="node-0"), batch(round_id=3, agent="node-1")])
    before = numbers(writer, "SELECT sum(n) AS n FROM node_1m")["n"]
    for _ in range(3):
        writer.insert_arrow(table="probe", rows=rows, token="probe-results-v1-0-0-1")
    assert numbers(writer, "SELECT count() AS n FROM probe WHERE round_id = 3")["n"] == 1000
    assert numbers(writer, "SELECT sum(n) AS n FROM node_1m")["n"] - before == 1000


def test_a_batch_cut_otherwise_merges_away_and_is_counted_as_duplicate(writer: ClickHouse) -> None:
    one, two = batch(round_id=4, agent="node-0"), batch(round_id=4, agent="node-0", batch_seq=1)
    writer.insert_arrow(table="probe", rows=stored([one]), token="a")
    writer.insert_arrow(table="probe", rows=stored([one, two]), token="b")
    at_ms = START_US // 1000
    pairs = writer.pair_table(round_id=4, round_at_ms=at_ms, until_ms=at_ms + 60_000).to_pylist()
    assert sum(p["n"] for p in pairs) == 1000
    assert {p["round_rows"] for p in pairs} in ({1500}, {1000})  # 1000 when already merged
    assert numbers(writer, "SELECT count() AS n FROM probe FINAL WHERE round_id = 4")["n"] == 1000


def test_the_pair_table_is_the_sum_of_its_rows(writer: ClickHouse) -> None:
    batches = [
        batch(round_id=5, agent="node-0", seed=1),
        batch(round_id=5, agent="node-1", seed=2),
        batch(round_id=5, agent="node-1", batch_seq=1, outcome=Outcome.timeout, seed=3),
        batch(round_id=5, agent="node-1", batch_seq=2, outcome=Outcome.wrong_peer, seed=4),
    ]
    rows = stored(batches)
    writer.insert_arrow(table="probe", rows=rows, token="pairs")
    at_ms = START_US // 1000
    table = writer.pair_table(round_id=5, round_at_ms=at_ms, until_ms=at_ms + 60_000)
    pairs = {(p["src_agent"], p["dst"]): p for p in table.to_pylist()}
    assert len(pairs) == 8
    ok = batches[1].rows.to_pandas()
    ok = ok[ok["target"] == 2]
    late = ok["lateness_us"].to_numpy().astype(np.int64)
    total = late + ok["dur_us"].to_numpy()
    found = pairs["node-1", "node-2"]
    assert (found["n"], found["ok"], found["round_rows"]) == (375, 125, 2000)
    assert dict(found["outcomes"]) == {"ok": 125, "timeout": 125, "wrong_peer": 125}
    # What another pod answered says nothing about this pair's packets.
    assert (found["packets_sent"], found["packets_lost"]) == (750, 0)
    assert pairs["node-1", "node-1"]["packets_lost"] == 250
    assert (found["total_us_sum"], found["total_us_min"], found["total_us_max"]) == (
        total.sum(),
        total.min(),
        total.max(),
    )
    assert found["sent_us_sum"] == ok["dur_us"].sum()
    buckets, counts = np.unique(np.floor(np.log2(total) * 8).astype(int), return_counts=True)
    assert dict(found["hist_total"]) == dict(zip(buckets.tolist(), counts.tolist(), strict=True))
    assert (found["src_zone"], found["dst_zone"], found["proto"], found["layer"], found["size"]) == (
        *("z1", "z2", "http", "pod", 64),
    )
    assert writer.pair_table(round_id=99, round_at_ms=at_ms, until_ms=at_ms + 60_000).num_rows == 0


def test_the_view_and_the_judges_query_agree(writer: ClickHouse) -> None:
    writer.insert_arrow(table="probe", rows=stored([batch(round_id=6, agent="node-0")]), token="agree")
    at_ms = START_US // 1000
    mine = writer.pair_table(round_id=6, round_at_ms=at_ms, until_ms=at_ms + 60_000).drop_columns(["round_rows"])
    names = ", ".join(mine.schema.names)
    where = "round_id = 6 AND proto = 'http' AND task = 'netreach/t'"
    seen = writer.query_arrow(f"SELECT {names} FROM v_pair_round WHERE {where} ORDER BY src_agent, dst")
    assert seen.to_pylist() == mine.to_pylist()
    assert seen.num_rows == 4


def test_the_queries_behind_findings_of_every_kind_run_as_a_reader_runs_them(endpoint: Endpoint) -> None:
    told = [f for *_, lose in CASES for f in found(mesh(lambda *way, lose=lose: 0.05 if lose(*way) else 0.0))]
    told += found(mesh(lambda *way: 0.05 if way[2] == 1400 else 0.0, sizes=(0, 1400), count=9))
    layers = ((layer, src, dst) for layer in ("pod", "host") for src in nodes(4) for dst in nodes(4) if src != dst)
    told += found(
        table([line(src, dst, layer=layer, packets_lost=9 * (layer == "host")) for layer, src, dst in layers])
    )
    queries = {f.direction + f.element.split(" ")[0]: f.evidence_sql for f in told}
    queries["silent"] = evidence_where(node="it's", round_id=7, start_us=START_US)
    assert len(queries) == 10
    reader = door(endpoint, "reader")
    for name, sql in queries.items():
        assert reader.query_rows(sql) == [], name
    reader.close()


def test_stored_offsets_and_batches_are_read_back(writer: ClickHouse) -> None:
    batches = [batch(round_id=7, agent="node-0", batch_seq=n, rows=10) for n in range(5)]
    writer.insert_arrow(table="probe", rows=stored(batches, partition=6, first=100), token="offsets")
    assert writer.stored_offsets("probe", 6, 0) == {100, 101, 102, 103, 104}
    assert writer.stored_offsets("probe", 6, 103) == {103, 104}
    assert writer.stored_offsets("probe", 5, 0) == set()
    assert writer.stored_batches("probe", 6, 104) == {
        104: StoredBatch(round_id=7, agent="node-0", incarnation=7, batch_seq=4)
    }
    assert writer.stored_offsets("receipt", 0, 0) == set()


def test_quantiles_of_histograms_are_near_the_exact_ones(writer: ClickHouse) -> None:
    values = np.random.default_rng(3).lognormal(6.5, 0.6, 50_000).astype(np.uint32)
    buckets, counts = np.unique(np.floor(np.log2(np.maximum(values, 1)) * 8).astype(int), return_counts=True)
    histogram = "map(" + ", ".join(f"{b}::UInt8, {c}::UInt64" for b, c in zip(buckets, counts, strict=True)) + ")"
    for q in (0.01, 0.5, 0.9, 0.99, 0.999):
        found = numbers(writer, f"SELECT hist_quantile({histogram}, {q}) AS x")["x"]
        exact = float(np.quantile(values, q))
        assert abs(found - exact) / exact < 0.03, q
    empty = numbers(writer, "SELECT hist_quantile(CAST(map(), 'Map(UInt8, UInt64)'), 0.5) AS x")
    assert empty == {"x": None}


def test_buckets_agree_with_numpy_at_every_edge(writer: ClickHouse) -> None:
    edges = sorted({v for k in range(256) for v in (int(2 ** (k / 8)) + d for d in (-1, 0, 1)) if 0 <= v < 2**32})
    sql = "SELECT arrayMap(x -> toUInt8(least(255, floor(log2(greatest(x, 1)) * 8))), {v:Array(UInt32)}) AS b"
    found = writer.query_rows(sql, {"v": edges})[0]["b"]
    expected = np.minimum(255, np.floor(np.log2(np.maximum(np.array(edges), 1)) * 8)).astype(int)
    assert list(found) == expected.tolist()


def test_the_newest_revision_of_a_round_counts(writer: ClickHouse) -> None:
    for revision, verdict in ((1, "unknown"), (3, "fail"), (2, "succeed")):
        writer.insert_rows(
            table="round",
            columns=[
                "round_id",
                "round_number",
                "round_at",
                "task",
                "revision",
                "verdict",
                "success_rate",
                "unexplained",
            ],
            rows=[[8, 1, datetime.fromtimestamp(START_US / 1e6, UTC), "netreach/t", revision, verdict, None, -1]],
        )
    newest = writer.query_rows("SELECT revision, verdict, success_rate, unexplained FROM v_round WHERE round_id = 8")
    assert newest == [{"revision": 3, "verdict": "fail", "success_rate": None, "unexplained": -1}]
    assert numbers(writer, "SELECT count() AS n FROM v_round_revision WHERE round_id = 8") == {"n": 3}


def test_every_view_can_be_read_by_the_reader(endpoint: Endpoint) -> None:
    reader = door(endpoint, "reader")
    views = [r["name"] for r in reader.query_rows("SELECT name FROM system.tables WHERE name LIKE 'v\\_%'")]
    assert len(views) == len(list((SOURCE / "views").glob("*_v_*.sql")))
    for view in views:
        reader.query_rows(f"SELECT * FROM {view} LIMIT 1")
    with pytest.raises(ClickHouseRefused) as caught:
        reader.command("DROP VIEW v_probe")
    assert caught.value.code == 164
    reader.close()


def test_derived_views_agree_with_the_rows(writer: ClickHouse) -> None:
    writer.insert_arrow(table="probe", rows=stored([batch(round_id=9, agent="node-0")]), token="derived")
    worst = writer.query_rows("SELECT * FROM v_worst_pairs WHERE round_id = 9 ORDER BY loss_rate DESC, dst")
    assert [(w["dst"], round(w["loss_rate"], 6)) for w in worst] == [
        ("node-1", 0.333333),
        ("node-3", 0.333333),
        ("node-0", 0.0),
        ("node-2", 0.0),
    ]
    assert all(100 < w["p50_us"] < w["p99_us"] <= w["max_us"] * 1.1 for w in worst)
    matrix = writer.query_rows("SELECT sum(n) AS n, sum(packets_lost) AS lost FROM v_matrix WHERE round_id = 9")
    assert matrix == [{"n": 500, "lost": 250}]
    shown = numbers(writer, "SELECT dst_ip, src_ip, span_id FROM v_probe WHERE round_id = 9 AND seq = 1")
    assert (shown["dst_ip"], shown["src_ip"]) == ("10.0.0.1", "fd00::1")


def test_the_view_of_datagrams_says_what_they_met_on_the_way(writer: ClickHouse) -> None:
    # outcome, error, status, min_rtt_us, there_us, datagrams that came
    met = [
        (Outcome.ok, 0, 0, 200, 100, 1),
        (Outcome.ok, 0, 1, 230, 130, 1),
        (Outcome.ok, 0, 2, 290, 100, 3),
        (Outcome.ok, 0, 4, 200, 100, 1),
        (Outcome.timeout, 1, 0, 0, 0, 0),
        (Outcome.timeout, 2, 0, 0, 0, 0),
        (Outcome.timeout, 3, 0, 0, 0, 0),
        (Outcome.unreachable, 4, 1400, 0, 0, 0),
    ]
    template = batch(round_id=11, agent="node-0", rows=len(met))
    columns: dict[str, Any] = {name: array(code, [0] * len(met)) for name, code in probe_results.TYPECODES.items()}
    columns["seq"] = array("I", range(len(met)))
    columns["sent"] = array("I", [1] * len(met))
    for name, place in {"outcome": 0, "error": 1, "status": 2, "min_rtt_us": 3, "there_us": 4, "segs_in": 5}.items():
        columns[name] = array(probe_results.TYPECODES[name], [int(row[place]) for row in met])
    columns["dur_us"] = array("I", [row[3] + 10 for row in met])
    columns["resp_bytes"] = array("I", [104 if row[0] is Outcome.ok else 0 for row in met])
    udp = tuple(msgspec.structs.replace(t, proto=Proto.udp) for t in template.head.targets)
    errors = ("", "request_lost", "reply_lost", "timeout", "message_too_long")
    head = msgspec.structs.replace(template.head, targets=udp, errors=errors)
    one = probe_results.decode(probe_results.encode_columns(head=head, columns=columns, rows=len(met)))
    writer.insert_arrow(table="probe", rows=stored([one]), token="datagrams")
    (seen,) = writer.query_rows("SELECT * FROM v_datagram WHERE round_id = 11")
    expected = {
        "requests": 8, "answered": 4, "lost_there": 1, "lost_back": 1, "lost_unknown": 1, "reordered_there": 1,
        "reordered_back": 1, "duplicated_there": 1, "extra_replies": 2, "too_long": 1, "path_mtu": 1400,
        "rtt_min_us": 210, "pdv_p99_us": 90, "pdv_there_p99_us": 30, "pdv_back_p99_us": 90,
    }  # fmt: skip
    assert {name: seen[name] for name in expected} == expected


def test_an_insert_is_tried_again_until_the_endpoint_is_back(tmp_path: Path) -> None:
    with running_endpoint(tmp_path) as running:
        clickhouse = door(running)
        Migration(clickhouse=clickhouse, values=Values(raw_days=7300)).apply()
        rows = stored([batch(round_id=1, agent="node-0")])
        running.kill()
        waits: list[float] = []

        def revive_at_the_second(wait_s: float) -> None:
            waits.append(wait_s)
            if len(waits) == 2:
                running.start()

        patient = ClickHouse(
            url=f"http://writer@127.0.0.1:{running.port}/kpatrol",
            password=WRITER_PASSWORD,
            attempts=Attempts(count=4),
            sleep=revive_at_the_second,
        )
        patient.insert_arrow(table="probe", rows=rows, token="x")
        assert patient.query_rows("SELECT count() AS n FROM probe") == [{"n": 500}]
        with pytest.raises(ClickHouseRefused):
            patient.insert_arrow(table="nope", rows=rows, token="y")
        running.kill()
        with pytest.raises(ClickHouseAway):
            clickhouse.command("SELECT 1")
        running.start()
        assert clickhouse.ping()
        clickhouse.close()
        patient.close()


def test_a_plain_client_sees_the_same_count(endpoint: Endpoint, writer: ClickHouse) -> None:
    writer.insert_arrow(table="probe", rows=stored([batch(round_id=10, agent="node-0")]), token="count")
    with clickhouse_connect.get_client(
        host="127.0.0.1", port=endpoint.port, username="reader", password=READER_PASSWORD
    ) as client:
        assert client.command("SELECT count() FROM v_probe WHERE round_id = 10") == 500
