"""`kubectl kpatrol …`: `report` from the report API by kubectl's own kubeconfig; the rest is the command kpatrol.

kubectl itself is asked (`get --raw`), so every way it has to log in works here too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any
from urllib.parse import urlencode

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kpatrol import cli as command
from kpatrol.reading.show import make_console
from kpatrol.trouble import CANNOT_TELL, Trouble

Json = dict[str, Any]

PATH = "/apis/system.kdoctor.io/v1beta1/namespaces/default/kdoctorreports"
EXIT_CODES = {"succeed": 0, "fail": 1}
_STYLES = {"succeed": "bold green", "fail": "bold red"}
_PATIENCE_S = 60


@click.command("report")
@click.argument("name", default="")
@click.option("--round", "number", type=click.IntRange(min=1), help="This round instead of the newest.")
@click.option("--context", default="", help="Context of the kubeconfig.")
@click.option("--kubeconfig", default="", help="Another kubeconfig file.")
@click.option("--json", "as_json", is_flag=True, help="The whole object as JSON.")
def report(name: str, number: int | None, context: str, kubeconfig: str, as_json: bool) -> None:
    """The report NAME (`<kind>-<task>` or the task's name) from the cluster; without a name all reports."""
    flags = [f"--{flag}={value}" for flag, value in (("context", context), ("kubeconfig", kubeconfig)) if value]
    query = f"?{urlencode({'round': number})}" if number else ""
    found: Json = _asked([*flags, "get", "--raw", f"{PATH}/{name}{query}"]) if name else {"items": _all(flags)}
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        make_console().print(shown(found) if name else listed(found["items"]))
    if name:
        sys.exit(EXIT_CODES.get(found["overview"].get("result", ""), CANNOT_TELL))


def _all(flags: list[str]) -> list[Json]:
    items: list[Json] = []
    token = ""
    while True:
        piece = _asked([*flags, "get", "--raw", f"{PATH}?{urlencode({'limit': 25, 'continue': token})}"])
        items += piece["items"]
        token = piece["metadata"].get("continue", "")
        if not token:
            return items


def _asked(arguments: list[str]) -> Json:
    try:
        done = subprocess.run(["kubectl", *arguments], capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Trouble(f"kubectl: {error}") from error
    if done.returncode != 0:
        raise Trouble(done.stderr.strip() or f"kubectl ended with {done.returncode}")
    found: Json = json.loads(done.stdout)
    return found


def listed(items: list[Json]) -> Table:
    """All reports, a line each."""
    table = _table("report", "kind", "rounds", "status", "result", "why")
    for item in items:
        overview, status = item["overview"], item["status"]
        table.add_row(
            item["metadata"]["name"],
            item["task"]["kind"],
            f"{status['roundFinishedNumber']}/{status['totalRoundNumber']}",
            status["status"],
            _result(overview),
            overview.get("why", ""),
        )
    return table


def shown(item: Json) -> RenderableType:
    """One report: result, agents, findings, worst targets."""
    overview = item["overview"]
    head = Text.assemble(item["metadata"]["name"], f", round {item['status']['roundNumber']}: ", _result(overview))
    parts: list[RenderableType] = [head, Text(overview.get("why", ""))]
    agents = _table("node", "pod", "result", "targets", "cpu", "memory", "reason")
    for agent in item["report"].get("latestRoundReport", []):
        task = next(value for key, value in agent.items() if key.startswith("task"))
        resource = task["systemResource"]
        agents.add_row(
            agent["nodeName"],
            agent["podName"],
            agent["roundResult"],
            str(task["targetNumber"]),
            resource["meanCPU"],
            resource["maxMemory"],
            agent.get("reasonsForFailure", ""),
        )
    parts += [Text(""), agents]
    parts += [Text(f"• {finding['sentence']}") for finding in overview.get("findings", [])]
    worst = _table("from", "worst targets", "success", "mean", "p99", "lost packets", "reason")
    for target in overview.get("worstTargets", []):
        worst.add_row(
            target["node"],
            target["target"],
            f"{100 * target['succeedRate']:.4g} %",
            f"{target['meanInMs']:.3f} ms",
            f"{target['p99InMs']:.3f} ms",
            f"{target['packetsLost']} of {target['packetsSent']}",
            target["reason"],
        )
    return Group(*parts, Text(""), worst)


def _result(overview: Json) -> Text:
    result = overview.get("result", "no round is over yet")
    return Text(result, style=_STYLES.get(result, "bold yellow"))


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def main() -> None:
    """Entry point of `kubectl-kpatrol`."""
    commands = {**command.cli.commands, "report": report}
    command.main("kubectl kpatrol", click.Group("kpatrol", commands=commands, help=command.cli.help))
