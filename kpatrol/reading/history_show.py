"""`kpatrol history` as a person reads it: a table with a line each, and a chart of loss or delay over time."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kpatrol.reading import words
from kpatrol.reading.history import (
    NOTHING,
    Figures,
    History,
    Line,
    Question,
    history_json,
    history_rows,
    read,
    worst_first,
)
from kpatrol.reading.show import make_console, open_store

BLOCKS = " ▁▂▃▄▅▆▇█"
CHART_ROWS = 8
SPARK = 30
LINES_SHOWN = 40
CHANGES = {"worse": "bold red", "better": "green", "same": "", "unknown": "dim"}
Form = Literal["table", "json", "csv"]


def history(*, question: Question, compare: timedelta | None, url: str, form: Form, env: Mapping[str, str]) -> int:
    """Read and print; returns the exit code. Raises CannotRead."""
    store = open_store(url=url, env=env)
    try:
        found = read(store, question, compare=compare)
    finally:
        store.close()
    if form == "json":
        print(json.dumps(history_json(found), indent=2))
    elif form == "csv":
        write_csv(history_rows(found))
    else:
        print_history(found, make_console())
    return 0


def write_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """RFC 4180, with a head; nothing where there are no rows."""
    if rows:
        writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def print_history(found: History, console: Console) -> None:
    """A panel: the table, and charts of one line (or of all together)."""
    asked = found.question
    title = f"{asked.task or 'all tasks'}: {_time(asked.since)} to {_time(asked.until)} UTC"
    lines = worst_first(found.lines)
    parts: list[RenderableType] = [table(lines[:LINES_SHOWN], found)]
    if len(lines) > LINES_SHOWN:
        parts.append(
            Text(f"and {len(lines) - LINES_SHOWN} more, all better; --json and --csv have them all", style="dim")
        )
    for line in lines[: 2 if asked.pair else 1]:
        parts += [Text(""), Text(f"{line.name}: packet loss", style="bold"), chart(line, found, what="loss")]
        parts += [Text(""), Text(f"{line.name}: p99 delay", style="bold"), chart(line, found, what="p99")]
    parts += [Text(""), Text(f"from {found.source.view}, {_span(found.source.step_s)} a point", style="dim")]
    console.print(Panel(Group(*parts), title=title, title_align="left"))


def table(lines: Sequence[Line], found: History) -> Table:
    """One line each, with its interval and a sparkline of loss."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("")
    for name in ("requests", "available", "packet loss [95 %]", "p50", "p90", "p99"):
        made.add_column(name, justify="right")
    if found.compare:
        made.add_column(f"{_span(int(found.compare.total_seconds()))} before", justify="right")
        made.add_column("loss is")
    made.add_column("loss over time")
    for line in lines:
        total = line.total
        cells: list[str | Text] = [
            line.name,
            words.count(total.requests),
            words.percent(total.availability),
            _loss(total),
        ]
        cells += [words.delay(total.quantile_us(q)) for q in (0.5, 0.9, 0.99)]
        if line.before is not None:
            cells += [_loss(line.before), Text(line.change, style=CHANGES[line.change])]
        made.add_row(*cells, spark([f.loss_rate for f in _series(line, found)]))
    return made


def _loss(figures: Figures) -> str:
    interval = figures.loss_interval
    if interval is None:
        return "nothing sent"
    return f"{words.percent(figures.loss_rate)} {words.interval(*interval)}"


def _series(line: Line, found: History) -> list[Figures]:
    """A figure for every step, empty where nothing was sent."""
    step_s = found.source.step_s
    first = int(found.question.since.timestamp()) // step_s
    last = int((found.question.until.timestamp() - 1) // step_s)
    known = {int(t.timestamp()) // step_s: figures for t, figures in line.points}
    return [known.get(n, NOTHING) for n in range(first, last + 1)]


def spark(values: Sequence[float | None], *, width: int = SPARK) -> str:
    """The course in one row of text: blocks from 0 to the greatest, `·` where there is nothing."""
    if not values:
        return ""
    groups = [values[i * len(values) // width : (i + 1) * len(values) // width] for i in range(width)]
    if len(values) <= width:
        groups = [[v] for v in values]
    peaks = [max((v for v in group if v is not None), default=None) for group in groups]
    top = max((p for p in peaks if p is not None), default=0.0)
    return "".join("·" if p is None else _block(p, top) for p in peaks)


def _block(value: float, top: float) -> str:
    # What is not nothing is seen, however small.
    return BLOCKS[1] if value == 0 or top == 0 else BLOCKS[max(2, round(value / top * 8))]


def chart(line: Line, found: History, *, what: Literal["loss", "p99"]) -> Text:
    """Bars over time with a scale, and for loss the upper end of each interval as a light shade above its bar."""
    series = _series(line, found)
    values = [f.loss_rate if what == "loss" else f.quantile_us(0.99) for f in series]
    highs = [(f.loss_interval or (0.0, 0.0))[1] if what == "loss" else 0.0 for f in series]
    top = max([v for v in values if v is not None] + [h for h in highs if h < 1], default=0.0)
    said = words.percent if what == "loss" else words.delay
    if top == 0:
        return Text("  nothing but 0" if what == "loss" else "  no successful request")
    lines = []
    for row in range(CHART_ROWS, 0, -1):
        label = said(top * row / CHART_ROWS) if row in (CHART_ROWS, CHART_ROWS // 2) else ""
        bars = "".join(_cell(v, h, row, top) for v, h in zip(values, highs, strict=True))
        lines.append(f"{label:>10} │{bars}")
    ends = f"{_time(found.question.since)}".ljust(max(1, len(values) - 16)) + _time(found.question.until)
    lines += [f"{'0':>10} └{'─' * len(values)}", f"{'':>12}{ends}"]
    if what == "loss":
        lines.append(f"{'':>12}░ up to the upper end of the 95 % interval · nothing sent")
    return Text("\n".join(lines))


def _cell(value: float | None, high: float, row: int, top: float) -> str:
    if value is None:
        return "·" if row == 1 else " "
    eighths = round(value / top * CHART_ROWS * 8) - (row - 1) * 8
    if row == 1 and value > 0:
        eighths = max(1, eighths)
    if eighths > 0:
        return BLOCKS[min(8, eighths)]
    return "░" if high / top * CHART_ROWS > row - 1 else " "


def _time(t: datetime) -> str:
    return t.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _span(seconds: int) -> str:
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"
