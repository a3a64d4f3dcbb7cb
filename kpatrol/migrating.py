"""`kpatrol migrate`: ClickHouse's tables and views by the streams' own files."""

from collections.abc import Mapping
from pathlib import Path

from streams.clickhouse import ClickHouse, ClickHouseAway, ClickHouseRefused
from streams.migrate import Migration, MigrationRefused, Values
from topics.connection import BadConfiguration


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
        clickhouse = _door(url, env)
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


def _door(url: str, env: Mapping[str, str]) -> ClickHouse:
    if not url:
        return ClickHouse.from_env(env)
    file = env.get("KPATROL_CLICKHOUSE_PASSWORD_FILE", "")
    password = Path(file).read_text().strip() if file else ""
    return ClickHouse(url=url, password=password, ca_file=env.get("KPATROL_CLICKHOUSE_CA_FILE", ""))
