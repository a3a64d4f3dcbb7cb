"""A check's result as a person reads it: bad pairs first, then what is not known, the good ones, sums by node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kpatrol.check.pairs import PairRow
from kpatrol.check.result import Result
from kpatrol.check.words import Language, reason, say
from kpatrol.reading import words
from kpatrol.reading.tables import loss_text

GOOD_SHOWN = 40
STYLES = {"good": "green", "bad": "bold red", "unknown": "bold yellow"}


def show(result: Result, *, console: Console, lang: Language, all_rows: bool) -> None:
    """Print it. Of many good pairs the slowest are shown, unless ``all_rows``."""
    for status in ("good", "unknown", "bad"):
        rows = [row for row in result.rows if row.status == status]
        if rows:
            console.print(_pairs(rows, status, lang, limit=None if all_rows or status != "good" else GOOD_SHOWN))
            console.print()
    if any(row.status != "good" for row in result.rows):
        console.print(_by_node(result.rows, lang))
        console.print()
    if result.apart:
        console.print(_apart(result, lang))
        console.print()
    sentences = list(dict.fromkeys(f.sentence for verdict in result.verdicts for f in verdict.findings))
    if sentences:
        console.print(Text(say("findings", lang), style="bold"))
        for sentence in sentences:
            console.print(Text(f"  {sentence}"))
        console.print()
    if result.changes is not None:
        console.print(_changes(result, lang))
    counts = {status: result.count(status) for status in STYLES}
    line = say("summary", lang, **counts)
    if result.apart:
        line += "; " + say("apart", lang, count=len(result.apart))
    worst = next((s for s in ("bad", "unknown") if counts[s]), "good" if result.rows else "unknown")
    console.print(Text(line, style=STYLES[worst]))


def _pairs(rows: Sequence[PairRow], status: str, lang: Language, *, limit: int | None) -> Table:
    title = f"{say(status + '_pairs', lang)}: {len(rows)}"
    if limit is not None and len(rows) > limit:
        title += f" (…{limit})"
        rows = sorted(rows, key=lambda row: -(row.p50_us or 0))[:limit]
    table = Table(title=title, title_justify="left", title_style=STYLES[status], box=None, pad_edge=False)
    names = ["source", "destination", "address", "protocol"]
    names += ["reason", "detail", "way"] if status != "good" else []
    for name in (*names, "answered", "loss", "delay"):
        table.add_column(say(name, lang), justify="right" if name in ("answered", "loss", "delay") else "left")
    for row in rows:
        cells = [row.src, row.dst, row.address, row.proto]
        if status != "good":
            cells += [reason(row.reason, lang), row.detail, say(row.way, lang) if row.way else ""]
        table.add_row(*cells, f"{row.ok}/{row.requests}", loss_text(row.loss), words.delay(row.p50_us))
    return table


def _by_node(rows: Sequence[PairRow], lang: Language) -> Table:
    table = Table(title=say("by_node", lang), title_justify="left", box=None, pad_edge=False)
    table.add_column(say("node", lang))
    for name in ("as_source", "as_destination"):
        table.add_column(say(name, lang), justify="right")
    source = Counter(row.src for row in rows if row.status != "good")
    destination = Counter(row.dst for row in rows if row.status != "good")
    asked, named = Counter(row.src for row in rows), Counter(row.dst for row in rows)
    for node in sorted({*source, *destination}, key=lambda n: -(source[n] + destination[n])):
        table.add_row(node, f"{source[node]}/{asked[node]}", f"{destination[node]}/{named[node]}")
    return table


def _apart(result: Result, lang: Language) -> Table:
    table = Table(title=say("nodes_apart", lang), title_justify="left", box=None, pad_edge=False)
    for name in ("node", "standing", "reason"):
        table.add_column(say(name, lang))
    for each in result.apart:
        table.add_row(each.state.node, say(each.state.standing, lang), each.state.why)
    return table


def _changes(result: Result, lang: Language) -> Table:
    table = Table(title=say("changes", lang), title_justify="left", box=None, pad_edge=False)
    for name in ("source", "destination", "protocol", "result"):
        table.add_column(say(name, lang))
    for (src, dst, proto), change in sorted((result.changes or {}).items()):
        table.add_row(src, dst, proto, say(change, lang))
    return table
