"""`kpatrol report`: find the store, read, print."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from kpatrol.reading.document import exit_code, newest, report_json
from kpatrol.reading.store import CannotRead, Store
from kpatrol.reading.tables import task_report
from topics.round_verdicts import RoundVerdict

# Where a terminal cannot be asked for its width (a pipe, a log), wide enough for the rounds table.
PLAIN_WIDTH = 120


def open_store(*, url: str, env: Mapping[str, str]) -> Store:
    """The store named by the option, the environment, or the one running lab of this user."""
    password = ""
    if not url:
        url = env.get("KPATROL_CLICKHOUSE_URL", "")
        password_file = env.get("KPATROL_CLICKHOUSE_PASSWORD_FILE", "")
        password = Path(password_file).read_text().strip() if password_file else ""
    if not url:
        from kpatrol.lab.addresses import running_labs

        labs = running_labs(env)
        if len(labs) != 1:
            found = "no lab is running" if not labs else f"{len(labs)} labs are running"
            raise CannotRead(f"{found}: say --clickhouse http://user@host:port/database, or keep one with `lab --keep`")
        url, password = labs[0].clickhouse_url, labs[0].clickhouse_password
    return Store(url=url, password=password)


def report(*, task: str, number: int | None, url: str, as_json: bool, env: Mapping[str, str]) -> int:
    """Print the report; returns the exit code. Raises CannotRead."""
    store = open_store(url=url, env=env)
    try:
        verdicts = store.verdicts(task=task, number=number)
        if not verdicts:
            what = f"task {task!r}" if task else "any task"
            raise CannotRead(f"no verdict of {what}{f', round {number}' if number else ''} is stored")
        if as_json:
            print(json.dumps(report_json(verdicts), indent=2))
        else:
            print_report(store, verdicts)
        return exit_code(verdicts)
    finally:
        store.close()


def print_report(store: Store, verdicts: Sequence[RoundVerdict], *, console: Console | None = None) -> None:
    """Tables for every task among the verdicts."""
    console = console or make_console()
    rounds = newest(verdicts)
    for task in dict.fromkeys(v.task for v in rounds):
        mine = [v for v in rounds if v.task == task]
        console.print(task_report(task, mine, store.matrix(round_ids=[v.round_id for v in mine])))


def make_console() -> Console:
    """Standard output: colours on a terminal, plain and wide elsewhere."""
    console = Console()
    if console.is_terminal:
        return console
    asked = os.environ.get("COLUMNS", "")
    return Console(width=int(asked) if asked.isdigit() else PLAIN_WIDTH, no_color=True)
