"""The one door to the embedded engine. Blocking; the caller puts calls into threads.

Every call opens a handle of its own and closes it (0.1 ms): after a failed or killed query a handle gives the
dead query's blocks to the next one, and settings of one request must not reach another.
"""

import fcntl
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from kpatrol.endpoint.sql_guard import Known

LOCK_NAME = "kpatrol-endpoint.lock"
_MESSAGE = re.compile(r"(?:Code: (\d+)\. DB::Exception: )+(.*)", re.DOTALL)
_TAIL = re.compile(r"(?:\s*\((?:version [^)]*|[A-Z][A-Z0-9_]+)\)\.?)+\s*$")
_NAME = re.compile(r"\(([A-Z][A-Z0-9_]+)\)")


class EngineError(Exception):
    """The engine's own complaint. `code` and `name` are ClickHouse's."""

    def __init__(self, *, code: int, name: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.name = name


class FolderInUse(Exception):
    """Another process owns the data folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One statement for the engine. `settings` are name → text value, `literals` name → SQL literal, applied after.

    `data` (with `sql` ending before FORMAT) makes it an insert. `tag` names the call for `kill`.
    """

    sql: str
    format: str
    tag: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    literals: Mapping[str, str] = field(default_factory=dict)
    readonly: bool = False
    data: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a call gave: the body in the asked format and the counts of ClickHouse's summary."""

    body: bytes = b""
    result_rows: int = 0
    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    elapsed_s: float = 0.0


def parse_error(text: str) -> EngineError:
    """The engine's exception text as code, name and message, without its repetitions."""
    found = _MESSAGE.search(text)
    code = int(found.group(1)) if found else 1000
    message = found.group(2) if found else text
    tail = _TAIL.search(message)
    named = _NAME.search(tail.group()) if tail else None
    return EngineError(
        code=code,
        name=named.group(1) if named else "UNKNOWN_EXCEPTION",
        message=message[: tail.start()].strip() if tail else message.strip(),
    )


def literal(value: str) -> str:
    """A string as SQL literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def settings_statement(settings: Mapping[str, str], literals: Mapping[str, str]) -> str:
    """One SET for all of them. Raises ValueError on a name that is not a plain word."""
    for name in (*settings, *literals):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{name!r} is not the name of a setting")
    pairs = {name: literal(value) for name, value in settings.items()} | dict(literals)
    return "SET " + ", ".join(f"{name} = {value}" for name, value in pairs.items())


class Engine:
    """The engine over one data folder, which it owns while open."""

    def __init__(self, *, path: Path, database: str, max_memory_bytes: int, backups: Path | None = None) -> None:
        """`backups` is the only folder that BACKUP writes to and RESTORE reads from; None: neither."""
        self._path = path
        self._backups = backups
        self.database = database
        allowed = f"&backups.allowed_path={quote(str(backups))}" if backups else ""
        self._address = f"{quote(str(path))}?max_server_memory_usage={max_memory_bytes}{allowed}"
        self._root: Any = None
        self._lock: IO[str] | None = None

    def open(self) -> None:
        """Takes the folder (made if missing) and creates the database. Raises FolderInUse, EngineError, OSError."""
        import chdb

        self._path.mkdir(parents=True, exist_ok=True)
        if self._backups is not None:
            self._backups.mkdir(parents=True, exist_ok=True)
        # The engine's own complaint about a second process names no cause; this lock does, and dies with us.
        lock = (self._path / LOCK_NAME).open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise FolderInUse(f"{self._path} is in use by process {owner}") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock
        try:
            self._root = chdb.connect(self._address)
        except RuntimeError as error:
            lock.close()
            raise FolderInUse(f"{self._path} cannot be opened (in use by another process?): {error}") from error
        self.query(f"CREATE DATABASE IF NOT EXISTS `{self.database}` ENGINE = Atomic")

    def close(self) -> None:
        """Gives the folder back. Calls still running are cut off by the engine."""
        if self._root is not None:
            self._root.close()
            self._root = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def query(self, sql: str) -> bytes:
        """A statement of our own, answered as TabSeparated. Raises EngineError."""
        try:
            return bytes(self._root.query(sql, "TabSeparated").bytes())
        except RuntimeError as error:
            raise parse_error(str(error)) from error

    def known(self) -> Known:
        """The names the guard needs."""
        formats = self._names("SELECT name FROM system.formats")
        return Known(
            table_functions=frozenset(n.lower() for n in self._names("SELECT name FROM system.table_functions")),
            formats={n.lower(): n for n in formats},
            databases=frozenset(self._names("SELECT name FROM system.databases")),
            database=self.database,
            backups=self._backups is not None,
            base_tables=frozenset(
                self._names(
                    f"SELECT name FROM system.tables WHERE database = {literal(self.database)} AND engine != 'View'"
                )
            ),
        )

    def _names(self, sql: str) -> list[str]:
        return self.query(sql).decode().split()

    def run(self, call: Call) -> Answer:
        """Runs one call on a fresh handle. Raises EngineError; ValueError for a bad setting's name."""
        import chdb

        prepare = settings_statement({**call.settings, "log_comment": call.tag}, call.literals)
        try:
            handle = chdb.connect(self._address)
            try:
                handle.query(f"USE `{self.database}`")
                handle.query(prepare)
                if call.readonly:
                    handle.query("SET readonly = 1")
                if call.data is not None:
                    return _insert(handle, call, call.data)
                return _query(handle, call)
            finally:
                handle.close()
        except RuntimeError as error:
            raise parse_error(str(error)) from error

    def kill(self, tag: str) -> None:
        """Ends the call with this tag, if it still runs. Raises EngineError."""
        self.query(f"KILL QUERY WHERE Settings['log_comment'] = {literal(tag)} ASYNC")


def _insert(handle: Any, call: Call, data: bytes) -> Answer:
    inserter = handle.send_insert(call.sql, call.format)
    try:
        if data:
            inserter.append(data)
        done = inserter.finish()
    finally:
        inserter.close()
    return Answer(written_rows=done.rows_written, written_bytes=done.bytes_written, elapsed_s=done.elapsed)


def _query(handle: Any, call: Call) -> Answer:
    result = handle.query(call.sql, call.format, params=dict(call.parameters))
    return Answer(
        body=result.bytes(),
        result_rows=result.rows_read(),
        read_rows=result.storage_rows_read(),
        read_bytes=result.storage_bytes_read(),
        written_rows=result.rows_written(),
        written_bytes=result.bytes_written(),
        elapsed_s=result.elapsed(),
    )
