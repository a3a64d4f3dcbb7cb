"""The endpoint as Grafana's data source sees it: the real clickhouse-go over HTTP.

`make test` sees to it that Go is there; only `make test CLUSTER=no` may be without, and says so.
"""

import time
import uuid
from collections.abc import Iterator

import pytest

from tests.integration.endpoint_fixture import Endpoint, running_endpoint
from tests.integration.go_client import GoClient, GoFailure, go_client, result, why_not

ENDLESS = "SELECT sum(sipHash64(number, '{marker}')) FROM numbers(1000000000000)"
# SQL, ClickHouse's type, what Go scans it into, the value as JSON.
TYPES = [
    ("toUInt8(255)", "UInt8", "uint8", 255),
    ("toUInt64(18446744073709551615)", "UInt64", "uint64", 2**64 - 1),
    ("toInt16(-7)", "Int16", "int16", -7),
    ("toInt64(-9223372036854775808)", "Int64", "int64", -(2**63)),
    ("toFloat64(0.25)", "Float64", "float64", 0.25),
    ("nan", "Float64", "float64", None),
    ("true", "Bool", "bool", True),
    ("'µ''x'", "String", "string", "µ'x"),
    ("toFixedString('abcd', 4)", "FixedString(4)", "string", "abcd"),
    ("toLowCardinality('node-1')", "LowCardinality(String)", "string", "node-1"),
    ("CAST('icmp' AS Enum8('icmp' = 1, 'tcp' = 2))", "Enum8('icmp' = 1, 'tcp' = 2)", "string", "icmp"),
    ("CAST(NULL AS Nullable(UInt32))", "Nullable(UInt32)", "*uint32", None),
    ("CAST(7 AS Nullable(UInt32))", "Nullable(UInt32)", "*uint32", 7),
    ("[1, 2]::Array(UInt16)", "Array(UInt16)", "[]uint16", [1, 2]),
    ("[]::Array(String)", "Array(String)", "[]string", []),
    ("map(3, 4)::Map(UInt8, UInt64)", "Map(UInt8, UInt64)", "map[uint8]uint64", {"3": 4}),
    ("(1, 'a')::Tuple(UInt8, String)", "Tuple(UInt8, String)", "[]interface {}", [1, "a"]),
    ("toDate('2026-01-02')", "Date", "time.Time", "2026-01-02T00:00:00Z"),
    ("toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')", "UUID", "uuid.UUID", "61f0c404-5cb3-11e7-907b-a6006ad3dba0"),
    ("toIPv6('fd00::1')", "IPv6", "net.IP", "fd00::1"),
    ("toIPv4('10.0.0.1')", "IPv4", "net.IP", "10.0.0.1"),
    ("toDecimal64('1.5', 2)", "Decimal(18, 2)", "decimal.Decimal", "1.5"),
]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    if why := why_not():
        pytest.skip(why)
    with running_endpoint(tmp_path_factory.mktemp("go")) as running, go_client(running, user="writer") as go:
        go.do("exec", "CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a")
        go.do("exec", "CREATE VIEW v_t AS SELECT * FROM t")
        yield running


@pytest.fixture(scope="module")
def reader(endpoint: Endpoint) -> Iterator[GoClient]:
    with go_client(endpoint, user="reader") as go:
        yield go


@pytest.fixture(scope="module")
def writer(endpoint: Endpoint) -> Iterator[GoClient]:
    with go_client(endpoint, user="writer") as go:
        yield go


def test_every_type_is_scanned_as_what_it_is(reader: GoClient) -> None:
    found = reader.query("SELECT " + ", ".join(f"{sql} AS c{n}" for n, (sql, *_) in enumerate(TYPES)))
    got = list(zip(found.types, found.go_types, found.rows[0], strict=True))
    assert got == [tuple(expected) for _, *expected in TYPES]


def test_times_keep_their_instant(reader: GoClient) -> None:
    sql = (
        "SELECT toDateTime(1767225600) AS d, fromUnixTimestamp64Milli(1767225600123, 'UTC') AS m, now64(6, 'UTC') AS u"
    )
    found = reader.query(sql)
    day, milli, _ = found.rows[0]
    assert day.timestamp() == 1767225600
    assert milli.timestamp() == 1767225600.123
    assert found.types[1:] == ["DateTime64(3, 'UTC')", "DateTime64(6, 'UTC')"]


def test_an_empty_result_has_its_columns(reader: GoClient) -> None:
    for sql in ("SELECT a, s FROM v_t", "SELECT a, s FROM v_t -- x; y", "WITH 0 AS no SELECT a, s FROM v_t WHERE no"):
        found = reader.query(sql)
        assert (found.names, found.types, found.rows) == (["a", "s"], ["UInt64", "String"], [])


def test_errors_carry_the_servers_code_and_name(reader: GoClient) -> None:
    for sql, code, word in (
        ("SELECT * FROM nope", 60, "UNKNOWN_TABLE"),
        ("SELECT nope", 47, "UNKNOWN_IDENTIFIER"),
        ("SELECT FROM WHERE", 62, "SYNTAX_ERROR"),
        ("SELECT throwIf(number = 3) FROM numbers(5)", 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
    ):
        with pytest.raises(GoFailure, match=word) as caught:
            reader.query(sql)
        assert caught.value.code in (code, 0), sql
        assert f"Code: {code}" in str(caught.value) or caught.value.code == code
    assert reader.query("SELECT 1").rows == [[1]]


def test_wrong_password_is_told(endpoint: Endpoint) -> None:
    with go_client(endpoint, user="nobody") as go, pytest.raises(GoFailure, match="516"):
        go.do("ping")


def test_timeouts_of_both_sides(reader: GoClient) -> None:
    with pytest.raises(GoFailure, match="TIMEOUT_EXCEEDED"):
        reader.query(ENDLESS.format(marker="limit"), settings={"max_execution_time": 1})
    began = time.monotonic()
    with pytest.raises(GoFailure) as caught:
        reader.query(ENDLESS.format(marker="deadline"), timeout_ms=500)
    assert caught.value.deadline
    assert time.monotonic() - began < 20


def test_sixty_queries_at_once_get_each_its_own_answer(reader: GoClient) -> None:
    sql = "SELECT sum(number) + {x:UInt32} AS s, {x:UInt32} AS x FROM numbers(200000)"
    asked = [reader.start("query", sql, parameters={"x": str(n)}) for n in range(60)]
    total = 199_999 * 100_000
    assert [result(answer).rows for answer in asked] == [[[total + n, n]] for n in range(60)]


def test_who_goes_away_takes_the_query_along(reader: GoClient, writer: GoClient) -> None:
    marker = uuid.uuid4().hex
    # More than there are workers: were they not ended, nothing would be answered any more.
    gone = [reader.start("query", ENDLESS.format(marker=marker), cancel_after_ms=1000) for _ in range(10)]
    for answer in gone:
        with pytest.raises(GoFailure) as caught:
            result(answer)
        assert caught.value.canceled
    running = f"SELECT count() FROM system.processes WHERE query LIKE '%{marker}%' AND query NOT LIKE '%processes%'"
    end = time.monotonic() + 30
    while (left := writer.query(running).rows) != [[0]] and time.monotonic() < end:
        time.sleep(0.1)
    assert left == [[0]]
    assert reader.query("SELECT 1").rows == [[1]]


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
def test_a_batch_is_stored_whole(endpoint: Endpoint, writer: GoClient, compression: str) -> None:
    writer.do("exec", "TRUNCATE TABLE t")
    with go_client(endpoint, user="writer", compression=compression) as go:
        go.do("insert", "INSERT INTO t (a, s)", rows=20_000)
        assert go.query("SELECT count(), sum(a), uniqExact(s) FROM t").rows == [[20_000, 199_990_000, 20_000]]
        assert len(go.query("SELECT a, s FROM t").rows) == 20_000


def test_the_reader_only_reads_and_only_views(reader: GoClient) -> None:
    for sql in ("DROP TABLE t", "TRUNCATE TABLE t", "CREATE TABLE z (a UInt8) ENGINE = Memory", "SYSTEM STOP MERGES"):
        with pytest.raises(GoFailure, match=r"READONLY|ACCESS_DENIED"):
            reader.do("exec", sql)
    with pytest.raises(GoFailure, match=r"READONLY|ACCESS_DENIED"):
        reader.do("insert", "INSERT INTO t (a, s)", rows=1)
    with pytest.raises(GoFailure, match="views only"):
        reader.query("SELECT a FROM t")
    with pytest.raises(GoFailure, match="READONLY"):
        reader.query("SELECT 1", settings={"max_memory_usage": 0})
    # Grafana's ad hoc filters.
    filtered = "SELECT count() FROM v_t SETTINGS additional_table_filters = {'v_t': 'a < 5'}"
    assert len(reader.query(filtered).rows) == 1
