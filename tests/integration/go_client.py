"""ClickHouse's own Go client, clickhouse-go over HTTP (Grafana's data source stands on it), driven from tests.

The program is built once by Go from the module proxy into the user's cache (40 s on 2 cores, 1 s when Go has it in a
cache of its own) under a name that changes with its source.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kpatrol import preflight
from kpatrol.lab.kafka_jars import cache_folder
from tests.cluster.binaries import Build, build_once
from tests.integration.endpoint_fixture import READER_PASSWORD, WRITER_PASSWORD, Endpoint

_MODULES = Path(__file__).parent / "go"
_PROGRAM = "clickhouse-client"
PASSWORDS = {"reader": READER_PASSWORD, "writer": WRITER_PASSWORD}


class GoFailure(Exception):
    """What the client's error said: the server's code and name (0 and empty: not the server's word), or its own end."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        super().__init__(said["message"])
        self.code: int = said["code"]
        self.name: str = said["name"]
        self.deadline: bool = said["deadline"]
        self.canceled: bool = said["canceled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Columns and rows; `types` are ClickHouse's, `go_types` what the client scans them into."""

    names: Sequence[str]
    types: Sequence[str]
    go_types: Sequence[str]
    rows: Sequence[Sequence[Any]]


class GoClient:
    """One running client; many queries at once."""

    def __init__(self, *, program: Path, to: Mapping[str, str]) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._last = 0
        self._reader = threading.Thread(target=self._read)
        self._write(to)
        self._reader.start()

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            with self._lock:
                waiting = self._waiting.pop(said["id"])
            waiting.set_result(said)

    def start(self, op: str, sql: str = "", **asked: Any) -> Future[dict[str, Any]]:
        """The answer to come; see the fields of `request` in main.go."""
        answer: Future[dict[str, Any]] = Future()
        with self._lock:
            self._last += 1
            self._waiting[self._last] = answer
            self._write({"id": self._last, "op": op, "sql": sql, **asked})
        return answer

    def do(self, op: str, sql: str = "", **asked: Any) -> Result:
        """The answer. Raises GoFailure."""
        return result(self.start(op, sql, **asked))

    def query(self, sql: str, **asked: Any) -> Result:
        """Columns and rows. Raises GoFailure."""
        return self.do("query", sql, **asked)

    def named_rows(self, sql: str) -> tuple[list[str], list[Any]]:
        """Names and rows of a statement. Raises GoFailure."""
        found = self.query(sql)
        return list(found.names), list(found.rows)

    def close(self) -> None:
        """Let it finish what it does, and end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        finally:
            self._process.kill()
            self._reader.join()
            self._process.stdout.close()


def result(answer: Future[dict[str, Any]]) -> Result:
    """What was answered, times as datetime. Raises GoFailure."""
    said = answer.result(timeout=120)
    if said["error"] is not None:
        raise GoFailure(said["error"])
    types = said["types"] or []
    timed = [
        i for i, kind in enumerate(types) if "DateTime" in kind and "(DateTime" not in kind.replace("Nullable(", "")
    ]
    rows = said["rows"] or []
    for row in rows:
        for i in timed:
            row[i] = None if row[i] is None else datetime.fromisoformat(row[i])
    return Result(names=said["names"] or [], types=types, go_types=said["go_types"] or [], rows=rows)


def why_not() -> str:
    """Why the client cannot be had here; empty when it can."""
    return "" if _path().exists() else preflight.missing_go("test")


@contextmanager
def go_client(
    endpoint: Endpoint, *, user: str, compression: str = "none", database: str = "kpatrol"
) -> Iterator[GoClient]:
    """A client of `endpoint`, ended afterwards."""
    to = {"address": f"127.0.0.1:{endpoint.port}", "user": user, "password": PASSWORDS.get(user, "wrong")}
    client = GoClient(program=program(), to={**to, "database": database, "compression": compression})
    try:
        yield client
    finally:
        client.close()


def program() -> Path:
    """The built program. Raises MissingProgram without Go, CommandFailed with the compiler's words."""
    path = _path()
    build = Build(folder=path.parent.name, module="clickhouse", packages={_PROGRAM: "."}, modules=_MODULES)
    if not path.exists():
        build_once(build, path.parent.parent, say=print)
    return path


def _path() -> Path:
    source = b"".join((_MODULES / "clickhouse" / name).read_bytes() for name in ("go.mod", "go.sum", "main.go"))
    return cache_folder(os.environ) / f"clickhouse-go-{hashlib.sha256(source).hexdigest()[:12]}" / _PROGRAM
