"""The door to ClickHouse for everything that reads: views only, a reader's account is enough."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import msgspec
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError

from topics.round_verdicts import RoundVerdict
from topics.task_rounds import FOLLOW_UP

_OWN = "(task = {task:String} OR endsWith(task, concat('/', {task:String})))"
# A follow-up's uid is that of the task whose finding it looks at, a dot, and a mark of the finding.
_CLOSER = f"""(kind = {{closer:String}} AND substringIndex(task_uid, '.', 1)
    IN (SELECT task_uid FROM v_round_revision WHERE {_OWN}))"""


class CannotRead(Exception):
    """ClickHouse cannot be reached or refuses: the text says where and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One source and destination over the rounds asked for: requests, successes, packets."""

    src: str
    dst: str
    requests: int
    ok: int
    packets_sent: int
    packets_lost: int


class Store:
    """Reads verdicts and matrices."""

    def __init__(self, *, url: str, password: str = "", ca_file: str = "") -> None:
        """Connects. `ca_file`: PEM of the authority, for https. Raises CannotRead."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CannotRead(f"--clickhouse: found {url!r}, expected http://user@host:port/database")
        port = parts.port or (8443 if parts.scheme == "https" else 8123)
        self._where = f"{parts.hostname}:{port}"
        try:
            self._client = clickhouse_connect.get_client(
                host=parts.hostname,
                port=port,
                username=parts.username or "reader",
                password=parts.password or password,
                database=parts.path.strip("/") or "kpatrol",
                interface=parts.scheme,
                ca_cert=ca_file or None,
                autogenerate_session_id=False,
                connect_timeout=5,
                send_receive_timeout=60,
            )
        except (ClickHouseError, OSError) as error:
            raise CannotRead(f"ClickHouse at {self._where}: {_short(error)}") from error

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def verdicts(self, *, task: str = "", number: int | None = None) -> list[RoundVerdict]:
        """Every revision of the rounds of a task (`kind/name` or a bare name; empty: all tasks).

        A round that looked more closely at a finding comes with the task and the round of that finding.
        """
        conditions = [f"({_OWN} OR {_CLOSER})" if task else "1"]
        if number is not None:
            conditions.append("(round_number = {number:UInt32} OR kind = {closer:String})")
        sql = f"SELECT document FROM v_round_revision WHERE {' AND '.join(conditions)} ORDER BY round_at, revision"
        rows = self.rows(sql, {"task": task, "number": number or 0, "closer": FOLLOW_UP})
        found = [msgspec.json.decode(row[0], type=RoundVerdict) for row in rows]
        return [v for v in found if number is None or _is_about(v, task, number)]

    def matrix(self, *, round_ids: list[int]) -> list[Cell]:
        """Sums by source and destination over those rounds."""
        sql = (
            "SELECT src_node, dst, sum(n), sum(ok), sum(packets_sent), sum(packets_lost) FROM v_pair_round "
            "WHERE round_id IN {rounds:Array(UInt64)} GROUP BY src_node, dst ORDER BY src_node, dst"
        )
        return [
            Cell(src=src, dst=dst, requests=n, ok=ok, packets_sent=sent, packets_lost=lost)
            for src, dst, n, ok, sent, lost in self.rows(sql, {"rounds": round_ids})
        ]

    def totals(self) -> tuple[int, int, int]:
        """(requests stored, packets lost, requests failed) of everything; for the progress bar."""
        sql = "SELECT count(), sum(lost), countIf(outcome != 'ok') FROM v_probe"
        requests, lost, failed = self.rows(sql)[0]
        return int(requests), int(lost), int(failed)

    def table(self, sql: str, parameters: dict[str, Any] | None = None) -> pa.Table:
        """The result as an Arrow table, strings as strings. Raises CannotRead."""
        try:
            found: pa.Table = self._client.query_arrow(sql, parameters=parameters, use_strings=True)
        except (ClickHouseError, OSError) as error:
            raise CannotRead(f"ClickHouse at {self._where}: {_short(error)}") from error
        return found

    def records(self, sql: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Rows by column name. Raises CannotRead."""
        try:
            return list(self._client.query(sql, parameters=parameters).named_results())
        except (ClickHouseError, OSError) as error:
            raise CannotRead(f"ClickHouse at {self._where}: {_short(error)}") from error

    def named_rows(self, sql: str) -> tuple[list[str], list[Any]]:
        """Names and rows of a statement. Raises CannotRead."""
        try:
            result = self._client.query(sql)
            return list(result.column_names), list(result.result_rows)
        except (ClickHouseError, OSError) as error:
            raise CannotRead(f"ClickHouse at {self._where}: {_short(error)}") from error

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[Any]:
        """Rows of a query. Raises CannotRead."""
        try:
            return list(self._client.query(sql, parameters=parameters).result_rows)
        except (ClickHouseError, OSError) as error:
            raise CannotRead(f"ClickHouse at {self._where}: {_short(error)}") from error


def _is_about(verdict: RoundVerdict, task: str, number: int) -> bool:
    """A round of that number, or a closer look at what one of that number found."""
    if verdict.kind != FOLLOW_UP or task in (verdict.task, verdict.task.rpartition("/")[2]):
        return verdict.round == number
    return verdict.spec.get("round") == number


def _short(error: Exception) -> str:
    """The driver's words without its wrapping."""
    text = str(error)
    if "Connection refused" in text:
        return "connection refused; is it running there?"
    if "NameResolutionError" in text:
        return "no such host"
    if "code: 516" in text or "AUTHENTICATION_FAILED" in text:
        return "user or password is wrong (the password stands in the URL or in KPATROL_CLICKHOUSE_PASSWORD_FILE)"
    return text.splitlines()[0] if text else type(error).__name__
