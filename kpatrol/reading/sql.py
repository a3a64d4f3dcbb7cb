"""`kpatrol sql`: one reading statement against the views, as a table, JSON or CSV; and what views there are."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

import streams.migrate
from kpatrol.reading.history_show import Form, write_csv
from kpatrol.reading.show import make_console, open_store
from kpatrol.reading.store import CannotRead

ROWS_SHOWN = 200
VIEWS = Path(streams.migrate.__file__).with_name("views")


def run(*, statement: str, url: str, form: Form, env: Mapping[str, str]) -> int:
    """Run it with the reader's rights and print; returns the exit code. Raises CannotRead."""
    text = statement.strip().rstrip(";")
    if not text:
        raise CannotRead(
            "no statement: give it as an argument, or on standard input; `kpatrol sql --views` lists views"
        )
    store = open_store(url=url, env=env)
    try:
        names, rows = store.named_rows(text)
    finally:
        store.close()
    records = [dict(zip(names, (_plain(v) for v in row), strict=True)) for row in rows]
    if form == "json":
        json.dump(records, sys.stdout, indent=2)
        print()
    elif form == "csv":
        write_csv(records) if records else print(",".join(names))
    else:
        _print(names, records)
    return 0


def _plain(value: Any) -> Any:
    """As JSON and CSV have it: times in ISO 8601 (UTC), bytes in hex."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _print(names: Sequence[str], records: Sequence[Mapping[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        number = bool(records) and isinstance(records[0][name], int | float)
        table.add_column(name, justify="right" if number else "left")
    for record in records[:ROWS_SHOWN]:
        table.add_row(*(_cell(record[name]) for name in names))
    console = make_console()
    console.print(table)
    if len(records) > ROWS_SHOWN:
        console.print(f"{ROWS_SHOWN} of {len(records)} rows; --json and --csv have them all")
    elif not records:
        console.print("no rows")


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def views() -> list[dict[str, str]]:
    """Every view of this version and what it says of itself: the comment at the top of its file."""
    found = []
    for path in sorted(VIEWS.glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        name = re.search(r"VIEW (\w+)", text)
        if name:
            comment = " ".join(line[3:] for line in text.splitlines() if line.startswith("-- "))
            found.append({"view": name[1], "what": comment})
    return sorted(found, key=lambda v: v["view"])


def print_views(*, as_json: bool) -> None:
    """The list of views."""
    if as_json:
        print(json.dumps(views(), indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("view")
    table.add_column("what")
    for view in views():
        table.add_row(view["view"], view["what"])
    make_console().print(table)
