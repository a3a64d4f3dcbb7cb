"""The endpoint as its clients see it: a real process, clickhouse-connect over HTTP, and raw requests."""

import asyncio
import http.client
import json
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from tests.integration.endpoint_fixture import READER_PASSWORD, WRITER_PASSWORD, Endpoint, running_endpoint

TABLE = (
    "CREATE TABLE IF NOT EXISTS {name} (a UInt64, s LowCardinality(String), m Map(String, UInt8)) ENGINE = MergeTree "
    "ORDER BY a SETTINGS non_replicated_deduplication_window = 1000"
)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with running_endpoint(tmp_path_factory.mktemp("endpoint"), "--max-body-bytes", str(8 << 20)) as running:
        yield running


def client(endpoint: Endpoint, user: str = "writer", **options: Any) -> Any:
    return clickhouse_connect.get_client(
        host="127.0.0.1",
        port=endpoint.port,
        username=user,
        password={"writer": WRITER_PASSWORD, "reader": READER_PASSWORD}[user],
        database="kpatrol",
        autogenerate_session_id=False,
        **options,
    )


@pytest.fixture
def writer(endpoint: Endpoint) -> Iterator[Any]:
    with client(endpoint) as connected:
        yield connected


@pytest.fixture
def reader(endpoint: Endpoint) -> Iterator[Any]:
    with client(endpoint, "reader") as connected:
        yield connected


@pytest.fixture
def table(writer: Any) -> str:
    name = f"t_{uuid.uuid4().hex[:8]}"
    writer.command(TABLE.format(name=name))
    return name


def raw(
    endpoint: Endpoint,
    body: bytes = b"",
    *,
    user: str = "writer",
    headers: dict[str, str] | None = None,
    method: str = "POST",
    **query: str,
) -> tuple[int, bytes, dict[str, str]]:
    password = {"writer": WRITER_PASSWORD, "reader": READER_PASSWORD}.get(user, "wrong")
    url = f"{endpoint.url}/?{urllib.parse.urlencode(query)}"
    sent = {"X-ClickHouse-User": user, "X-ClickHouse-Key": password, **(headers or {})}
    request = urllib.request.Request(url, data=body if method == "POST" else None, headers=sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), dict(error.headers)


def test_ping_needs_no_account(endpoint: Endpoint) -> None:
    with urllib.request.urlopen(f"{endpoint.url}/ping", timeout=60) as answer:
        assert answer.read() == b"Ok.\n"


def test_pages_say_that_the_engine_answers_and_what_was_asked(endpoint: Endpoint, reader: Any) -> None:
    reader.query("SELECT 1")
    for path in ("/livez", "/readyz"):
        with urllib.request.urlopen(endpoint.url + path, timeout=60) as reply:
            assert reply.read() == b"ok\n"
    with urllib.request.urlopen(endpoint.url + "/metrics", timeout=60) as reply:
        lines = reply.read().decode().splitlines()
    assert any(line.startswith('kpatrol_endpoint_statements_total{code="200"}') for line in lines)
    assert any(line.startswith("process_resident_memory_bytes") for line in lines)


def test_wrong_credentials_are_403_516(endpoint: Endpoint) -> None:
    status, body, headers = raw(endpoint, b"SELECT 1", user="nobody")
    assert status == 403
    assert headers["X-ClickHouse-Exception-Code"] == "516"
    assert b"AUTHENTICATION_FAILED" in body
    with pytest.raises(DatabaseError, match="516"):
        clickhouse_connect.get_client(host="127.0.0.1", port=endpoint.port, username="writer", password="no")


def test_types_survive_both_ways(writer: Any, table: str) -> None:
    summary = writer.insert(table, [[1, "x", {"k": 2}], [2**64 - 1, "µ'\\\n", {}]], column_names=["a", "s", "m"])
    assert summary.written_rows == 2
    assert writer.query(f"SELECT * FROM {table} ORDER BY a").result_rows == [
        (1, "x", {"k": 2}),
        (2**64 - 1, "µ'\\\n", {}),
    ]
    assert writer.query_arrow(f"SELECT a FROM {table} ORDER BY a").to_pydict() == {"a": [1, 2**64 - 1]}
    assert len(writer.query_df(f"SELECT * FROM {table}")) == 2


@pytest.mark.parametrize("compress", [False, "lz4", "gzip", "zstd"])
def test_compressed_inserts(endpoint: Endpoint, table: str, compress: Any) -> None:
    with client(endpoint, compress=compress) as writer:
        writer.insert(table, [[n, "x", {}] for n in range(5000)], column_names=["a", "s", "m"])
        writer.raw_insert(
            table,
            ["a"],
            b"\n".join(b'{"a": %d}' % n for n in range(10)),
            fmt="JSONEachRow",
            settings={"max_threads": 1},
        )
        assert writer.command(f"SELECT count() FROM {table}") == 5010


def test_arrow_and_csv_inserts_with_a_token_count_once(endpoint: Endpoint, writer: Any, table: str) -> None:
    rows = pa.table({"a": pa.array(range(1000), pa.uint64()), "s": pa.array(["x"] * 1000).dictionary_encode()})
    for _ in range(3):
        settings = {"insert_deduplication_token": "one", "async_insert": 0}
        writer.insert_arrow(table, rows, settings=settings)
    assert writer.command(f"SELECT count() FROM {table}") == 1000
    assert raw(endpoint, b"5,y\n6,z\n", query=f"INSERT INTO {table} (a, s) FORMAT CSV")[0] == 200
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    body = f"INSERT INTO {table} (a, s) FORMAT ArrowStream\n".encode() + sink.getvalue().to_pybytes()
    status, _, headers = raw(endpoint, body)
    assert status == 200
    assert json.loads(headers["X-ClickHouse-Summary"])["written_rows"] == "1000"
    assert writer.command(f"SELECT count() FROM {table}") == 2002


def test_parameters(writer: Any) -> None:
    sql = "SELECT {n:UInt32} + 1, {s:String}, {l:Array(String)}, {t:DateTime64(3)}"
    text = "it's \\ \n\t{x:y} µ"
    row = writer.query(sql, parameters={"n": 41, "s": text, "l": ["a'b", "c"], "t": "2026-01-01 00:00:00.500"})
    assert row.result_rows[0][:3] == (42, text, ["a'b", "c"])
    assert writer.query("SELECT length({s:String})", parameters={"s": "x" * 20_000}).result_rows == [(20_000,)]
    columns = writer.query("SELECT {c:Identifier} FROM numbers(1)", parameters={"c": "number"})
    assert columns.result_rows == [(0,)]


def test_large_parameters_come_as_a_form(endpoint: Endpoint) -> None:
    with client(endpoint, form_encode_query_params=True) as writer:
        assert writer.query("SELECT length({s:String})", parameters={"s": "x" * 20_000}).result_rows == [(20_000,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS x, 'y'::LowCardinality(String) AS y WHERE 0",
        "SELECT 1 AS x, 'y'::LowCardinality(String) AS y WHERE 0 -- tail; FORMAT JSON",
        "/* head */ (SELECT 1 AS x, 'y'::LowCardinality(String) AS y WHERE 0)",
        "WITH 0 AS no SELECT 1 AS x, 'y'::LowCardinality(String) AS y WHERE no",
    ],
)
def test_empty_results_still_have_columns(reader: Any, sql: str) -> None:
    result = reader.query(sql)
    assert result.column_names == ("x", "y")
    assert [t.name for t in result.column_types] == ["UInt8", "LowCardinality(String)"]
    assert result.result_rows == []


def test_empty_results_of_other_statements(reader: Any) -> None:
    assert reader.query("SHOW TABLES LIKE 'nothing-like-it'").column_names == ("name",)
    assert reader.query("SELECT number, number FROM numbers(0)").column_names == ("number", "number")
    assert reader.query_arrow("SELECT 1 AS x WHERE 0").schema.names == ["x"]


def test_errors_carry_code_name_and_status(endpoint: Endpoint, writer: Any) -> None:
    for sql, code, status, word in (
        ("SELECT * FROM nope", 60, 404, "UNKNOWN_TABLE"),
        ("SELECT nope", 47, 400, "UNKNOWN_IDENTIFIER"),
        ("SELECT FROM WHERE", 62, 400, "SYNTAX_ERROR"),
        ("SELECT throwIf(1)", 395, 500, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        ("SELECT sleep(3) SETTINGS max_execution_time = 0.2", 159, 408, "TIMEOUT_EXCEEDED"),
        ("SELECT * FROM numbers(10) SETTINGS no_such_setting = 1", 115, 404, "UNKNOWN_SETTING"),
    ):
        found, body, headers = raw(endpoint, sql.encode())
        assert (found, headers["X-ClickHouse-Exception-Code"]) == (status, str(code)), (sql, body)
        assert word.encode() in body
    with pytest.raises(DatabaseError) as caught:
        writer.query("SELECT * FROM nope")
    assert caught.value.code == 60


def test_a_failed_insert_stores_nothing_and_says_why(endpoint: Endpoint, writer: Any, table: str) -> None:
    status, body, _ = raw(endpoint, f"INSERT INTO {table} (a) FORMAT CSV\n1\n2\nx\n".encode())
    assert status == 400
    assert b"Code: " in body
    assert writer.command(f"SELECT count() FROM {table}") == 0


def test_the_answer_names_the_query(endpoint: Endpoint) -> None:
    _, body, headers = raw(endpoint, b"SELECT number FROM numbers(3) FORMAT JSONEachRow", query_id="mine")
    assert body == b'{"number":0}\n{"number":1}\n{"number":2}\n'
    assert headers["X-ClickHouse-Query-Id"] == "mine"
    assert headers["X-ClickHouse-Format"] == "JSONEachRow"
    assert json.loads(headers["X-ClickHouse-Summary"])["result_rows"] == "3"


def test_get_reads_and_does_not_write(endpoint: Endpoint, table: str) -> None:
    assert raw(endpoint, method="GET", query="SELECT 7")[1] == b"7\n"
    assert raw(endpoint, method="GET")[1] == b"Ok.\n"
    assert raw(endpoint, method="GET", query=f"DROP TABLE {table}")[0] == 403


def test_the_go_clients_hello_is_answered_in_its_revision(endpoint: Endpoint) -> None:
    sql = b"SELECT displayName(), version(), revision(), timezone()"
    status, body, _ = raw(endpoint, sql, default_format="Native", client_protocol_version="54460", user="reader")
    assert status == 200
    assert body[:8] == bytes.fromhex("010002ffffffff00")
    assert b"26." in body


def test_settings_do_not_leak_between_requests(writer: Any) -> None:
    def threads(n: int) -> None:
        for _ in range(20):
            found = writer.query("SELECT toUInt32(getSetting('max_block_size'))", settings={"max_block_size": n})
            seen.append((n, found.result_rows[0][0]))

    seen: list[tuple[int, int]] = []
    default = writer.command("SELECT toUInt32(getSetting('max_block_size'))")
    workers = [threading.Thread(target=threads, args=(1000 + n,)) for n in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(seen) == 120
    assert all(asked == got for asked, got in seen)
    assert writer.command("SELECT toUInt32(getSetting('max_block_size'))") == default


def test_twenty_parallel_queries_of_the_async_client(endpoint: Endpoint) -> None:
    async def run() -> list[int]:
        reader = await clickhouse_connect.get_async_client(
            host="127.0.0.1",
            port=endpoint.port,
            username="reader",
            password=READER_PASSWORD,
            database="kpatrol",
            autogenerate_session_id=False,
        )
        try:
            asks = [
                reader.query("SELECT sum(number) + {x:UInt32} FROM numbers(1000)", parameters={"x": n})
                for n in range(20)
            ]
            return [answer.result_rows[0][0] for answer in await asyncio.gather(*asks)]
        finally:
            await reader.close()

    assert asyncio.run(run()) == [499500 + n for n in range(20)]


def test_large_results_stream(reader: Any) -> None:
    with reader.query_column_block_stream("SELECT number FROM numbers(2000000)") as stream:
        assert sum(len(block[0]) for block in stream) == 2_000_000


def test_a_client_that_goes_away_takes_its_query_along(endpoint: Endpoint, writer: Any) -> None:
    marker = uuid.uuid4().hex
    endless = f"SELECT sum(sipHash64(number, '{marker}')) FROM numbers(1000000000000)".encode()
    account = {"X-ClickHouse-User": "reader", "X-ClickHouse-Key": READER_PASSWORD}

    def running() -> int:
        like = f"query LIKE '%{marker}%' AND query NOT LIKE '%system.processes%'"
        return int(writer.command(f"SELECT count() FROM system.processes WHERE {like}"))

    def comes_to(number: int) -> bool:
        end = time.monotonic() + 60
        while (now := running()) != number and time.monotonic() < end:
            time.sleep(0.1)
        return now == number

    # As many as there are workers: were they not ended, the next query would wait for ever.
    clients = [http.client.HTTPConnection("127.0.0.1", endpoint.port) for _ in range(7)]
    for impatient in clients:
        impatient.request("POST", "/", body=endless, headers=account)
    assert comes_to(7)
    for impatient in clients:
        impatient.close()
    assert comes_to(0)
    assert writer.command("SELECT 1") == 1


def test_bodies_past_the_limit_are_413_packed_or_not(endpoint: Endpoint) -> None:
    assert raw(endpoint, b"SELECT '" + b"x" * (9 << 20) + b"'")[0] == 413
    import gzip

    packed = gzip.compress(b"SELECT '" + b"x" * (9 << 20) + b"'")
    assert raw(endpoint, packed, headers={"Content-Encoding": "gzip"})[0] == 413
    assert raw(endpoint, b"SELECT 1", headers={"Content-Encoding": "br"})[0] == 415
    assert raw(endpoint, b"SELECT 1", decompress="1")[0] == 501


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE k (a UInt8) ENGINE = Kafka SETTINGS kafka_broker_list = '127.0.0.1:1', kafka_topic_list = 't', "
        "kafka_group_name = 'g', kafka_format = 'CSV'",
        "CREATE TABLE k (a UInt8) ENGINE = RabbitMQ",
        "CREATE TABLE k (a UInt8) ENGINE = File(CSV, '/tmp/x')",
        "CREATE DATABASE k ENGINE = Filesystem('/')",
        "INSERT INTO FUNCTION file('/tmp/x', CSV) SELECT 1",
        "SELECT file('/etc/hostname')",
        "SYSTEM SHUTDOWN",
    ],
)
def test_the_writer_cannot_leave_the_folder_either(endpoint: Endpoint, sql: str) -> None:
    assert raw(endpoint, sql.encode())[0] == 403


def test_the_reader_may_set_what_shapes_an_answer(endpoint: Endpoint, reader: Any, writer: Any, table: str) -> None:
    view = f"v_{table}"
    writer.command(f"CREATE VIEW {view} AS SELECT * FROM {table}")
    sql = f"SELECT count() FROM {view} SETTINGS max_threads = 1, additional_table_filters = {{'{view}': 'a > 0'}}"
    assert reader.query(sql).result_rows == [(0,)]
    shown = b"SELECT toUInt32(getSetting('max_block_size'))"
    assert raw(endpoint, shown, user="reader", max_block_size="777")[1] == b"777\n"


def test_results_past_the_limit_are_an_error(tmp_path: Path) -> None:
    with running_endpoint(tmp_path, "--max-result-bytes", "100000") as small:
        status, body, _ = raw(small, b"SELECT number FROM numbers(1000000) FORMAT Native")
        assert status >= 400
        assert b"TOO_MANY_ROWS_OR_BYTES" in body
        assert raw(small, b"SELECT 1")[1] == b"1\n"


def test_a_second_process_on_the_same_folder_is_told_why(endpoint: Endpoint) -> None:
    assert endpoint.process is not None
    second = subprocess.run(endpoint.command(0), capture_output=True, text=True, timeout=90, check=False)
    assert second.returncode == 2
    assert f"in use by process {endpoint.process.pid}" in second.stderr
    assert "Traceback" not in second.stderr


def test_only_loopback_unless_told(endpoint: Endpoint) -> None:
    command = [w if not w.startswith("127.0.0.1:") else "0.0.0.0:0" for w in endpoint.command(0)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert refused.returncode == 2
    assert "not a loopback address" in refused.stderr


def test_sigterm_lets_a_running_insert_finish_and_keeps_the_data(tmp_path: Path) -> None:
    with running_endpoint(tmp_path) as running:
        with client(running) as writer:
            writer.command(TABLE.format(name="t"))
            writer.insert("t", [[1, "x", {}]], column_names=["a", "s", "m"])
        assert running.stop() == 0
        running.start()
        with client(running) as writer:
            assert writer.command("SELECT count() FROM t") == 1


def test_kill_9_in_mid_insert_loses_no_acknowledged_row(tmp_path: Path) -> None:
    with running_endpoint(tmp_path) as running:
        with client(running) as writer:
            writer.command(TABLE.format(name="t"))
        acknowledged: set[int] = set()
        token = 0
        for enough in (10, 20, 30):
            stop = threading.Event()

            def insert(first: int, stop: threading.Event = stop) -> None:
                with client(running, compress=False) as writer:
                    number = first
                    while not stop.is_set():
                        rows = pa.table({"a": pa.array([number] * 5000, pa.uint64())})
                        try:
                            writer.insert_arrow("t", rows, settings={"insert_deduplication_token": str(number)})
                        except (OperationalError, DatabaseError):
                            return
                        acknowledged.add(number)
                        number += 2

            workers = [threading.Thread(target=insert, args=(token + n,)) for n in range(2)]
            for worker in workers:
                worker.start()
            end = time.monotonic() + 60
            while len(acknowledged) < enough and time.monotonic() < end:
                time.sleep(0.02)
            running.kill()
            stop.set()
            for worker in workers:
                worker.join()
            running.start()
            token += 10_000
            with client(running) as writer:
                counts = dict(writer.query("SELECT a, count() FROM t GROUP BY a").result_rows)
            assert acknowledged <= counts.keys()
            # One insert is one block: it is there wholly or not at all.
            assert set(counts.values()) == {5000}
        assert len(acknowledged) >= 30
        with client(running) as writer:
            for number in sorted(counts)[-3:]:
                rows = pa.table({"a": pa.array([number] * 5000, pa.uint64())})
                writer.insert_arrow("t", rows, settings={"insert_deduplication_token": str(number)})
            assert writer.command("SELECT count() FROM t") == 5000 * len(counts)


def test_the_password_is_in_no_process_list(endpoint: Endpoint) -> None:
    assert endpoint.process is not None
    line = Path(f"/proc/{endpoint.process.pid}/cmdline").read_bytes()
    assert WRITER_PASSWORD.encode() not in line
    assert READER_PASSWORD.encode() not in line
