"""`kpatrol migrate`: ClickHouse's tables and views by the streams' own files."""

import re
import time
from collections.abc import Mapping
from pathlib import Path

from streams.clickhouse import ClickHouse, ClickHouseAway, ClickHouseRefused
from streams.migrate import VIEW_TABLE, Migration, MigrationRefused, Values
from topics.connection import BadConfiguration

BACKUP_TIMEOUT_S = 3600.0


class CannotMigrate(Exception):
    """Refused or unreachable: the text says which file or which address, and why."""


def migrate_tables(
    *, url: str, env: Mapping[str, str], dry_run: bool = False, keep_newer: bool = False, patience_s: float = 0.0
) -> list[dict[str, str]]:
    """What was done (with `dry_run`: where every file stands), a row a file. Raises CannotMigrate.

    With `keep_newer` a database that a newer version has migrated is left as it is, which a rollback needs. With
    `patience_s` ClickHouse may take that long to answer.
    `url` is http://user@host:port/database; empty takes KPATROL_CLICKHOUSE_URL. The password's file is
    KPATROL_CLICKHOUSE_PASSWORD_FILE.
    """
    try:
        clickhouse = door(url, env)
        if patience_s:
            clickhouse.wait_ready(timeout_s=patience_s)
        migration = Migration(clickhouse=clickhouse, values=Values.from_env(env))
        steps = migration.status() if dry_run or keep_newer else []
        if keep_newer and any(step.kind == "table" and step.state == "unknown" for step in steps):
            steps = []
        elif not dry_run:
            steps = migration.apply()
        clickhouse.close()
    except (BadConfiguration, MigrationRefused, ClickHouseAway, ClickHouseRefused, OSError) as error:
        raise CannotMigrate(str(error)) from error
    return [{"file": s.file, "kind": s.kind, "state": s.state if dry_run else "done"} for s in steps]


def backup_tables(*, name: str, url: str, env: Mapping[str, str]) -> float:
    """Write the whole database under `name` into the folder of backups, while it is in use; the seconds it took.
    Raises CannotMigrate, also where that name is taken."""
    return _kept("BACKUP DATABASE {} TO File('{}')", name=name, url=url, env=env)


def restore_tables(*, name: str, url: str, env: Mapping[str, str]) -> float:
    """Bring a backup into a database without tables, and its views and functions to this version's form; the seconds
    it took. Raises CannotMigrate."""
    took_s = _kept("RESTORE DATABASE {} FROM File('{}')", name=name, url=url, env=env)
    try:
        clickhouse = door(url, env)
        # A backup of a database holds no functions: have all of them, and what stands on them, made again.
        clickhouse.command(f"TRUNCATE TABLE {VIEW_TABLE}")
        clickhouse.close()
    except (BadConfiguration, ClickHouseAway, ClickHouseRefused, OSError) as error:
        raise CannotMigrate(str(error)) from error
    migrate_tables(url=url, env=env)
    return took_s


def _kept(statement: str, *, name: str, url: str, env: Mapping[str, str]) -> float:
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise CannotMigrate(f"NAME: found {name!r}, expected letters, digits, '_', '-' and '.'")
    began_s = time.monotonic()
    try:
        clickhouse = door(url, env, timeout_s=BACKUP_TIMEOUT_S)
        tables = clickhouse.query_rows("SELECT count() AS n FROM system.tables WHERE database = currentDatabase()")
        if statement.startswith("RESTORE") and tables[0]["n"]:
            raise CannotMigrate(f"{clickhouse.where} has {tables[0]['n']} tables: restore into a new, empty folder")
        clickhouse.server_command(statement.format(clickhouse.database, name))
        clickhouse.close()
    except (BadConfiguration, ClickHouseAway, ClickHouseRefused, OSError) as error:
        raise CannotMigrate(str(error)) from error
    return time.monotonic() - began_s


def door(url: str, env: Mapping[str, str], *, timeout_s: float = 30.0) -> ClickHouse:
    """ClickHouse as an account of the services sees it. Raises BadConfiguration, OSError."""
    url = url or env.get("KPATROL_CLICKHOUSE_URL", "")
    if not url:
        return ClickHouse.from_env(env)
    file = env.get("KPATROL_CLICKHOUSE_PASSWORD_FILE", "")
    password = Path(file).read_text().strip() if file else ""
    ca_file = env.get("KPATROL_CLICKHOUSE_CA_FILE", "")
    return ClickHouse(url=url, password=password, ca_file=ca_file, timeout_s=timeout_s)
