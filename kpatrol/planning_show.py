"""`kpatrol plan` as a person reads it."""

import json

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kpatrol.planning import Patrol, Plan, plan, plan_json, size
from kpatrol.reading.show import make_console


def show(patrol: Patrol, *, as_json: bool) -> None:
    """Print the plan. Raises CannotPlan."""
    found = plan(patrol)
    if as_json:
        print(json.dumps(plan_json(found), indent=2))
    else:
        make_console().print(_panel(found))


def _panel(found: Plan) -> RenderableType:
    patrol = found.patrol
    facts = Table.grid(padding=(0, 2))
    for name, value in (
        ("rows", f"{patrol.rows_a_s:,.0f}/s, {patrol.rows_a_s * 86_400:,.0f} a day"),
        ("cells", f"{patrol.cells} (at most 5,000 nodes probe one another)"),
        *(
            (f"topic {n}", f"{size(b)} for {patrol.topic_hours} h × {patrol.replication}")
            for n, b in found.topics.items()
        ),
        ("partitions of the bulk topics", str(found.partitions)),
        ("workers", f"{found.sink_workers} sink, {found.judge_workers} judge, 1 alarms, 1 roll-up"),
        *((f"CPU: {name}", f"{cores:.2f} cores") for name, cores in found.cores.items()),
        (
            "each agent",
            f"{found.agent['requests_a_s']:.1f} requests/s, {found.agent['packets_a_s']:.0f} packets/s, "
            f"{found.agent['bits_a_s'] / 1000:.0f} kbit/s sent and answered, "
            f"{found.agent['cores'] * 1e6:,.0f} µs of CPU a second",
        ),
    ):
        facts.add_row(name, value)
    disk = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ClickHouse table", "a day", "kept, days", "when full"):
        disk.add_column(name, justify="left" if name == "ClickHouse table" else "right")
    for table, (a_day, days) in found.tables.items():
        disk.add_row(table, size(a_day), str(days), size(a_day * days))
    disk.add_row("all, after a year", "", "", size(found.disk_bytes_after_a_year))
    disk.add_row("all, when full", "", "", size(found.disk_bytes))
    note = "one replica; twice what was measured on made-up data. See docs/scale.md for what was measured."
    protocols = ", ".join(patrol.protocols)
    title = f"{patrol.nodes:,} nodes, {patrol.peers:,} peers each, every {patrol.interval_s} s, {protocols}"
    return Panel(Group(facts, Text(""), disk, Text(note, style="dim")), title=title, title_align="left")
