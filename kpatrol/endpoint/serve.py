"""One request from text to reply: checks, then the engine, then the answer's dress. Blocking, runs in a thread."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kpatrol.endpoint import native, sql_guard, views_only
from kpatrol.endpoint.auth import Account
from kpatrol.endpoint.engine import Answer, Call, Engine, EngineError
from kpatrol.endpoint.request import Asked
from kpatrol.endpoint.sql_guard import Known, Statement
from kpatrol.endpoint.sql_tokens import Refused
from kpatrol.endpoint.views_only import Bases

RESULT_VERBS = frozenset({"SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS", "VALUES", "FROM", "CHECK"})
DESCRIBABLE = frozenset({"SELECT", "WITH"})
# Error code → HTTP status, as a server maps them; the rest is 500.
_STATUS: Mapping[int, int] = {
    **dict.fromkeys((516, 497, 192, 193, 194, 164), 403),
    **dict.fromkeys((60, 81, 46, 115, 36), 404),
    **dict.fromkeys(
        (6, 26, 27, 38, 41, 42, 43, 44, 47, 50, 53, 57, 62, 69, 70, 72, 73, 82, 117, 153, 386, 456, 457), 400
    ),
    159: 408,
    160: 408,
    48: 501,
    202: 503,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may take. Reader's queries end after `reader_execution_s` unless they ask for less."""

    max_body_bytes: int = 512 << 20
    max_result_bytes: int = 1 << 30
    max_query_memory_bytes: int = 2 << 30
    reader_execution_s: int = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What goes back: status, body and headers."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def error_reply(error: Refused | EngineError | ValueError, *, version: str, query_id: str) -> Reply:
    """An error in ClickHouse's words."""
    code, name = getattr(error, "code", 36), getattr(error, "name", "BAD_ARGUMENTS")
    status = error.status if isinstance(error, Refused) else _STATUS.get(code, 500)
    body = f"Code: {code}. DB::Exception: {error} ({name}) (version {version})\n"
    headers = {
        "X-ClickHouse-Exception-Code": str(code),
        "X-ClickHouse-Query-Id": query_id,
        "Content-Type": "text/plain; charset=UTF-8",
    }
    return Reply(status=status, body=body.encode(), headers=headers)


class Service:
    """The engine behind the checks. Safe to use from several threads."""

    def __init__(self, *, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        self._limits = limits
        self._known: Known = engine.known()
        self.version, self.timezone = engine.query("SELECT version(), timezone()").decode().strip().split("\t")

    def serve(self, *, asked: Asked, account: Account, get: bool, tag: str) -> Reply:
        """The reply to a request. Raises Refused, EngineError, ValueError."""
        reader = account.role == "reader" or get
        self._check_database(asked.database, reader)
        if reader:
            for name in asked.settings:
                sql_guard.check_reader_setting(name)
        statement = sql_guard.check(text=asked.text, parameters=asked.parameters, known=self._known, reader=reader)
        if native.is_hello(statement.sql, asked.revision):
            return self._hello(asked)
        call = self._call(statement, asked=asked, reader=reader, tag=tag)
        if account.role == "reader":
            self._check_views_only(statement, call)
        answer = self._engine.run(call)
        if statement.is_ddl:
            self._known = self._engine.known()
        return self._dress(statement, call=call, answer=answer, asked=asked)

    def answers(self) -> None:
        """Raises EngineError where the engine does not answer a query."""
        self._engine.query("SELECT 1")

    def kill(self, tag: str) -> None:
        """Ends the request with this tag. Raises EngineError."""
        self._engine.kill(tag)

    def _check_database(self, database: str, reader: bool) -> None:
        # `default` is what clients send when nobody chose one; the engine's own `default` shows local files.
        if database in ("", "default", self._engine.database):
            return
        if database not in self._known.databases:
            raise Refused(f"Database {database} does not exist", code=81, name="UNKNOWN_DATABASE", status=404)
        if reader:
            raise Refused(f"this account reads the database {self._engine.database} only")
        raise Refused(
            f"the current database is always {self._engine.database}; write {database}.table",
            code=48,
            name="NOT_IMPLEMENTED",
            status=501,
        )

    def _check_views_only(self, statement: Statement, call: Call) -> None:
        parse = replace(call, sql=f"EXPLAIN AST {statement.sql}", format="TSVRaw")
        views_only.check(
            ast=self._engine.run(parse).body.decode(errors="replace"),
            stream=statement.tokens,
            verb=statement.verb,
            settings={**call.settings, **call.literals},
            bases=Bases(database=self._engine.database, tables=self._known.base_tables),
        )

    def _call(self, statement: Statement, *, asked: Asked, reader: bool, tag: str) -> Call:
        defaults = {"max_memory_usage": str(self._limits.max_query_memory_bytes)}
        if reader:
            defaults["max_execution_time"] = str(self._limits.reader_execution_s)
        return Call(
            sql=statement.sql,
            format=statement.format or asked.default_format,
            tag=tag,
            parameters=asked.parameters,
            settings={**defaults, **asked.settings},
            literals={**statement.lifted, "max_result_bytes": str(self._limits.max_result_bytes)},
            readonly=reader,
            data=statement.data if statement.inserts_data else None,
        )

    def _hello(self, asked: Asked) -> Reply:
        body = native.hello_block(name="kpatrol", version=self.version, timezone=self.timezone)
        return Reply(status=200, body=body, headers=self._headers(asked, Answer(result_rows=1), "Native"))

    def _dress(self, statement: Statement, *, call: Call, answer: Answer, asked: Asked) -> Reply:
        has_result = statement.verb in RESULT_VERBS or bool(answer.body)
        body = answer.body
        if has_result and not body and call.format == "Native" and answer.written_rows == 0:
            body = native.header_block(self._columns(statement, call))
        return Reply(status=200, body=body, headers=self._headers(asked, answer, call.format if has_result else ""))

    def _columns(self, statement: Statement, call: Call) -> list[tuple[str, str]]:
        """Names and types of a result that has no rows."""
        tagless = {name: getattr(call, name) for name in ("tag", "parameters", "settings", "literals", "readonly")}
        if statement.verb in DESCRIBABLE:
            try:
                described = self._engine.run(Call(sql=f"DESCRIBE TABLE ({call.sql})", format="JSONCompact", **tagless))
                return [(row[0], row[1]) for row in json.loads(described.body)["data"]]
            except EngineError:
                pass  # e.g. two columns of one name: ask the query itself
        return native.columns_of_json(self._engine.run(Call(sql=call.sql, format="JSON", **tagless)).body)

    def _headers(self, asked: Asked, answer: Answer, fmt: str) -> dict[str, str]:
        summary = {
            "read_rows": str(answer.read_rows),
            "read_bytes": str(answer.read_bytes),
            "written_rows": str(answer.written_rows),
            "written_bytes": str(answer.written_bytes),
            "total_rows_to_read": "0",
            "result_rows": str(answer.result_rows),
            "result_bytes": str(len(answer.body)),
            "elapsed_ns": str(int(answer.elapsed_s * 1e9)),
        }
        headers = {
            "X-ClickHouse-Summary": json.dumps(summary),
            "X-ClickHouse-Query-Id": asked.query_id,
            "X-ClickHouse-Timezone": self.timezone,
            "X-ClickHouse-Server-Display-Name": "kpatrol",
            "Content-Type": "application/json; charset=UTF-8" if fmt.startswith("JSON") else "application/octet-stream",
        }
        if fmt:
            headers["X-ClickHouse-Format"] = fmt
        return headers
