"""python -m streams.migrate [status | --dry-run]: brings ClickHouse's tables and views to this version's form.

`schema/NNNN_*.sql` are tables and materialized views: applied once, in order, never edited afterwards; an edited or a
missing file is an error. `views/*.sql` are views and functions: run again whenever their text changes, in the order of
their names. One statement a file. Placeholders: see `Values`.

Bookkeeping and placeholders of `schema/` are `clickhouse-migrations`' (over HTTP, through clickhouse-connect: it
speaks to the embedded engine's endpoint as to a server); views are ours, since it knows no repeatable scripts.
There is no lock: run one migration at a time (of two, one fails at CREATE TABLE and changes nothing).

Exit codes: 0 done, 2 refused or unreachable.
"""

import argparse
import hashlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from clickhouse_migrations.connection import Connection
from clickhouse_migrations.exceptions import MigrationException
from clickhouse_migrations.migration import MigrationStorage
from clickhouse_migrations.migrator import Migrator
from clickhouse_migrations.substitution import substitute

from streams.clickhouse import ClickHouse, ClickHouseAway, ClickHouseRefused, pair_columns, rollup_columns
from topics.connection import BadConfiguration

HERE = Path(__file__).parent
TABLE = "schema_version"
VIEW_TABLE = "schema_view"
MAX_DAYS = 7300
State = Literal["applied", "pending", "changed", "unknown"]
_STATES: Mapping[str, State] = {
    "applied": "applied",
    "pending": "pending",
    "md5-mismatch": "changed",
    "unknown": "unknown",
}


class MigrationRefused(Exception):
    """The files and the database do not fit together; the text names the file and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What the placeholders stand for: `${ENGINE}` before every MergeTree, `${ON_CLUSTER}`, and the TTLs in days."""

    cluster: str = ""
    raw_days: int = 7
    minute_days: int = 60
    hour_days: int = 180
    agent_days: int = 30
    round_days: int = 730
    year_days: int = 1095

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]*", self.cluster):
            raise BadConfiguration(f"cluster: found {self.cluster!r}, expected letters, digits, '_', '.', '-'")
        for field in fields(self):
            value = getattr(self, field.name)
            # ClickHouse's DateTime ends in 2106: an end of life beyond it wraps round, and drops rows at once.
            if field.name != "cluster" and not 1 <= value <= MAX_DAYS:
                raise BadConfiguration(f"{field.name}: found {value}, expected days, 1 to {MAX_DAYS}")

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Values":
        """From KPATROL_CLICKHOUSE_CLUSTER and KPATROL_RAW_DAYS and so on. Raises BadConfiguration."""
        given: dict[str, Any] = {"cluster": env.get("KPATROL_CLICKHOUSE_CLUSTER", "")}
        for field in fields(cls):
            name = f"KPATROL_{field.name.upper()}"
            if field.name == "cluster" or name not in env:
                continue
            if not env[name].isdigit():
                raise BadConfiguration(f"{name}: found {env[name]!r}, expected days, 1 to {MAX_DAYS}")
            given[field.name] = int(env[name])
        return cls(**given)

    def placeholders(self) -> dict[str, str]:
        """Name → text of every placeholder."""
        days = {f.name.upper(): str(getattr(self, f.name)) for f in fields(self) if f.name != "cluster"}
        return {
            **days,
            "ENGINE": "Replicated" if self.cluster else "",
            "ON_CLUSTER": f"ON CLUSTER '{self.cluster}'" if self.cluster else "",
            "PAIR_COLUMNS": pair_columns(),
            "ROLLUP_COLUMNS": rollup_columns(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One file and where it stands. `changed` is an error for a table and work to do for a view."""

    file: str
    kind: Literal["table", "view"]
    state: State


class _Door(Connection):  # type: ignore[misc]
    """clickhouse-migrations' idea of a connection, through our door."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse

    def command(self, statement: str, log_statement: str | None = None) -> None:
        self._clickhouse.command(statement)

    def query(self, statement: str) -> list[dict[str, Any]]:
        return self._clickhouse.query_rows(statement)

    def insert(self, table: str, rows: list[dict[str, Any]]) -> None:
        columns = list(rows[0])
        self._clickhouse.insert_rows(table=table, columns=columns, rows=[[r[c] for c in columns] for r in rows])

    def __enter__(self) -> "_Door":
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Migration:
    """The files of one version against one database. Other folders than the package's own are for tests."""

    def __init__(
        self,
        *,
        clickhouse: ClickHouse,
        values: Values | None = None,
        schema: Path = HERE / "schema",
        views: Path = HERE / "views",
    ) -> None:
        self._clickhouse = clickhouse
        self._values = values or Values()
        self._storage = MigrationStorage(schema)
        self._views = views
        self._migrator = Migrator(_Door(clickhouse), migrations_table=TABLE, migration_log_format="compact")

    def status(self) -> list[Step]:
        """Every file and where it stands; also what the database has and the files do not. Changes nothing."""
        if not self._has_database():
            files = (*self._storage.migration_filenames().values(), *(p.name for p in self._views.glob("*.sql")))
            tables = set(self._storage.migration_filenames().values())
            return [
                Step(file=f, kind="table" if f in tables else "view", state="pending")
                for f in sorted(files, key=lambda f: (f not in tables, f))
            ]
        return [*self._table_steps(), *self._view_steps()]

    def apply(self) -> list[Step]:
        """Does what is to do and returns it (empty: nothing was). Raises MigrationRefused, ClickHouseAway, -Refused."""
        self._prepare()
        before = self._table_steps()
        wrong = [s for s in before if s.state in ("changed", "unknown")]
        if wrong:
            raise MigrationRefused(_complaint(wrong))
        try:
            # Renders every file before the first statement, so a bad placeholder changes nothing.
            self._migrator.apply_migration(
                self._storage.migrations(),
                True,
                variables=self._values.placeholders(),
                sources=self._storage.migration_filenames(),
            )
        except MigrationException as error:
            raise MigrationRefused(str(error)) from error
        done = [s for s in before if s.state == "pending"]
        return [*done, *(self._apply_view(s) for s in self._view_steps() if s.state in ("pending", "changed"))]

    def _prepare(self) -> None:
        values = self._values.placeholders()
        on_cluster, engine = values["ON_CLUSTER"], values["ENGINE"]
        if not self._has_database():
            database = self._clickhouse.database
            self._clickhouse.server_command(f"CREATE DATABASE IF NOT EXISTS `{database}` {on_cluster} ENGINE = Atomic")
        self._migrator.init_schema(self._values.cluster or None)
        self._clickhouse.command(
            f"CREATE TABLE IF NOT EXISTS {VIEW_TABLE} {on_cluster} (name String, checksum String, "
            f"at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')) ENGINE = {engine}ReplacingMergeTree(at) ORDER BY name"
        )

    def _has_database(self) -> bool:
        sql = "SELECT count() FROM system.databases WHERE name = {name:String}"
        return bool(int(self._clickhouse.server_command(sql, {"name": self._clickhouse.database})))

    def _has_table(self, name: str) -> bool:
        sql = "SELECT count() AS n FROM system.tables WHERE database = {database:String} AND name = {name:String}"
        parameters = {"database": self._clickhouse.database, "name": name}
        return bool(self._clickhouse.query_rows(sql, parameters)[0]["n"])

    def _table_steps(self) -> list[Step]:
        try:
            names = self._storage.migration_filenames()
            if not self._has_table(TABLE):
                return [Step(file=names[v], kind="table", state="pending") for v in sorted(names)]
            rows = self._migrator.migration_status(self._storage.migrations())
        except MigrationException as error:
            raise MigrationRefused(str(error)) from error
        return [
            Step(file=names.get(r.version, f"{r.version:04d}_?.sql"), kind="table", state=_STATES[r.state])
            for r in rows
        ]

    def _view_steps(self) -> list[Step]:
        recorded: dict[str, str] = {}
        if self._has_table(VIEW_TABLE):
            rows = self._clickhouse.query_rows(f"SELECT name, checksum FROM {VIEW_TABLE} FINAL")
            recorded = {r["name"]: r["checksum"] for r in rows}
        steps = []
        for path in sorted(self._views.glob("*.sql")):
            known = recorded.get(path.stem)
            state: State = "pending" if known is None else "applied" if known == self._rendered(path)[1] else "changed"
            steps.append(Step(file=path.name, kind="view", state=state))
        return steps

    def _apply_view(self, step: Step) -> Step:
        path = self._views / step.file
        statement, checksum = self._rendered(path)
        self._clickhouse.command(statement)
        self._clickhouse.insert_rows(table=VIEW_TABLE, columns=["name", "checksum"], rows=[[path.stem, checksum]])
        return step

    def _rendered(self, path: Path) -> tuple[str, str]:
        try:
            text: str = substitute(path.read_text(encoding="utf-8"), self._values.placeholders(), path.name)
        except MigrationException as error:
            raise MigrationRefused(str(error)) from error
        return text, hashlib.sha256(text.encode()).hexdigest()


def _complaint(wrong: Sequence[Step]) -> str:
    said = {
        "changed": "was edited after it was applied: restore it and write a new file instead",
        "unknown": "was applied here but is not among the files: is this an older version of the program?",
    }
    return "; ".join(f"{s.file} {said[s.state]}" for s in wrong)


def main(arguments: Sequence[str], env: Mapping[str, str]) -> int:
    """The process; see the module's docstring for the exit codes."""
    parser = argparse.ArgumentParser(prog="python -m streams.migrate")
    parser.add_argument("what", nargs="?", choices=["apply", "status"], default="apply")
    parser.add_argument("--dry-run", action="store_true", help="the same as status")
    options = parser.parse_args(arguments)
    try:
        clickhouse = ClickHouse.from_env(env)
        migration = Migration(clickhouse=clickhouse, values=Values.from_env(env))
        look = options.dry_run or options.what == "status"
        steps = migration.status() if look else migration.apply()
    except (BadConfiguration, MigrationRefused, ClickHouseAway, ClickHouseRefused, OSError) as error:
        print(f"streams.migrate: {error}", file=sys.stderr)
        return 2
    for step in steps:
        print(f"{step.state if look else 'done':8} {step.kind:6} {step.file}")
    if not steps:
        print("nothing to do")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
