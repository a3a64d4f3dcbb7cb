"""A check's result as one HTML file that needs nothing else: no script, no address outside. Pure, but for the style."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape

from kpatrol.check.pairs import PairRow
from kpatrol.check.result import Result
from kpatrol.check.words import Language, reason, say
from kpatrol.reading import words
from kpatrol.reading.tables import loss_text
from kpatrol.ui.page import ASSETS

# A matrix of more nodes is no longer looked at by eye; the rows are there in any case.
MATRIX_NODES = 120
_WORST = ("bad", "unknown", "good")
_STYLE = """
main { display: block; } section { margin-bottom: 1rem; overflow-x: auto; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .15rem .6rem; border-bottom: 1px solid var(--line); }
.right { text-align: right; font-variant-numeric: tabular-nums; }
.matrix td { min-width: 1.6rem; text-align: center; border: 1px solid var(--panel); }
.matrix .good { background: var(--s0); } .matrix .unknown { background: var(--s2); }
.matrix .bad { background: var(--s4); color: #fff; }
p .good { color: var(--good); } p .bad { color: var(--bad); } p .unknown { color: var(--doubt); }
"""


def as_html(result: Result, *, lang: Language, at: datetime) -> str:
    """The page; `at` is when it was made, in UTC."""
    tables = (_pairs([row for row in result.rows if row.status == status], status, lang) for status in _WORST)
    parts = [_summary(result, lang), _findings(result, lang), _apart(result, lang), _changes(result, lang)]
    parts += [_matrix(result.rows, lang), *tables]
    return (
        f'<!doctype html>\n<html lang="{lang}"><head><meta charset="utf-8"><title>kpatrol check</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{(ASSETS / 'page.css').read_text(encoding='utf-8')}{_STYLE}</style></head>\n"
        f"<body><header><h1>kpatrol check</h1><span>{at:%Y-%m-%d %H:%M:%S} UTC</span></header>\n"
        f"<main>{''.join(parts)}</main></body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>\n"


def _table(head: Iterable[str], rows: Iterable[Sequence[str]], *, right: int = 0) -> str:
    """``right`` of the last columns hold numbers."""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = []
    for cells in rows:
        first = len(cells) - right
        tags = ('<td class="right">' if i >= first else "<td>" for i in range(len(cells)))
        lines.append("<tr>" + "".join(f"{tag}{escape(c)}</td>" for tag, c in zip(tags, cells, strict=True)) + "</tr>")
    return f"<table><thead><tr>{names}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _summary(result: Result, lang: Language) -> str:
    counts = {status: result.count(status) for status in _WORST}
    worst = next((status for status in _WORST if counts[status]), "unknown")
    text = say("summary", lang, **counts)
    if result.apart:
        text += "; " + say("apart", lang, count=len(result.apart))
    return _section(say("result", lang), f'<p><span class="word {worst}">{escape(text)}</span></p>')


def _findings(result: Result, lang: Language) -> str:
    sentences = dict.fromkeys(f.sentence for verdict in result.verdicts for f in verdict.findings)
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return _section(say("findings", lang), f"<ul>{items}</ul>") if items else ""


def _apart(result: Result, lang: Language) -> str:
    rows = [(e.cluster, e.state.node, say(e.state.standing, lang), e.state.why) for e in result.apart]
    head = ("", *(say(name, lang) for name in ("node", "standing", "reason")))
    return _section(say("nodes_apart", lang), _table(head, rows)) if rows else ""


def _changes(result: Result, lang: Language) -> str:
    rows = [(*key, say(change, lang)) for key, change in sorted((result.changes or {}).items())]
    head = [say(name, lang) for name in ("source", "destination", "protocol", "result")]
    return _section(say("changes", lang), _table(head, rows)) if rows else ""


def _pairs(rows: Sequence[PairRow], status: str, lang: Language) -> str:
    if not rows:
        return ""
    why = ("reason", "detail", "way") if status != "good" else ()
    head = [say(name, lang) for name in ("source", "destination", "address", "protocol", *why)]
    head += [say(name, lang) for name in ("answered", "loss", "delay")]
    table = _table(head, [_cells(row, lang) for row in rows], right=3)
    title = f"{say(status + '_pairs', lang)}: {len(rows)}"
    if status == "good":
        return f"<section><details><summary>{escape(title)}</summary>{table}</details></section>"
    return _section(title, table)


def _cells(row: PairRow, lang: Language) -> list[str]:
    why = [reason(row.reason, lang), row.detail, say(row.way, lang) if row.way else ""]
    cells = [row.src, row.dst, row.address, row.proto, *(why if row.status != "good" else ())]
    return [*cells, f"{row.ok}/{row.requests}", loss_text(row.loss), words.delay(row.p50_us)]


def _matrix(rows: Sequence[PairRow], lang: Language) -> str:
    """Sources by destinations, the worst of all protocols in each cell, with what is not good on hovering."""
    cells: dict[tuple[str, str], list[PairRow]] = {}
    for row in rows:
        cells.setdefault((row.src, row.dst), []).append(row)
    sources, targets = (sorted({key[end] for key in cells}) for end in (0, 1))
    if not cells or max(len(sources), len(targets)) > MATRIX_NODES:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in targets)
    lines = (
        f"<tr><th>{escape(src)}</th>{''.join(_cell(cells.get((src, dst), []), lang) for dst in targets)}</tr>"
        for src in sources
    )
    body = f'<table class="matrix"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return _section(f"{say('source', lang)} × {say('destination', lang)}", body)


def _cell(rows: Sequence[PairRow], lang: Language) -> str:
    if not rows:
        return "<td></td>"
    worst = next(status for status in _WORST if any(row.status == status for row in rows))
    bad = [f"{row.proto}: {reason(row.reason, lang)}" for row in rows if row.status != "good"]
    return f'<td class="{worst}" title="{escape("; ".join(bad))}">{len(rows) - len(bad)}/{len(rows)}</td>'
