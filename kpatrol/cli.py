"""The command `kpatrol`: what can be asked, and the exit codes. Each command's work lives in its own module.

Exit codes: 0 all good; 1 the network or the target failed the expectation; 2 cannot tell (our own trouble, bad input).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from kpatrol import asking
from kpatrol.check.commands import check, resume
from kpatrol.reading.show import make_console
from kpatrol.trouble import CANNOT_TELL, Trouble
from topics.connection import BadConfiguration, KafkaConnection


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("kpatrol"), prog_name="kpatrol")
def cli() -> None:
    """An event-streaming network patrol for Kubernetes: every request kept, loss with a direction and a place."""


cli.add_command(check)
cli.add_command(resume)

FILE = click.Path(path_type=Path)


@cli.command()
@click.option("-f", "--file", "files", multiple=True, type=FILE, help="Task file or folder (YAML); may be repeated.")
@click.option("--agents", default=5, show_default=True, type=click.IntRange(1, 400), help="How many agents.")
@click.option("--fault", "faults", multiple=True, help="e.g. 'ingress node-3 loss=2%', 'pair node-1>node-2 loss=5%'.")
@click.option("--rounds", type=click.IntRange(min=1), help="Run this many rounds of every task instead of its own.")
@click.option(
    "--minute-s", default=10.0, show_default=True, type=click.FloatRange(0.5, 60), help="Length of a schedule's minute."
)
@click.option("--max-qps", type=click.IntRange(min=1), help="Ceiling of `request.qps` (default: as in a cluster).")
@click.option("--zones", default=1, show_default=True, type=click.IntRange(1, 20), help="Spread the agents over zones.")
@click.option("--follow-ups", is_flag=True, help="Look at each loss found once more, closer and out of turn.")
@click.option("--keep", is_flag=True, help="Stay up afterwards and print the addresses; Ctrl-C ends it.")
@click.option(
    "--kafka", "security", type=click.Choice(["plaintext", "sasl_ssl"]), default="plaintext", show_default=True
)
@click.option("--brokers", default=1, show_default=True, type=click.IntRange(1, 3), help="Kafka brokers.")
@click.option("--timeout-s", default=900.0, show_default=True, help="Give up after this long.")
@click.option("--logs", type=FILE, help="Copy the services' logs into this folder at the end.")
@click.option("--mode", type=click.Choice(["root", "userns", "loopback"]), help="Force the kind of network.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON on standard output.")
def lab(as_json: bool, security: Any, mode: str | None, **options: Any) -> None:
    """Start the whole pipe on this machine, run the tasks, print the report, stop everything."""
    from kpatrol.lab.errors import LabError
    from kpatrol.lab.options import LabOptions
    from kpatrol.lab.run import run

    try:
        code = run(LabOptions(kafka_security=security, mode=mode or "", **options), as_json=as_json)
    except LabError as error:
        raise Trouble(str(error)) from error
    sys.exit(code)


@cli.command()
@click.argument("task", default="")
@click.option("--round", "number", type=click.IntRange(min=1), help="Only this round.")
@click.option("--clickhouse", default="", help="http://user:password@host:port/database (default: the running lab's).")
@click.option("--json", "as_json", is_flag=True, help="JSON with stable names.")
@click.option("--html", type=FILE, help="Write the page as one file that needs nothing else, for a ticket.")
def report(task: str, number: int | None, clickhouse: str, as_json: bool, html: Path | None) -> None:
    """What the rounds of TASK (`kind/name`, or a name; default: all) came to."""
    from kpatrol.reading import show
    from kpatrol.reading.store import CannotRead

    try:
        if html is not None:
            show.save_page(html, task=task, url=clickhouse, env=os.environ)
        sys.exit(show.report(task=task, number=number, url=clickhouse, as_json=as_json, env=os.environ))
    except CannotRead as error:
        raise Trouble(str(error)) from error


@cli.command()
@click.option("--clickhouse", default="", help="http://user:password@host:port/database (default: the running lab's).")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option("--name", "names", multiple=True, help="A further host name the page is reached by; may be repeated.")
def ui(clickhouse: str, host: str, port: int, names: tuple[str, ...]) -> None:
    """The page: mesh heat map, pairs over time, rounds, findings, live alarms, agents. Read-only; Ctrl-C ends it.

    Alarms are followed in Kafka where KPATROL_KAFKA_BOOTSTRAP is set, else asked of ClickHouse.
    """
    from kpatrol.reading.show import open_store
    from kpatrol.reading.store import CannotRead
    from kpatrol.ui.app import serve

    kafka = _kafka() if "KPATROL_KAFKA_BOOTSTRAP" in os.environ else None
    try:
        store = open_store(url=clickhouse, env=os.environ)
    except CannotRead as error:
        raise Trouble(str(error)) from error
    try:
        serve(store=store, kafka=kafka, host=host, port=port, tell=click.echo, names=names)
    except OSError as error:
        raise Trouble(f"{host}:{port}: {error.strerror or error}") from error
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
    finally:
        store.close()


@cli.command()
@click.option("--clickhouse", default="", help="http://user:password@host:port/database (default: the running lab's).")
@click.option("--server", default="", help="http://host:port of a controller: it knows pods and nodes, too.")
@click.option("--json", "as_json", is_flag=True, help="JSON with stable names.")
def agents(clickhouse: str, server: str, as_json: bool) -> None:
    """Who reports, who is absent, who is outdated, and why. Exit code 1 where somebody does not report."""
    from kpatrol.reading import agents as reading
    from kpatrol.reading.store import CannotRead

    try:
        sys.exit(reading.agents(url=clickhouse, server=server, as_json=as_json, env=os.environ))
    except CannotRead as error:
        raise Trouble(str(error)) from error


@cli.command()
@click.option("-f", "--file", "files", multiple=True, required=True, type=FILE, help="Task file or folder (YAML).")
@click.option("--max-qps", type=click.IntRange(min=1), help="Ceiling of `request.qps` (default: as in a cluster).")
@click.option("--json", "as_json", is_flag=True)
def validate(files: tuple[Path, ...], max_qps: int | None, as_json: bool) -> None:
    """Check task files: the same answer that the API server would give."""
    from controller.tasks import Limits
    from kpatrol.validate import validate as check

    sys.exit(check(files, json=as_json, limits=Limits.with_max_qps(max_qps)))


@cli.command("stop")
@click.option("--task", default="", help="Only this task's rounds: `kind/name`, a name or a uid (default: all).")
@click.option("--reason", default="stopped by kpatrol stop", show_default=True, help="Stands in every verdict.")
@click.option("--patience-s", default=15.0, show_default=True, type=click.FloatRange(0, 600), help="Wait for verdicts.")
@click.option("--json", "as_json", is_flag=True, help="JSON with stable names.")
def stop_rounds(task: str, reason: str, patience_s: float, as_json: bool) -> None:
    """Stop all rounds that run or are announced, at once; says for each what had been sent.

    Later rounds of a task still come: delete the task to end it. Kafka's address: KPATROL_KAFKA_BOOTSTRAP and its kin,
    with an account that may do what the controller may; without it the one running lab of this user.
    """
    from aiokafka.errors import KafkaError

    from kpatrol import stopping

    try:
        stopped = stopping.run(kafka=_kafka_or_lab(), task=task, reason=reason, patience_s=patience_s)
    except (KafkaError, OSError) as error:
        raise Trouble(f"Kafka: {error}") from error
    if not stopped and not as_json:
        click.echo("nothing runs" + (f" of task {task!r}" if task else ""))
        return
    _print_rows([round_.row() for round_ in stopped], as_json)
    if any(round_.verdict is None for round_ in stopped):
        sys.exit(CANNOT_TELL)


@cli.command()
@click.argument("task", default="")
@click.option("--clickhouse", default="", help="http://user@host:port/database (default: KPATROL_CLICKHOUSE_URL).")
@click.option("--json", "as_json", is_flag=True, help="JSON with stable names.")
def recompute(task: str, clickhouse: str, as_json: bool) -> None:
    """Make every final verdict of TASK (`kind/name`, or a name; default: all) again, and compare with what was told.

    From the rounds' events in Kafka (KPATROL_KAFKA_BOOTSTRAP and its kin) and the rows in ClickHouse, whose account
    must be one that reads the tables, as the services' (password: KPATROL_CLICKHOUSE_PASSWORD_FILE). Exit code 2 where
    one differs.
    """
    from aiokafka.errors import KafkaError

    from kpatrol import recomputing
    from streams.clickhouse import ClickHouseAway, ClickHouseRefused

    try:
        found = asyncio.run(recomputing.run(kafka=_kafka_or_lab(), url=clickhouse, env=os.environ, task=task))
    except (KafkaError, ClickHouseAway, ClickHouseRefused, BadConfiguration, OSError) as error:
        raise Trouble(str(error)) from error
    _print_rows([one.row() for one in found], as_json)
    if not found or any(one.differs for one in found):
        sys.exit(CANNOT_TELL)


@cli.group()
def topics() -> None:
    """The Kafka topics: create, grow, align, describe. Kafka's address: KPATROL_KAFKA_BOOTSTRAP and its kin."""


def _kafka() -> KafkaConnection:
    try:
        return KafkaConnection.from_env(os.environ)
    except (BadConfiguration, OSError) as error:
        raise Trouble(str(error)) from error


def _kafka_or_lab() -> KafkaConnection:
    if "KPATROL_KAFKA_BOOTSTRAP" in os.environ:
        return _kafka()
    from kpatrol.lab.addresses import running_labs

    labs = running_labs(os.environ)
    if len(labs) != 1:
        found = "no lab is running" if not labs else f"{len(labs)} labs are running"
        raise Trouble(f"KPATROL_KAFKA_BOOTSTRAP is not set and {found}")
    return KafkaConnection(bootstrap=labs[0].kafka)


@topics.command("apply")
@click.option(
    "--replication", type=click.IntRange(1, 9), help="Of every topic; left out: 1 for new ones, others keep theirs."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, change nothing.")
@click.option("--patience-s", default=0.0, type=click.FloatRange(0, 86_400), help="Wait for Kafka that long.")
@click.option("--json", "as_json", is_flag=True)
def topics_apply(replication: int | None, dry_run: bool, patience_s: float, as_json: bool) -> None:
    """Bring the cluster's topics to the catalogue's form."""
    from aiokafka.errors import KafkaError

    from kpatrol import waiting
    from topics.apply import CannotApply, RefusedTopic, apply

    try:
        if patience_s:
            waiting.wait(looks=[waiting.look_for_kafka(_kafka())], patience_s=patience_s, say=_say)
        steps = asyncio.run(apply(kafka=_kafka(), replication=replication, dry_run=dry_run))
    except (RefusedTopic, CannotApply, KafkaError, waiting.NotReady) as error:
        raise Trouble(str(error)) from error
    rows = [
        {
            "topic": s.topic.name,
            **({"would": s.verb} if dry_run else {"done": _DONE[s.verb]}),
            "partitions": s.topic.partitions,
            "replication": s.replication or replication or 1,
            "reason": s.reason,
        }
        for s in steps
    ]
    _print_rows(rows, as_json)


def _say(line: str) -> None:
    click.echo(line, err=True)


_DONE = {"create": "created", "grow": "grown", "align": "aligned", "keep": "kept"}


@topics.command("describe")
@click.option("--json", "as_json", is_flag=True)
def topics_describe(as_json: bool) -> None:
    """Every topic of the catalogue: who writes, who reads, partitions, retention.

    With KPATROL_KAFKA_BOOTSTRAP set also what the cluster has: partitions, replication, and settings that differ.
    """
    from topics.catalogue import TOPICS

    live = _live_topics() if os.environ.get("KPATROL_KAFKA_BOOTSTRAP") else None
    rows = [
        {
            "topic": t.name,
            "partitions": t.partitions,
            "retention_h": t.retention_s // 3600,
            "cleanup": t.cleanup,
            "writers": ", ".join(t.writers),
            "readers": ", ".join(t.readers),
            **(live[t.name] if live is not None else {}),
        }
        for t in TOPICS.values()
    ]
    _print_rows(rows, as_json)


def _live_topics() -> dict[str, dict[str, Any]]:
    """What the cluster has of each topic of the catalogue."""
    from aiokafka.errors import KafkaError

    from topics.apply import differing, observe
    from topics.catalogue import TOPICS

    try:
        found = asyncio.run(observe(kafka=_kafka(), names=list(TOPICS)))
    except KafkaError as error:
        raise Trouble(str(error)) from error
    rows: dict[str, dict[str, Any]] = {}
    for name, topic in TOPICS.items():
        live = found.get(name)
        differs = differing(topic.config(), live.config) if live else {}
        rows[name] = {
            "live_partitions": live.partitions if live else 0,
            "live_replication": live.replication if live else 0,
            "differs": ", ".join(f"{k}={v}" for k, v in differs.items()) if live else "does not exist",
        }
    return rows


@cli.command()
@click.option("--clickhouse", default="", help="http://user@host:port/database of a writer.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@click.option("--keep-newer", is_flag=True, help="Leave a database that a newer version has migrated as it is.")
@click.option("--patience-s", default=0.0, type=click.FloatRange(0, 86_400), help="Wait for ClickHouse that long.")
def migrate(clickhouse: str, dry_run: bool, keep_newer: bool, patience_s: float) -> None:
    """Bring ClickHouse's tables and views to this version's form."""
    from kpatrol.migrating import CannotMigrate, migrate_tables

    try:
        rows = migrate_tables(
            url=clickhouse, dry_run=dry_run, keep_newer=keep_newer, patience_s=patience_s, env=os.environ
        )
        _print_rows(rows, as_json=False)
    except CannotMigrate as error:
        raise Trouble(str(error)) from error


@cli.command()
@click.argument("name")
@click.option("--clickhouse", default="", help="http://user@host:port/database of a writer.")
def backup(name: str, clickhouse: str) -> None:
    """Write all tables under NAME into the endpoint's folder of backups, while it goes on."""
    from kpatrol.migrating import CannotMigrate, backup_tables

    try:
        _say(f"{name}: written in {backup_tables(name=name, url=clickhouse, env=os.environ):.1f} s")
    except CannotMigrate as error:
        raise Trouble(str(error)) from error


@cli.command()
@click.argument("name")
@click.option("--clickhouse", default="", help="http://user@host:port/database of a writer.")
def restore(name: str, clickhouse: str) -> None:
    """Bring the backup NAME into an endpoint whose data folder is new."""
    from kpatrol.migrating import CannotMigrate, restore_tables

    try:
        _say(f"{name}: restored in {restore_tables(name=name, url=clickhouse, env=os.environ):.1f} s")
    except CannotMigrate as error:
        raise Trouble(str(error)) from error


@cli.command("wait")
@click.option("--role", default="", help="Wait for the topics that this role reads or writes (sink, controller …).")
@click.option("--tables", is_flag=True, help="Wait until ClickHouse has this version's tables (or a newer one's).")
@click.option("--url", "urls", multiple=True, help="Wait until this page answers 200; may be said several times.")
@click.option("--patience-s", default=600.0, show_default=True, type=click.FloatRange(0, 86_400))
def wait_until_ready(role: str, tables: bool, urls: tuple[str, ...], patience_s: float) -> None:
    """Return when what a service works with is there (for init containers and `helm test`)."""
    from kpatrol import waiting

    if not role and not tables and not urls:
        raise click.UsageError("nothing to wait for: --role ROLE, --tables, --url URL")
    try:
        looks = [waiting.look_for_topics(kafka=_kafka(), role=role)] if role else []
        looks += [waiting.look_for_tables(os.environ)] if tables else []
        looks += [waiting.look_for_page(url) for url in urls]
        waiting.wait(looks=looks, patience_s=patience_s, say=_say)
    except (ValueError, waiting.NotReady) as error:
        raise Trouble(str(error)) from error


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the shell's completion script: `source <(kpatrol completion bash)`."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "kpatrol", "_KPATROL_COMPLETE").source())


for _command in asking.COMMANDS:
    cli.add_command(_command)


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0] if rows else ():
        table.add_column(name)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    make_console().print(table)


def main(name: str = "kpatrol", commands: click.Group = cli) -> None:
    """Entry point. A reader that goes away, or a full disk, is trouble of ours (2), never a verdict (1)."""
    try:
        code = _run(name, commands)
        sys.stdout.flush()
    except OSError as error:
        # Nothing more can be written there; without this the interpreter would try once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            click.echo(f"Error: {error}", err=True)
        code = CANNOT_TELL
    sys.exit(code)


def _run(name: str, commands: click.Group) -> int:
    try:
        return commands.main(prog_name=name, standalone_mode=False) or 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("Error: interrupted", err=True)
        return CANNOT_TELL
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else CANNOT_TELL
