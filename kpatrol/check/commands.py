"""`kpatrol check`, its `init` and `clean`, and `kpatrol resume`: options, exit codes, files.

Exit codes: 0 every pair is good, 1 a pair is bad, 2 cannot tell.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console

from kpatrol.check.config import DEFAULT_FILE, CheckConfig, init, read
from kpatrol.check.netdoctor import BadConfig
from kpatrol.check.state import STATE_VERSION, Kept
from kpatrol.check.words import language
from kpatrol.reading.show import make_console
from kpatrol.trouble import Trouble

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from kpatrol.check.mesh import Pair
    from kpatrol.check.result import Result

FILE = click.Path(path_type=Path)
STATE_FILE = Path("kpatrol-check.state.json")


class Teller:
    """Progress: a bar on a terminal, plain lines elsewhere; all of it on standard error.

    Who reads it may be gone (a closed terminal, `| head`): then nothing is told, and the check still cleans up.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._told_s = 0.0
        self._done = -1

    def step(self, text: str) -> None:
        """What happens now."""
        with suppress(OSError):
            self.close()
            click.echo(text, err=True)

    def progress(self, *, done: int, of: int, left_s: float) -> None:
        """Requests recorded of all, and the time left."""
        with suppress(OSError):
            self._progress(done=done, of=of, left_s=left_s)

    def _progress(self, *, done: int, of: int, left_s: float) -> None:
        if self._console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn

            if self._bar is None or self._task is None:
                columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
                self._bar = Progress(*columns, TextColumn("{task.fields[left]}"), console=self._console)
                self._task = self._bar.add_task("requests", total=of, left="")
                self._bar.start()
            self._bar.update(self._task, completed=done, left=f"{left_s:.0f} s left")
        elif time.monotonic() - self._told_s > 2 or done >= of > self._done:
            self._told_s, self._done = time.monotonic(), done
            click.echo(f"{done} of {of} requests recorded, {left_s:.0f} s left", err=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar, self._task = None, None


def _options(command: Any) -> Any:
    for option in reversed(
        (
            click.option("--config", "file", default=DEFAULT_FILE, type=FILE, show_default=True,
                         help="Settings (see `check init`), or a config.json of NetDoctor."),
            click.option("--kubeconfig", help="Default: KUBECONFIG, then ~/.kube/config."),
            click.option("--context", help="Of that kubeconfig (default: its current one)."),
            click.option("--peer-kubeconfig", help="Check between two clusters, there and back."),
            click.option("--peer-context", help="Of the other cluster's kubeconfig."),
            click.option("--image", help="The agent's image (default: this version's)."),
            click.option("--image-pull-policy", type=click.Choice(["Always", "IfNotPresent", "Never"])),
            click.option("--namespace", help="Where the agents go; made and removed if it is not there."),
            click.option("--mode", type=click.Choice(["pod", "node", "node-to-pod", "pod-to-node"]),
                         help="Who asks whom: agents in pods' network, or in the nodes' own (default: pod)."),
            click.option("--protocol", "protocols", multiple=True,
                         type=click.Choice(["icmp", "tcp", "udp", "http", "dns"]), help="May be repeated."),
            click.option("--family", "families", multiple=True, type=click.Choice(["4", "6"]), help="May be repeated."),
            click.option("--requests", type=int, help="Of each node to each other, by each protocol (default 10)."),
            click.option("--rate", type=float, help="Requests a second of each node to each other (default 5)."),
            click.option("--timeout-ms", type=int, help="Of a request (default 3000)."),
            click.option("--degree", type=int, help="Each node asks this many others (default 0: all)."),
            click.option("--wave", type=int, help="Each node asks so many others at one time (default 25; 0: all)."),
            click.option("--wait-s", type=int, help="How long agents may take to be ready (default 60)."),
            click.option("--keep/--no-keep", default=None, help="Leave the agents in the cluster."),
            click.option("--standalone", is_flag=True, help="With agents of its own where kpatrol is installed, too."),
            click.option("--deadline", "deadline_s", default=600.0, show_default=True, type=click.FloatRange(min=1),
                         help="An answer by then, in s."),
            click.option("--state", default=STATE_FILE, type=FILE, show_default=True, help="What `resume` reads."),
            click.option("--strict", is_flag=True, help="Nodes left out (NotReady, excluded) count as not known."),
            click.option("--all", "all_rows", is_flag=True, help="Every good pair, however many."),
            click.option("--json", "json_", is_flag=True, help="The result as JSON on standard output."),
            click.option("--junit", type=FILE, help="Write a JUnit file."),
            click.option("-v", "--verbose", count=True, help="Say more of what happens; twice: every request, too."),
            click.option("--html", type=FILE, help="Write a page as one file that needs nothing else."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


_NOT_SETTINGS = frozenset(
    {"file", "deadline_s", "state", "strict", "all_rows", "json_", "junit", "html", "standalone", "verbose"}
)


@click.group(invoke_without_command=True)
@_options
@click.pass_context
def check(context: click.Context, /, **given: Any) -> None:
    """Check a cluster, or two against each other, with nothing installed in them: agents come, measure, and go."""
    context.obj = given
    if context.invoked_subcommand is None:
        sys.exit(_answered(given, only=None))


@check.command("init")
@click.argument("file", default=DEFAULT_FILE, type=FILE)
@click.option("--force", is_flag=True, help="Overwrite the file.")
def init_file(file: Path, force: bool) -> None:
    """Write a commented configuration file."""
    try:
        init(file, force=force)
    except BadConfig as error:
        raise Trouble(str(error)) from error
    click.echo(f"written: {file}")


@check.command("clean")
@click.option("--config", "file", type=FILE, help="Settings, as for a check.")
@click.option("--kubeconfig", help="Default: KUBECONFIG, then ~/.kube/config.")
@click.option("--context", "context_name", help="Of that kubeconfig.")
@click.option("--peer-kubeconfig", help="The other cluster's, too.")
@click.option("--peer-context", help="Of the other cluster's kubeconfig.")
@click.option("--namespace", help="Where the agents went.")
@click.pass_context
def clean(context: click.Context, /, context_name: str | None, **given: Any) -> None:
    """Remove what a check has left in the clusters."""
    given["context"] = context_name
    from kpatrol.check.cluster import Cluster, ClusterTrouble

    given = {**context.obj, **{name: value for name, value in given.items() if value is not None}}
    config = _config(given, options=_options_given(given))
    places = [(config.kubeconfig, config.context)]
    places += [(config.peer_kubeconfig, config.peer_context)] if config.peer_kubeconfig else []
    try:
        for kubeconfig, name in places:
            cluster = Cluster(kubeconfig=kubeconfig, context=name, name="cluster")
            cluster.remove(config.namespace, names=["kpatrol-check-pod", "kpatrol-check-host"])
            if cluster.has_kpatrol():
                cluster.remove_tasks()
            cluster.close()
    except ClusterTrouble as error:
        raise Trouble(str(error)) from error
    click.echo(f"removed: namespace {config.namespace}, where a check had made it")


@click.command()
@_options
def resume(**given: Any) -> None:
    """Ask again only what was not good in the last check, and say what changed.

    The last check's options hold; those given here go before them.
    """
    path: Path = given["state"]
    try:
        before = msgspec.json.decode(path.read_bytes(), type=Kept)
    except FileNotFoundError as error:
        raise Trouble(f"{path}: is not there: run `kpatrol check` first, or name its file by --state") from error
    except (OSError, msgspec.DecodeError) as error:
        raise Trouble(f"{path}: not a state file of a check: {error}") from error
    if before.version != STATE_VERSION:
        raise Trouble(f"{path}: version: found {before.version}, allowed: {STATE_VERSION}")
    if before.config and given["file"] == DEFAULT_FILE:
        given["file"] = Path(before.config)
    if not before.pairs and not before.nodes and not before.left:
        click.echo(f"{path}: everything was good in the last check; nothing to ask again", err=given["json_"])
        if given["json_"]:
            from kpatrol.check.result import Result, as_json

            click.echo(json.dumps(as_json(Result(rows=(), apart=(), verdicts=(), changes={}), strict=False), indent=2))
        sys.exit(0)
    sys.exit(_answered(given, only=before))


def _options_given(given: dict[str, Any]) -> dict[str, Any]:
    """Settings that options give, by their names in the file."""
    overrides = {name: value for name, value in given.items() if name not in _NOT_SETTINGS and value not in (None, ())}
    if "families" in overrides:
        overrides["families"] = tuple(int(family) for family in overrides["families"])
    for name in overrides.keys() & {"kubeconfig", "peer_kubeconfig"}:
        overrides[name] = _absolute(overrides[name])
    return {_camel(name): value for name, value in overrides.items()}


def _config(given: dict[str, Any], *, options: Mapping[str, Any]) -> CheckConfig:
    """The file's settings with the options on top."""
    try:
        found = read(given["file"], overrides=options)
    except BadConfig as error:
        raise Trouble(str(error)) from error
    for note in found.notes:
        click.echo(f"{given['file']}: {note}", err=True)
    return found.config


def _absolute(path: Path | str) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _answered(given: dict[str, Any], *, only: Kept | None) -> int:
    """The check's exit code; who reads JSON reads JSON of what went wrong, too."""
    try:
        return _check(given, only=only)
    except Trouble as error:
        if given["json_"]:
            click.echo(json.dumps({"exit_code": 2, "error": str(error)}))
        raise


def _check(given: dict[str, Any], *, only: Kept | None) -> int:
    from kpatrol.check.cluster import ClusterTrouble
    from kpatrol.check.result import compared
    from kpatrol.check.run import CannotCheck
    from kpatrol.check.run import check as run
    from kpatrol.check.state import wanted, write

    _can_write(given)
    logging.basicConfig(level=(logging.WARNING, logging.INFO, logging.DEBUG)[min(given["verbose"], 2)])
    options = {**(only.options if only is not None else {}), **_options_given(given)}
    config, teller, path = _config(given, options=options), Teller(), given["state"]
    # There is something to go on with once it was written; after a `resume` that came to nothing, what there was.
    saved = only is not None

    def save(so_far: Result, left: Collection[Pair]) -> None:
        nonlocal saved
        write(path, _kept(so_far, given, options, left=left, before=only))
        saved = True

    keys = wanted(only) if only is not None else None
    try:
        result = asyncio.run(
            _stopping(
                run(
                    config=config,
                    told=teller,
                    deadline_s=given["deadline_s"],
                    save=save,
                    only=keys,
                    standalone=given["standalone"],
                    clusters=only.clusters if only is not None else (),
                )
            )
        )
    except (ClusterTrouble, CannotCheck) as error:
        raise Trouble(str(error)) from error
    except TimeoutError as error:
        further = "; `kpatrol resume` goes on" if saved else ", and nothing was asked"
        raise Trouble(f"no answer within {given['deadline_s']:g} s (--deadline){further}") from error
    except asyncio.CancelledError as error:
        further = "; `kpatrol resume` goes on from here" if saved else " before anything was asked"
        raise Trouble(f"stopped{further}") from error
    except OSError as error:
        raise Trouble(f"{path}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            teller.close()
    if only is not None:
        result = replace(result, changes=compared(only, result.rows, apart=result.apart))
    return _tell(result, given, options)


def _kept(
    result: Result, given: dict[str, Any], options: Mapping[str, Any], *, left: Collection[Pair] = (),
    before: Kept | None = None,
) -> Kept:  # fmt: skip
    from kpatrol.check.result import kept

    file = "" if given["file"] == DEFAULT_FILE else _absolute(given["file"])
    return msgspec.structs.replace(kept(result, left=left, before=before), config=file, options=options)


def _can_write(given: dict[str, Any]) -> None:
    """Before anything is done: what cannot be told afterwards need not be measured."""
    for name in ("state", "junit", "html"):
        path: Path | None = given[name]
        if path is None:
            continue
        if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
            raise Trouble(f"--{name}: {path}: cannot be written")


async def _stopping(work: Coroutine[Any, Any, Result]) -> Result:
    """The work; a Ctrl-C, SIGTERM or SIGHUP cancels it, and it cleans up. A second one meanwhile changes nothing."""
    task = asyncio.ensure_future(work)
    numbers = [signal.SIGINT, signal.SIGTERM]
    # A terminal that is closed; not where `nohup` has said that this is nothing.
    numbers += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, _cancel_once(task))
    return await task


def _cancel_once(task: asyncio.Future[Any]) -> Callable[[], None]:
    asked = False

    def cancel() -> None:
        nonlocal asked
        if not asked:
            asked = True
            task.cancel()
            with suppress(OSError):
                click.echo("stopping", err=True)

    return cancel


def _tell(result: Result, given: dict[str, Any], options: Mapping[str, Any]) -> int:
    from kpatrol.check.result import as_json, as_junit
    from kpatrol.check.state import write

    strict = given["strict"]
    try:
        write(given["state"], _kept(result, given, options))
        if given["junit"] is not None:
            given["junit"].write_text(as_junit(result), encoding="utf-8")
        if given["html"] is not None:
            from kpatrol.check.page import as_html

            now = datetime.now(tz=UTC)
            given["html"].write_text(as_html(result, lang=language(os.environ), at=now), encoding="utf-8")
    except OSError as error:
        raise Trouble(f"{error.filename}: {error.strerror}") from error
    if given["json_"]:
        click.echo(json.dumps(as_json(result, strict=strict), indent=2))
    else:
        from kpatrol.check.show import show

        show(result, console=make_console(), lang=language(os.environ), all_rows=given["all_rows"])
    return result.exit_code(strict=strict)
