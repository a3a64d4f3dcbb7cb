"""`kpatrol migrate`: ClickHouse's tables and views by the streams' own files."""

from collections.abc import Mapping
from pathlib import Path

from streams.clickhouse import ClickHouse, ClickHouseAway, ClickHouseRefused
from streams.migrate import Migration, MigrationRefused, Values
from topics.connection import BadConfiguration


class CannotMigrate(Exception):
    """Refused or unreachable: the text says which file or which address, and why."""


def migrate_tables(*, url: str, env: Mapping[str, str], dry_run: bool = False) -> list[dict[str, str]]:
    """What was done (with `dry_run`: where every file stands), a row a file. Raises CannotMigrate.

    `url` is http://user@host:port/database; empty takes KPATROL_CLICKHOUSE_URL. The password's file is
    KPATROL_CLICKHOUSE_PASSWORD_FILE.
    """
    try:
        clickhouse = _door(url, env)
        migration = Migration(clickhouse=clickhouse, values=Values.from_env(env))
        steps = migration.status() if dry_run else migration.apply()
        clickhouse.close()
    except (BadConfiguration, MigrationRefused, ClickHouseAway, ClickHouseRefused, OSError) as error:
        raise CannotMigrate(str(error)) from error
    return [{"file": s.file, "kind": s.kind, "state": s.state if dry_run else "done"} for s in steps]


def _door(url: str, env: Mapping[str, str]) -> ClickHouse:
    if not url:
        return ClickHouse.from_env(env)
    file = env.get("KPATROL_CLICKHOUSE_PASSWORD_FILE", "")
    return ClickHouse(url=url, password=Path(file).read_text().strip() if file else "")
