"""What may run and what may not, without an engine."""

import pytest

from kpatrol.endpoint import sql_guard
from kpatrol.endpoint.sql_guard import Known, Statement
from kpatrol.endpoint.sql_tokens import Refused, tokens

KNOWN = Known(
    table_functions=frozenset(
        {"file", "url", "remote", "s3", "mysql", "postgresql", "numbers", "executable", "python", "eval", "merge"}
        | {"format", "values", "view", "input", "sqlite", "hdfs", "loop", "cluster", "odbc"}
    ),
    formats={"native": "Native", "json": "JSON", "csv": "CSV", "arrow": "Arrow", "values": "Values"},
    databases=frozenset({"kpatrol", "default", "system", "other", "information_schema"}),
    database="kpatrol",
)


def check(sql: str | bytes, *, reader: bool = False, parameters: dict[str, str] | None = None) -> Statement:
    text = sql if isinstance(sql, bytes) else sql.encode()
    return sql_guard.check(text=text, parameters=parameters or {}, known=KNOWN, reader=reader)


BOTH_REFUSED = [
    "SELECT 1 INTO OUTFILE '/tmp/x'",
    "SELECT 1 into/**/outfile '/tmp/x'",
    "SELECT 1 INTO -- c\n OUTFILE '/tmp/x' TRUNCATE",
    "SELECT * FROM file('/etc/passwd', CSV)",
    "SELECT file('/etc/passwd')",
    "SELECT FILE ('/etc/passwd')",
    "SELECT \"file\"('/etc/passwd')",
    "SELECT `file` /* x */ ('/etc/passwd')",
    "SELECT * APPLY(file) FROM (SELECT '/etc/passwd')",
    "SELECT * APPLY file FROM (SELECT '/etc/passwd')",
    "SELECT * FROM url('http://127.0.0.1/', CSV)",
    "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM s3('http://x/y')",
    "SELECT * FROM mysql('h', 'd', 't', 'u', 'p')",
    "SELECT * FROM postgresql('h', 'd', 't', 'u', 'p')",
    "SELECT * FROM executable('id', TSV, 'a String')",
    "SELECT * FROM Python(x)",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT * FROM merge('default', '.*')",
    "DESCRIBE TABLE file('/etc/passwd')",
    "EXPLAIN SELECT * FROM file('/etc/passwd', CSV)",
    "WITH (SELECT file('/etc/passwd')) AS a SELECT a",
    "SELECT * FROM default.`/etc/passwd`",
    'SELECT * FROM "default"."/etc/passwd"',
    "SELECT * FROM default /* */ . `/etc/passwd`",
    "SELECT 1; SELECT 2",
    "SELECT 1;DROP TABLE probe",
    "SELECT aiGenerate('x')",
    "SELECT 'unclosed",
    "SELECT \"fi\\x6ce\"('/etc/passwd')",
    "SELECT “x”",
    "",
    "-- only a comment",
]


@pytest.mark.parametrize("reader", [False, True])
@pytest.mark.parametrize("sql", BOTH_REFUSED)
def test_what_reaches_outside_is_refused_for_both_accounts(sql: str, reader: bool) -> None:
    with pytest.raises(Refused):
        check(sql, reader=reader)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO probe VALUES (1)",
        "INSERT INTO probe FORMAT CSV\n1",
        "CREATE TABLE t (a UInt8) ENGINE = Memory",
        "DROP TABLE probe",
        "ALTER TABLE probe DELETE WHERE 1",
        "TRUNCATE TABLE probe",
        "OPTIMIZE TABLE probe FINAL",
        "KILL QUERY WHERE 1",
        "SYSTEM STOP MERGES",
        "SET max_threads = 1",
        "USE system",
        "GRANT ALL ON *.* TO reader",
        "SELECT * FROM other.secret",
        "SELECT * FROM system.processes",
        "SELECT * FROM system . `processes`",
        "SELECT * FROM system.users",
        "SHOW PROCESSLIST",
        "SHOW TABLES FROM default",
        "SHOW TABLES FROM other",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_memory_usage = 0",
        "SELECT 1 FORMAT JSON SETTINGS allow_ddl = 1",
        "CHECK TABLE probe",
        "BACKUP TABLE probe TO File('x')",
    ],
)
def test_the_reader_only_reads_what_is_meant_for_it(sql: str) -> None:
    with pytest.raises(Refused):
        check(sql, reader=True)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (a UInt8) ENGINE = Kafka SETTINGS kafka_broker_list = 'x'",
        "CREATE TABLE t (a UInt8) ENGINE Kafka('a', 'b', 'c', 'd')",
        "CREATE TABLE t (a UInt8) engine=RabbitMQ",
        "CREATE TABLE t (a UInt8) ENGINE = NATS",
        "CREATE TABLE t (a UInt8) ENGINE = S3Queue('x')",
        "CREATE TABLE t (a UInt8) ENGINE = `File`(CSV)",
        "CREATE TABLE t (a UInt8) ENGINE = URL('http://x')",
        "CREATE TABLE t (a UInt8) ENGINE = MySQL('h', 'd', 't', 'u', 'p')",
        "CREATE TABLE t (a UInt8) ENGINE = PostgreSQL('h', 'd', 't', 'u', 'p')",
        "CREATE TABLE t (a UInt8) ENGINE = Executable('x', TSV)",
        "CREATE DATABASE d ENGINE = Filesystem('/')",
        "CREATE DATABASE d ENGINE = MySQL('h', 'd', 'u', 'p')",
        "CREATE TABLE t AS file('/etc/passwd')",
        "CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '/')",
        "CREATE DICTIONARY d (a UInt64) PRIMARY KEY a SOURCE(FILE(path '/etc/passwd' format 'CSV'))",
        "CREATE NAMED COLLECTION c AS a = 1",
        "CREATE USER u",
        "ATTACH TABLE t FROM '/tmp' (a UInt8) ENGINE = MergeTree ORDER BY a",
        "INSERT INTO FUNCTION file('/tmp/x', CSV) SELECT 1",
        "INSERT INTO TABLE FUNCTION file('/tmp/x', CSV) SELECT 1",
        "INSERT INTO t FROM INFILE '/etc/passwd' FORMAT CSV",
        "INSERT INTO t SELECT * FROM url('http://x', CSV)",
        "INSERT INTO t VALUES (file('/etc/passwd'))",
        "INSERT INTO default.t FORMAT CSV\n1",
        "SYSTEM SHUTDOWN",
        "SYSTEM KILL",
        "RESTORE TABLE t FROM File('x')",
    ],
)
def test_the_writer_stays_in_the_data_folder_too(sql: str) -> None:
    with pytest.raises(Refused):
        check(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'file(1); INTO OUTFILE' AS x, count() FROM v_probe WHERE dst = 'it''s' AND a = 'b\\'c' -- ; x",
        "SELECT number FROM numbers(10)",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "WITH 1 AS x SELECT x;",
        "SHOW TABLES",
        "SELECT name FROM system.columns WHERE table = 'probe'",
        "SELECT engine FROM system.tables",
        "SELECT value FROM system.settings WHERE name = 'max_threads'",
        "SELECT t.default FROM t",
        "SELECT 1e-3, 0x1F, 1_000, .5, m['a'], [1, 2], {x:UInt8}, a -> b, x ? 1 : 2, a::Int8, a || b",
        "SELECT $$heredoc ; file('x')$$",
        "SELECT 'µs'",
        "EXPLAIN PLAN SELECT 1",
        "SELECT * FROM v_pair(round_id = 1)",
    ],
)
def test_ordinary_queries_pass_for_both(sql: str) -> None:
    assert check(sql, reader=True).sql
    assert check(sql).sql


def test_identifier_parameters_are_checked_as_if_written() -> None:
    with pytest.raises(Refused, match="default"):
        check("SELECT * FROM {d:Identifier}.{t:Identifier}", parameters={"d": "default", "t": "/etc/passwd"})
    with pytest.raises(Refused, match="default"):
        check("SELECT * FROM {t:Identifier}", parameters={"t": "default./etc/passwd"})
    with pytest.raises(Refused, match="file"):
        check("SELECT {f:Identifier}('/etc/passwd')", parameters={"f": "file"})
    assert check("SELECT {c:Identifier} FROM t", parameters={"c": "dst"}).sql == "SELECT {c:Identifier} FROM t"


def test_trailing_format_is_taken_out_and_spelt_right() -> None:
    found = check("SELECT 1 FORMAT native;")
    assert (found.sql, found.format) == ("SELECT 1 ", "Native")
    assert check("SELECT x format FROM t").format == ""
    assert check("SELECT format FROM t ORDER BY format DESC").format == ""


def test_the_readers_trailing_settings_are_lifted_with_format_on_either_side() -> None:
    for sql in (
        "SELECT a FROM t SETTINGS max_threads = 2, additional_table_filters = {'t': 'a = 1'}\n FORMAT Native",
        "SELECT a FROM t FORMAT Native SETTINGS max_threads = 2, additional_table_filters = {'t': 'a = 1'}",
    ):
        found = check(sql, reader=True)
        assert found.sql.strip() == "SELECT a FROM t"
        assert found.format == "Native"
        assert found.lifted == {"max_threads": "2", "additional_table_filters": "{'t': 'a = 1'}"}


def test_the_writers_settings_stay_where_they_are() -> None:
    assert check("SELECT 1 SETTINGS max_threads = 1").sql == "SELECT 1 SETTINGS max_threads = 1"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 SETTINGS max_threads = (SELECT 1)",
        "SELECT * FROM (SELECT 1 SETTINGS max_memory_usage = 0)",
        "SELECT 1 UNION ALL (SELECT 2 SETTINGS max_execution_time = 0) FORMAT JSON",
    ],
)
def test_settings_anywhere_else_are_refused(sql: str) -> None:
    with pytest.raises(Refused, match="SETTINGS"):
        check(sql, reader=True)
    assert check(sql).sql


def test_an_insert_ends_before_its_format_and_keeps_binary_data() -> None:
    found = check(b"INSERT INTO t (a, b) SETTINGS async_insert=0 FORMAT Native\n\x01\x00';\"`\xff")
    assert found.sql == "INSERT INTO t (a, b) SETTINGS async_insert=0 "
    assert (found.format, found.inserts_data, found.data) == ("Native", True, b"\x01\x00';\"`\xff")


def test_an_insert_of_values_or_a_query_is_an_ordinary_statement() -> None:
    assert not check("INSERT INTO t VALUES (1), (2)").inserts_data
    assert not check("INSERT INTO t SELECT 1").inserts_data


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(Refused, match="Unknown format Nonsense") as caught:
        check("INSERT INTO t FORMAT Nonsense\n1")
    assert caught.value.code == 73


def test_tokens_carry_offsets_of_bytes() -> None:
    sql = "SELECT  'x' /* c */ + 1.5"
    assert [(t.text, sql[t.start : t.end]) for t in tokens(sql)] == [
        ("SELECT", "SELECT"),
        ("'x'", "'x'"),
        ("+", "+"),
        ("1.5", "1.5"),
    ]
