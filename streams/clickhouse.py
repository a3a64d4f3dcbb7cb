"""The only door of the streams to ClickHouse: HTTP, Arrow in, Arrow or rows out, a bounded number of attempts.

Blocking; asynchronous callers use asyncio.to_thread. One object may be used by several threads. What callers must
tell apart is in the exceptions: ClickHouseAway (try the same again later, with the same token) and
ClickHouseRefused (the same again would fail again).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import unquote, urlsplit

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError

from topics.connection import BadConfiguration

T = TypeVar("T")
SQL = Path(__file__).with_name("sql")
# Said explicitly, because their defaults differ between ClickHouse versions: our inserts are batches already, each with
# its own token, and must be stored when they are answered.
INSERT_SETTINGS: Final[Mapping[str, str]] = {
    "async_insert": "0",
    "insert_deduplicate": "1",
    "deduplicate_blocks_in_dependent_materialized_views": "1",
    # One insert is one block, so a Kafka record is never half stored.
    "max_insert_block_size": "1048576",
    "max_insert_threads": "1",
    # Repeats within one insert are left to merges and FINAL: a third less work for the server.
    "optimize_on_insert": "0",
}
# Codes that speak of the server's state, not of the request: timeouts, too much at once, memory, replicas, keeper.
PASSING_CODES: Final = frozenset({159, 160, 202, 209, 210, 241, 242, 252, 279, 285, 286, 305, 319, 394, 425, 999})
CONNECT_TIMEOUT_S = 5
PROVENANCE_TABLES: Final = ("probe", "receipt")


class ClickHouseAway(Exception):
    """No answer, or an answer that speaks of a passing trouble: the same request may succeed later."""


class ClickHouseRefused(Exception):
    """The request itself is wrong for this server (schema, syntax, account). `code` is ClickHouse's, 0 if unknown."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBatch:
    """Identity of a batch that is stored. `round_id` is 0 for receipts, which are not of one round."""

    round_id: int
    agent: str
    incarnation: int
    batch_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """How often one request is tried, and how long between: doubling from `first_wait_s` to `longest_wait_s`."""

    count: int = 4
    first_wait_s: float = 0.1
    longest_wait_s: float = 2.0

    def waits_s(self) -> list[float]:
        """The waits between the attempts."""
        return [min(self.first_wait_s * 2**n, self.longest_wait_s) for n in range(self.count - 1)]


class ClickHouse:
    """A ClickHouse server at http(s)://user@host:port/database."""

    def __init__(
        self,
        *,
        url: str,
        password: str = "",
        ca_file: str = "",
        timeout_s: float = 30.0,
        attempts: Attempts | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises BadConfiguration for an unusable URL; does not connect yet. `ca_file`: PEM, for https."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadConfiguration(f"ClickHouse URL: found {url!r}, expected http(s)://user@host:port/database")
        self.database = parts.path.strip("/") or "kpatrol"
        port = parts.port or (8443 if parts.scheme == "https" else 8123)
        self.where = f"{parts.scheme}://{parts.hostname}:{port}/{self.database}"
        self._attempts = attempts or Attempts()
        self._sleep = sleep
        self._options: dict[str, Any] = {
            "host": parts.hostname,
            "port": port,
            "username": unquote(parts.username or "default"),
            "password": unquote(parts.password or "") or password,
            "interface": parts.scheme,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "send_receive_timeout": timeout_s,
            "autogenerate_session_id": False,
            **({"ca_cert": ca_file} if ca_file else {}),
            # Compression costs more than it saves on the way to the same machine.
            "compress": parts.hostname not in ("127.0.0.1", "localhost", "::1"),
        }
        self._client: Any = None

    def __repr__(self) -> str:
        return f"ClickHouse({self.where})"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "ClickHouse":
        """From KPATROL_CLICKHOUSE_URL, _PASSWORD_FILE and _CA_FILE. Raises BadConfiguration, OSError."""
        url = env.get("KPATROL_CLICKHOUSE_URL", "")
        if not url:
            raise BadConfiguration("KPATROL_CLICKHOUSE_URL: not set, expected http(s)://user@host:port/database")
        file = env.get("KPATROL_CLICKHOUSE_PASSWORD_FILE", "")
        password = Path(file).read_text(encoding="utf-8").strip() if file else ""
        return cls(url=url, password=password, ca_file=env.get("KPATROL_CLICKHOUSE_CA_FILE", ""))

    def close(self) -> None:
        """Closes the connections; the object connects again when used again."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def ping(self) -> bool:
        """Whether it answers a query of ours, account included."""
        try:
            return bool(self._once(lambda client: client.command("SELECT 1")) == 1)
        except (ClickHouseAway, ClickHouseRefused):
            return False

    def wait_ready(self, *, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Returns when it answers. Raises ClickHouseAway after `timeout_s`; ClickHouseRefused at once."""
        end = clock() + timeout_s
        while True:
            try:
                self._once(lambda client: client.command("SELECT 1"))
                return
            except ClickHouseAway:
                if clock() >= end:
                    raise
            self._sleep(0.2)

    def insert_arrow(self, *, table: str, rows: pa.Table | pa.RecordBatch, token: str) -> None:
        """Inserts rows by column name, once: every attempt carries the same token and the same bytes.

        Raises ClickHouseAway (the outcome is unknown: insert again with the same token) or ClickHouseRefused.
        """
        data = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        settings = {**INSERT_SETTINGS, "insert_deduplication_token": token}
        self._tried(lambda client: client.insert_arrow(table, data, settings=settings))

    def query_arrow(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Result of a query as Arrow; LowCardinality columns come as plain strings."""
        settings = {
            "output_format_arrow_string_as_string": "1",
            "output_format_arrow_low_cardinality_as_dictionary": "0",
        }
        result: pa.Table = self._tried(
            lambda client: client.query_arrow(sql, parameters=dict(parameters or {}), settings=settings)
        )
        return result

    def query_rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Result of a query as rows by column name."""
        result = self._tried(lambda client: client.query(sql, parameters=dict(parameters or {})))
        return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]

    def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """A statement without a result table; tried once, because it may not be repeatable."""
        return self._once(lambda client: client.command(sql, parameters=dict(parameters or {})))

    def server_command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """Like `command`, without naming the database, which may not exist yet."""
        return self._once(lambda client: client.command(sql, parameters=dict(parameters or {}), use_database=False))

    def insert_rows(self, *, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A few rows of Python values, without a token; tried once."""
        self._once(lambda client: client.insert(table, [list(r) for r in rows], column_names=list(columns)))

    def stored_offsets(self, table: str, partition: int, from_offset: int) -> set[int]:
        """Which Kafka offsets of a partition, from `from_offset` on, are in `probe` or `receipt`."""
        return set(self.stored_batches(table, partition, from_offset))

    def stored_batches(self, table: str, partition: int, from_offset: int) -> dict[int, StoredBatch]:
        """Kafka offset → identity of the batch stored from it. Where a topic was made anew, offsets repeat and the
        identities tell: skip a record only when both agree. Raises ValueError for another table."""
        if table not in PROVENANCE_TABLES:
            raise ValueError(f"{table!r} has no kpart and koff; allowed: {', '.join(PROVENANCE_TABLES)}")
        round_id = "any(round_id)" if table == "probe" else "toUInt64(0)"
        rows = self.query_arrow(
            f"SELECT koff, {round_id} AS round_id, any(agent) AS agent, any(incarnation) AS incarnation, "
            f"any(batch_seq) AS batch_seq FROM {table} "
            "WHERE kpart = {partition:UInt16} AND koff >= {from_offset:UInt64} GROUP BY koff",
            {"partition": partition, "from_offset": from_offset},
        )
        return {
            row["koff"]: StoredBatch(
                round_id=row["round_id"],
                agent=row["agent"],
                incarnation=row["incarnation"],
                batch_seq=row["batch_seq"],
            )
            for row in rows.to_pylist()
        }

    def pair_table(self, *, round_id: int, round_at_ms: int, until_ms: int) -> pa.Table:
        """The pair table of a round (columns: sql/pair_columns.sql), requests planned up to `until_ms`.

        Every row also has `round_rows`, what is stored with repeats: round_rows - sum(n) are duplicates.
        """
        parameters = {"round_id": round_id, "round_at_ms": round_at_ms, "until_ms": until_ms}
        return self.query_arrow(pair_table_sql(), parameters)

    def served(self, *, round_id: int, round_at_ms: int, until_ms: int) -> pa.Table:
        """What the serving side counted in a round (sql/served.sql), by the lines of its pair table."""
        parameters = {"round_id": round_id, "round_at_ms": round_at_ms, "until_ms": until_ms}
        return self.query_arrow(served_sql(), parameters)

    def _tried(self, act: Callable[[Any], T]) -> T:
        for wait_s in self._attempts.waits_s():
            try:
                return self._once(act)
            except ClickHouseAway:
                self._sleep(wait_s)
        return self._once(act)

    def _once(self, act: Callable[[Any], T]) -> T:
        try:
            return act(self._connected())
        except ClickHouseError as error:
            raise translated(error, self.where) from error
        except OSError as error:
            raise ClickHouseAway(f"{self.where}: {error}") from error

    def _connected(self) -> Any:
        if self._client is None:
            # The database is named with each request: it may not exist before the first migration.
            client = clickhouse_connect.get_client(**self._options)
            client.database = self.database
            self._client = client
        return self._client


def translated(error: ClickHouseError, where: str) -> ClickHouseAway | ClickHouseRefused:
    """ClickHouse's complaint as one of the two that callers tell apart."""
    code = error.code or 0
    text = f"{where}: {error}"
    if isinstance(error, OperationalError) or code in PASSING_CODES:
        return ClickHouseAway(text)
    return ClickHouseRefused(text, code=code)


def pair_columns() -> str:
    """The pair table's SELECT list, without its comment."""
    lines = (SQL / "pair_columns.sql").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("--"))


@lru_cache(maxsize=1)
def pair_table_sql() -> str:
    """The query of the pair table."""
    return (SQL / "pair_table.sql").read_text(encoding="utf-8").replace("${PAIR_COLUMNS}", pair_columns())


@lru_cache(maxsize=1)
def served_sql() -> str:
    """The query of what the serving side counted."""
    return (SQL / "served.sql").read_text(encoding="utf-8")


@lru_cache(maxsize=8)
def rollup_sql(name: Literal["marks", "pair_1h", "node_1m", "node_1h", "pair_1d", "node_1d"]) -> str:
    """A query of sql/rollup_*.sql."""
    return (SQL / f"rollup_{name}.sql").read_text(encoding="utf-8").replace("${ROLLUP_COLUMNS}", rollup_columns())


def rollup_columns() -> str:
    """The roll-ups' SELECT list, without its comment."""
    lines = (SQL / "rollup_columns.sql").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("--"))
