"""`kpatrol report`: find the store, read, print."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from kpatrol.lab.addresses import running_labs
from kpatrol.reading.document import exit_code, newest, report_json, tasks_in_order
from kpatrol.reading.store import CannotRead, Store
from kpatrol.reading.tables import task_report
from topics.round_verdicts import RoundVerdict

# Where a terminal cannot be asked for its width (a pipe, a log), wide enough for the rounds table.
PLAIN_WIDTH = 120


def open_store(*, url: str, env: Mapping[str, str]) -> Store:
    """The store named by the option, the environment, or the one running lab of this user.

    The password stands in the URL, in the file that KPATROL_CLICKHOUSE_PASSWORD_FILE names, or is the running lab's.
    """
    url = url or env.get("KPATROL_CLICKHOUSE_URL", "")
    password_file = env.get("KPATROL_CLICKHOUSE_PASSWORD_FILE", "")
    labs = running_labs(env)
    if url:
        known = next((lab.clickhouse_password for lab in labs if lab.clickhouse_url == url), "")
        password = Path(password_file).read_text().strip() if password_file else known
        return Store(url=url, password=password, ca_file=env.get("KPATROL_CLICKHOUSE_CA_FILE", ""))
    if not labs:
        raise CannotRead(
            "no lab is running: say --clickhouse http://user@host:port/database, or keep one: `lab --keep`"
        )
    if len(labs) > 1:
        which = ", ".join(lab.clickhouse_url for lab in labs)
        raise CannotRead(f"{len(labs)} labs are running: choose one by --clickhouse URL, allowed: {which}")
    return Store(url=labs[0].clickhouse_url, password=labs[0].clickhouse_password)


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


def save_page(path: Path, *, task: str, url: str, env: Mapping[str, str]) -> None:
    """Write the page with everything it shows into one file. Raises CannotRead."""
    # The page reads by this package: imported where it is used, or the two would import each other.
    from kpatrol.ui.page import documents, self_contained

    store = open_store(url=url, env=env)
    try:
        kept = documents(store, task=task)
        if not kept["tasks"]:
            raise CannotRead(f"no verdict of {f'task {task!r}' if task else 'any task'} is stored")
        path.write_text(self_contained(kept))
    except OSError as error:
        raise CannotRead(f"{path}: {error.strerror}") from error
    finally:
        store.close()


def print_report(store: Store, verdicts: Sequence[RoundVerdict], *, console: Console | None = None) -> None:
    """Tables for every task among the verdicts, each with the closer looks at it below."""
    console = console or make_console()
    rounds = newest(verdicts)
    for task in tasks_in_order(rounds):
        mine = [v for v in rounds if v.task == task]
        console.print(task_report(task, mine, store.matrix(round_ids=[v.round_id for v in mine])))


def make_console() -> Console:
    """Standard output: colours on a terminal, plain and wide elsewhere."""
    console = Console()
    if console.is_terminal:
        return console
    asked = os.environ.get("COLUMNS", "")
    return Console(width=int(asked) if asked.isdigit() else PLAIN_WIDTH, no_color=True)
