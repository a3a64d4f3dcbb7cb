"""Commands that ask what was stored, over time, or what storing it costs: `kpatrol history`, `sql`, `plan`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from kpatrol.trouble import Trouble

CLICKHOUSE = click.option(
    "--clickhouse", default="", help="http://user:password@host:port/database (default: the running lab's)."
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="JSON with stable names.")
AS_CSV = click.option("--csv", "as_csv", is_flag=True, help="CSV with a head.")


def _form(as_json: bool, as_csv: bool) -> Any:
    if as_json and as_csv:
        raise click.UsageError("choose one of --json and --csv")
    return "json" if as_json else "csv" if as_csv else "table"


@click.command()
@click.argument("task", default="")
@click.option("--since", default="7d", show_default=True, help="30d, 12h, or a date or time, UTC.")
@click.option("--until", default="", help="The same; default: now.")
@click.option("--by", type=click.Choice(["all", "protocol", "zone", "node", "pair"]), default="all", show_default=True)
@click.option("--pair", default="", help="source,destination: both ways of this pair.")
@click.option("--protocol", default="", help="Only this one: icmp, udp, tcp, http, https, dns.")
@click.option("--compare", default="", help="Also the same span that much earlier, as 7d: says what became worse.")
@CLICKHOUSE
@AS_JSON
@AS_CSV
def history(task: str, by: Any, clickhouse: str, as_json: bool, as_csv: bool, **asked: str) -> None:
    """How TASK (`kind/name`, or a name; default: all) has fared for weeks and months, from the roll-ups.

    Loss with its 95 % interval, delays, availability; a line for each of what --by names, the worst first.
    """
    from datetime import UTC, datetime

    from kpatrol.reading import history as reading
    from kpatrol.reading import history_show
    from kpatrol.reading.store import CannotRead

    now = datetime.now(UTC)
    try:
        question = reading.Question(
            task=task,
            since=reading.instant(asked["since"], now=now, name="--since"),
            until=reading.instant(asked["until"], now=now, name="--until") if asked["until"] else now,
            by=by,
            pair=reading.pair_of(asked["pair"]) if asked["pair"] else None,
            protocol=reading.protocol(asked["protocol"]),
        )
        compare = reading.span(asked["compare"], name="--compare") if asked["compare"] else None
        form = _form(as_json, as_csv)
        sys.exit(history_show.history(question=question, compare=compare, url=clickhouse, form=form, env=os.environ))
    except CannotRead as error:
        raise Trouble(str(error)) from error


@click.command()
@click.argument("statement", default="")
@click.option("--views", is_flag=True, help="List the views and what they are for.")
@CLICKHOUSE
@AS_JSON
@AS_CSV
def sql(statement: str, views: bool, clickhouse: str, as_json: bool, as_csv: bool) -> None:
    """Run one reading STATEMENT against the views (default: from standard input). Nothing can be changed by it."""
    from kpatrol.reading import sql as reading
    from kpatrol.reading.store import CannotRead

    if views:
        reading.print_views(as_json=as_json)
        return
    if not statement and not sys.stdin.isatty():
        statement = sys.stdin.read()
    try:
        sys.exit(reading.run(statement=statement, url=clickhouse, form=_form(as_json, as_csv), env=os.environ))
    except CannotRead as error:
        raise Trouble(str(error)) from error


@click.command("plan")
@click.option("--nodes", required=True, type=click.IntRange(2, 1_000_000))
@click.option(
    "--interval", "interval_s", default=60, show_default=True, type=click.IntRange(1, 86_400), help="Seconds."
)
@click.option(
    "--degree", default=0, show_default=True, type=click.IntRange(0, 100_000), help="Peers of a node; 0: all."
)
@click.option("--protocols", default="icmp,udp,tcp,http", show_default=True, help="icmp, udp, tcp, http, https, dns.")
@click.option("--zones", default=3, show_default=True, type=click.IntRange(1, 1000))
@click.option("--replication", default=3, show_default=True, type=click.IntRange(1, 9), help="Of Kafka's topics.")
@AS_JSON
def plan_cluster(protocols: str, as_json: bool, **asked: int) -> None:
    """What a standing patrol of a cluster costs: rows, topics, workers, disk, agents' traffic.

    Days are kept as KPATROL_RAW_DAYS and so on say.
    """
    from kpatrol.planning import CannotPlan, Patrol
    from kpatrol.planning_show import show
    from streams.migrate import Values
    from topics.connection import BadConfiguration

    names = tuple(dict.fromkeys(p.strip() for p in protocols.split(",") if p.strip()))
    try:
        show(Patrol(protocols=names, kept=Values.from_env(os.environ), **asked), as_json=as_json)
    except (CannotPlan, BadConfiguration) as error:
        raise Trouble(str(error)) from error


COMMANDS = (history, sql, plan_cluster)
