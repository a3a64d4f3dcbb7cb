"""What the reader account must not be able to do, tried against a running endpoint: write, read files, reach the
network or another database, see accounts, change settings, or read a base table behind the views."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.endpoint_fixture import Endpoint, running_endpoint
from tests.integration.test_endpoint import TABLE, client, raw


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with running_endpoint(tmp_path_factory.mktemp("attacked")) as running:
        yield running


@pytest.fixture
def writer(endpoint: Endpoint) -> Iterator[Any]:
    with client(endpoint) as connected:
        yield connected


@pytest.fixture
def table(writer: Any) -> str:
    name = f"t_{uuid.uuid4().hex[:8]}"
    writer.command(TABLE.format(name=name))
    return name


READER_ATTACKS = [
    "SELECT 1 INTO OUTFILE '{out}'",
    "SELECT 1 INTO/**/OUTFILE '{out}' FORMAT CSV",
    "SELECT * FROM numbers(1) INTO OUTFILE '{out}' TRUNCATE",
    "EXPLAIN SELECT 1 INTO OUTFILE '{out}'",
    "SHOW TABLES INTO OUTFILE '{out}'",
    "SELECT * FROM file('{secret}', LineAsString)",
    "SELECT file('{secret}')",
    "SELECT FILE('{secret}')",
    "SELECT \"file\"('{secret}')",
    "SELECT * APPLY(file) FROM (SELECT '{secret}')",
    "SELECT * APPLY file FROM (SELECT '{secret}')",
    "WITH (SELECT file('{secret}')) AS x SELECT x",
    "DESCRIBE TABLE file('{secret}', LineAsString)",
    "SELECT * FROM `{secret}`",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM default.`{secret}`",
    'SELECT * FROM "default"."{secret}"',
    "SELECT * FROM filesystem('{secret}')",
    "SELECT * FROM sqlite('{secret}', 't')",
    "SELECT * FROM url('http://127.0.0.1:{port}/ping', LineAsString)",
    "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT * FROM postgresql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT * FROM s3('http://127.0.0.1:1/x')",
    "SELECT * FROM executable('id', TSV, 'a String')",
    "SELECT * FROM python('x')",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT * FROM merge('default', '.*')",
    "SELECT * FROM input('a String')",
    "SELECT * FROM view(SELECT file('{secret}'))",
    "SELECT * FROM system.processes",
    "SELECT * FROM elsewhere.t",
    "SELECT 1; DROP TABLE {table}",
    "DROP TABLE {table}",
    "INSERT INTO {table} (a) VALUES (1)",
    "INSERT INTO {table} (a) FORMAT CSV\n1",
    "INSERT INTO FUNCTION file('{out}', CSV) SELECT 1",
    "WITH 1 AS x INSERT INTO {table} (a) SELECT x",
    "CREATE TABLE z (a UInt8) ENGINE = Memory",
    "ALTER TABLE {table} DELETE WHERE 1",
    "TRUNCATE TABLE {table}",
    "OPTIMIZE TABLE {table} FINAL",
    "SYSTEM STOP MERGES",
    "SYSTEM SHUTDOWN",
    "KILL QUERY WHERE 1",
    "SET readonly = 0",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS max_memory_usage = 0",
    "SELECT * FROM (SELECT 1 SETTINGS max_execution_time = 100)",
    "ATTACH TABLE q FROM '/tmp' (a UInt8) ENGINE = MergeTree ORDER BY a",
    "BACKUP TABLE {table} TO File('{out}')",
    "GRANT ALL ON *.* TO reader",
    "USE system",
    "SELECT * FROM dictionary('{table}')",
    "CREATE DICTIONARY d (a UInt64) PRIMARY KEY a SOURCE(FILE(path '{secret}' format 'CSV')) LAYOUT(FLAT())",
    "SYSTEM RELOAD DICTIONARIES",
    "SHOW PROCESSLIST",
    "SHOW GRANTS",
    "SHOW USERS",
    "SHOW ACCESS",
    "SHOW CREATE USER default",
    "SHOW CREATE DATABASE elsewhere",
    "SHOW TABLES FROM elsewhere",
    "SHOW CREATE TABLE elsewhere.t",
    "DESCRIBE elsewhere.t",
    "EXISTS TABLE elsewhere.t",
    "SELECT * FROM system.users",
    "SELECT * FROM system.query_log",
    "SELECT * FROM system.text_log",
    "SELECT * FROM system.disks",
    "SELECT * FROM system.server_settings",
    "SELECT * FROM system.user_processes",
    "SELECT * FROM system.zookeeper WHERE path = '/'",
    "SELECT * FROM system.remote_data_paths",
    "SELECT * FROM cluster('default', system.one)",
    "SELECT * FROM clusterAllReplicas('default', system.one)",
    "SELECT * FROM remoteSecure('127.0.0.1', system.one)",
    "SELECT * FROM fileCluster('default', '{secret}')",
    "SELECT * FROM s3Cluster('default', 'http://127.0.0.1:1/x')",
    "SELECT * FROM urlCluster('default', 'http://127.0.0.1:{port}/ping', LineAsString)",
    "SELECT * FROM hdfs('hdfs://127.0.0.1:1/x')",
    "SELECT * FROM azureBlobStorage('http://127.0.0.1:1', 'c', 'x')",
    "SELECT * FROM gcs('http://127.0.0.1:1/x')",
    "SELECT * FROM iceberg('http://127.0.0.1:1/x')",
    "SELECT * FROM icebergLocal('{secret}')",
    "SELECT * FROM deltaLake('http://127.0.0.1:1/x')",
    "SELECT * FROM deltaLakeLocal('{secret}')",
    "SELECT * FROM hudi('http://127.0.0.1:1/x')",
    "SELECT * FROM mongodb('127.0.0.1:1', 'd', 'c', 'u', 'p')",
    "SELECT * FROM redis('127.0.0.1:1', 'k', 'k String')",
    "SELECT * FROM jdbc('x', 'y')",
    "SELECT * FROM odbc('x', 'y', 'z')",
    "SELECT * FROM arrowFlight('127.0.0.1:1', 'x')",
    "SELECT * FROM prometheusQuery('default', 't', 'up')",
    "SELECT * FROM executable('cat {secret}', TSV, 'a String')",
    "SELECT catboostEvaluate('{secret}', 1)",
    "SELECT * FROM mergeTreeProjection('kpatrol', '{table}', 'p')",
    "SELECT * FROM mergeTreeParts('kpatrol', '{table}')",
    "SELECT * FROM mergeTreeAnalyzeIndexes('kpatrol', '{table}')",
    "CREATE FUNCTION f AS x -> x",
    "DROP FUNCTION hist_quantile",
    "CREATE VIEW v AS SELECT 1",
    "CREATE OR REPLACE VIEW v_x AS SELECT 1",
    "CREATE TEMPORARY TABLE x (a UInt8)",
    "CREATE USER u",
    "CREATE NAMED COLLECTION c AS a = 1",
    "DROP DATABASE kpatrol",
    "RENAME TABLE {table} TO stolen",
    "EXCHANGE TABLES {table} AND elsewhere.t",
    "RESTORE TABLE {table} FROM File('{out}')",
    "SET ROLE ALL",
    "SET max_memory_usage = 0",
    "BEGIN TRANSACTION",
    "CHECK TABLE {table}",
    "DELETE FROM {table} WHERE 1",
    "UPDATE {table} SET a = 1 WHERE 1",
    "EXPLAIN PLAN INSERT INTO {table} SELECT 1",
    "EXPLAIN SELECT * FROM file('{secret}')",
    "EXECUTE AS writer SELECT 1",
    "PARALLEL WITH DROP TABLE {table}",
    "SELECT initializeAggregation('sum', file('{secret}'))",
    "SELECT * FROM values('a String', file('{secret}'))",
    "SELECT * FROM viewIfPermitted(SELECT file('{secret}') ELSE null('a String'))",
    "SELECT * FROM system.filesystem_cache",
    "DETACH TABLE {table}",
]


def test_the_reader_gets_nothing_out_and_changes_nothing(endpoint: Endpoint, writer: Any, table: str) -> None:
    folder = endpoint.path.parent
    secret = folder / "secret.txt"
    secret.write_text("top-secret-line\n")
    out = folder / "stolen.csv"
    writer.command("CREATE DATABASE IF NOT EXISTS elsewhere ENGINE = Atomic")
    writer.command("CREATE TABLE IF NOT EXISTS elsewhere.t (a UInt8) ENGINE = Memory")
    writer.insert(table, [[1, "x", {}]], column_names=["a", "s", "m"])
    for attack in READER_ATTACKS:
        sql = attack.format(secret=secret, out=out, table=table, port=endpoint.port)
        status, body, headers = raw(endpoint, sql.encode(), user="reader")
        assert status >= 400, sql
        assert "X-ClickHouse-Exception-Code" in headers, sql
        assert b"top-secret-line" not in body, sql
        assert not out.exists(), sql
    assert writer.command(f"SELECT count() FROM {table}") == 1
    assert raw(endpoint, b"SELECT 1", user="reader", readonly="0")[0] == 403
    assert raw(endpoint, b"SELECT 1", user="reader", max_memory_usage="0")[0] == 403
    assert raw(endpoint, b"SELECT 1", user="reader", database="system")[0] == 403
    by_name = b"SELECT * FROM {d:Identifier}.{t:Identifier}"
    status, body, _ = raw(endpoint, by_name, user="reader", param_d="default", param_t=str(secret))
    assert (status, b"top-secret-line" in body) == (403, False)


BASE_TABLE_ATTACKS = [
    "SELECT count() FROM {table}",
    "SELECT count() FROM kpatrol.{table}",
    "FROM {table} SELECT a",
    'SELECT a FROM "{table}"',
    "SELECT a FROM `kpatrol` /* x */ . `{table}`",
    "SELECT a FROM '{table}'",
    "SELECT a FROM {table} FINAL",
    "SELECT a FROM {table} AS v_seen",
    "SELECT 1 FROM {view}, {table}",
    "SELECT a FROM {view} JOIN {table} USING a",
    "SELECT a FROM {view} WHERE a IN {table}",
    "SELECT a FROM {view} WHERE a IN ({table})",
    "SELECT a FROM {view} WHERE in(a, {table})",
    "SELECT a FROM {view} WHERE globalNotIn(a, `{table}`)",
    "SELECT a FROM {view} WHERE a IN (SELECT a FROM '{table}')",
    "WITH {table} AS v SELECT 7 IN v",
    "WITH kpatrol.{table} AS v, v AS w SELECT 7 IN w",
    "WITH (SELECT max(a) FROM {table}) AS m SELECT m",
    "WITH RECURSIVE r AS (SELECT a FROM {table}) SELECT a FROM r",
    "SELECT 1 UNION ALL SELECT a FROM {table}",
    "(((SELECT a FROM {table})))",
    "SELECT (SELECT max(a) FROM {table})",
    "SELECT exists(FROM {table})",
    "SELECT arrayMap(x -> x IN {table}, [7])",
    "SELECT * REPLACE ((SELECT max(a) FROM {table}) AS a) FROM {view}",
    "SELECT * APPLY(x -> x IN {table}) FROM {view}",
    "SELECT * APPLY(x -> x IN (SELECT a FROM '{table}')) FROM {view}",
    "SELECT a FROM {view} ORDER BY a WITH FILL INTERPOLATE (s AS (SELECT max(a) FROM '{table}'))",
    "SELECT a FROM {view} LIMIT (SELECT max(a) FROM {table})",
    "SELECT * FROM view(SELECT a FROM {table})",
    "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT a FROM {table}))",
    "SELECT * FROM merge('kpatrol', '{table}')",
    "SELECT * FROM merge(REGEXP('.*'), '{table}')",
    "SELECT * FROM cluster('default', 'kpatrol', '{table}')",
    "SELECT * FROM loop({table})",
    "SELECT * FROM mergeTreeIndex('kpatrol', '{table}')",
    "SELECT joinGet('{table}', 'a', 1)",
    "SELECT dictGet('{table}', 'a', 1)",
    "EXPLAIN SELECT a FROM {table}",
    "EXPLAIN ESTIMATE SELECT a FROM {table}",
    "DESCRIBE {table}",
    "SHOW CREATE TABLE {table}",
    "SHOW COLUMNS FROM {table}",
    "SHOW TABLES WHERE name IN (SELECT s FROM '{table}')",
    "EXISTS TABLE {table}",
    "SELECT a FROM {view} SETTINGS additional_table_filters = {{'{view}': 'a IN {table}'}}",
    "SELECT a FROM {view} SETTINGS additional_table_filters = {{'{view}': 'a IN (SELECT a FROM {table})'}}",
    "SELECT a FROM {view} SETTINGS additional_result_filter = 'a IN (SEL\\x45CT a FROM {table})'",
]


def test_the_reader_sees_views_only(endpoint: Endpoint, writer: Any, table: str) -> None:
    view = f"v_{table}"
    writer.insert(table, [[7, "x", {}]], column_names=["a", "s", "m"])
    writer.command(f"CREATE VIEW {view} AS SELECT * FROM {table}")
    for attack in BASE_TABLE_ATTACKS:
        sql = attack.format(table=table, view=view)
        status, body, headers = raw(endpoint, sql.encode(), user="reader")
        assert status >= 400, sql
        assert "X-ClickHouse-Exception-Code" in headers, sql
    for by_name in (b"SELECT a FROM {t:Identifier}", b"SELECT 7 IN {t:Identifier}"):
        status, body, _ = raw(endpoint, by_name, user="reader", param_t=table)
        assert (status, b"Not enough privileges" in body) == (403, True)
    assert writer.command(f"SELECT count() FROM {table}") == 1
    for sql in (
        f"SELECT a FROM {view} AS {table} WHERE a IN (SELECT a FROM kpatrol.{view})",
        f"WITH t AS (SELECT a FROM {view}) SELECT a FROM t ARRAY JOIN [1] AS x",
        f"SELECT * APPLY(max) FROM (SELECT a FROM {view})",
        f"SELECT name = '{table}' ? 7 : 7 FROM system.tables LIMIT 1",
    ):
        assert raw(endpoint, sql.encode(), user="reader")[:2] == (200, b"7\n"), sql
