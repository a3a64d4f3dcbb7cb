"""The report as a person reads it in a terminal: rounds, findings, worst pairs, the matrix."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kpatrol.reading import words
from kpatrol.reading.store import Cell
from topics.round_progress import HopTrace
from topics.round_verdicts import Finding, Loss, Pair, RoundVerdict
from topics.task_rounds import FOLLOW_UP

VERDICT_STYLE = {"succeed": "bold green", "fail": "bold red", "unknown": "bold yellow"}
MATRIX_MAX = 24
WORST_SHOWN = 8
REASONS_SHOWN = 3
SLOWEST_SHOWN = 3
SENTENCES_SHOWN = 3


def task_report(task: str, verdicts: Sequence[RoundVerdict], cells: Sequence[Cell]) -> RenderableType:
    """Everything about one task's rounds, newest revision each."""
    blank = Text("")
    closer = [line for v in verdicts if v.kind == FOLLOW_UP for line in closer_look(v)]
    parts: list[RenderableType] = [*closer, rounds_table(verdicts), *(_why(v) for v in verdicts)]
    parts += [blank, *findings(verdicts), blank, completeness_table(verdicts)]
    worst = [(v.round, pair) for v in verdicts for pair in v.worst]
    if worst:
        parts += [blank, worst_table(worst)]
    if cells:
        parts += [blank, matrix(cells)]
    title = f"{task}: {len(verdicts)} round{'s' if len(verdicts) != 1 else ''}"
    return Panel(Group(*parts), title=title, title_align="left")


def closer_look(verdict: RoundVerdict) -> list[Text]:
    """What a follow-up looks at, with what the suspects' own kernels counted and what changed in the cluster before."""
    spec = verdict.spec
    lines = [Text(f"a closer look at {spec.get('task')}, round {spec.get('round')}: {spec.get('sentence')}")]
    lines.append(
        Text(f"  {', '.join(spec.get('suspects', ()))} beside {', '.join(spec.get('controls', ())) or 'nobody'}")
    )
    for node, counters in spec.get("hostCounters", {}).items():
        said = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counters.items())
        lines.append(Text(f"  {node}, its own kernel in that round: {said or 'nothing dropped'}", style="dim"))
    for event in spec.get("clusterEvents", ()):
        lines.append(Text(f"  before it: {event['object']} {event['reason']}: {event['message']}", style="yellow"))
    suspects = set(spec.get("suspects", ()))
    ways = [(account.node, t) for account in verdict.accounts for t in account.traces]
    told = [(node, t) for node, t in ways if suspects & {node, t.node}]
    lines += [Text(f"  way {node} > {t.node}: {way_text(t)}", style="" if t.reached else "red") for node, t in told]
    # The controls' ways among each other one by one are in the JSON.
    if others := [t.reached for node, t in ways if not suspects & {node, t.node}]:
        lines.append(Text(f"  ways among the others: {sum(others)} of {len(others)} there", style="dim"))
    return lines


def way_text(trace: HopTrace) -> str:
    """A way's hops in words, `*` for a silent one, and where it ends."""
    hops = " ".join(hop.address or "*" for hop in trace.hops)
    if trace.reached:
        return f"{hops} (there after {len(trace.hops)} hop{'s' if len(trace.hops) != 1 else ''})"
    if not trace.hops:
        return f"nothing answered up to hop {trace.asked}" if trace.asked else "could not be asked"
    said = f"it says {trace.error}" if trace.error else f"nothing beyond answered, up to hop {trace.asked}"
    return f"{hops} (ends behind hop {len(trace.hops)}: {said})"


def rounds_table(verdicts: Sequence[RoundVerdict]) -> Table:
    """What each round came to: one line a round."""
    table = _table("", ["round", "verdict", "trust"])
    for name in ("success", "mean", "p50", "p90", "p99", "p99 from sent", "packet loss [95 %]"):
        table.add_column(name, justify="right")
    for v in verdicts:
        mark = "" if v.final else " (provisional)"
        table.add_row(
            _number(v),
            # A closer look asks nothing: that it meets its expectation says nothing.
            Text("–") if v.kind == FOLLOW_UP else Text(v.verdict + mark, style=VERDICT_STYLE[v.verdict]),
            Text(v.trust.grade, style="yellow" if v.trust.grade != "good" else ""),
            words.percent(v.success_rate),
            words.delay(v.delay.mean_us),
            words.delay(v.delay.p50_us),
            words.delay(v.delay.p90_us),
            words.delay(v.delay.p99_us),
            words.delay(v.sent_delay.p99_us),
            loss_text(v.loss),
        )
    return table


def completeness_table(verdicts: Sequence[RoundVerdict]) -> Table:
    """planned = stored + unsent + missing + unexplained, a line a round."""
    table = _table("every request accounted for", ["round"])
    for name in (
        "planned",
        "=",
        "stored",
        "+",
        "unsent",
        "+",
        "missing",
        "+",
        "unexplained",
        "",
        "twice",
        "verdict after",
    ):
        table.add_column(name, justify="right")
    for v in verdicts:
        table.add_row(
            _number(v),
            words.count(v.planned),
            "=",
            words.count(v.stored),
            "+",
            words.count(v.unsent),
            "+",
            words.count(v.declared_missing),
            "+",
            Text(words.count(v.unexplained), style="bold red" if v.unexplained else ""),
            "",
            words.count(v.duplicates),
            "–" if v.verdict_delay_s is None else f"{v.verdict_delay_s:.2f} s",
        )
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, title=title or None, title_justify="left", header_style="bold")
    for name in columns:
        table.add_column(name)
    return table


def _number(verdict: RoundVerdict) -> str:
    return str(verdict.round) if verdict.revision == 1 else f"{verdict.round} rev. {verdict.revision}"


def loss_text(loss: Loss) -> str:
    """`12 of 2 400 = 0.5 % [0.29–0.87]`: no rate without its counts."""
    if not loss.sent:
        return "nothing sent"
    share = f"{words.count(loss.lost)} of {words.count(loss.sent)} = {words.percent(loss.rate)}"
    return f"{share} {words.interval(loss.low, loss.high)}"


def _why(verdict: RoundVerdict) -> Text:
    line = Text(f"round {verdict.round}: ", style="dim")
    line.append(verdict.why, style="")
    reasons = [*verdict.trust.reasons, *verdict.missing_causes, *verdict.trust.notes]
    if reasons:
        more = f"; and {len(reasons) - REASONS_SHOWN} more" if len(reasons) > REASONS_SHOWN else ""
        line.append(f" ({'; '.join(reasons[:REASONS_SHOWN])}{more})", style="yellow")
    return line


def findings(verdicts: Sequence[RoundVerdict]) -> list[RenderableType]:
    """Each element once, with its newest sentences round by round; nothing found is said too."""
    seen: dict[tuple[str, str, str], list[tuple[int, Finding]]] = {}
    for v in verdicts:
        for f in v.findings:
            seen.setdefault((f.element, f.direction, f.kind), []).append((v.round, f))
    told = [Text(f"  round {v.round}: {v.unlocated}", style="yellow") for v in verdicts if v.unlocated]
    spread: list[RenderableType] = [*told[-SENTENCES_SHOWN:]]
    if not seen:
        fine = not spread and all(v.verdict == "succeed" for v in verdicts)
        return [Text("findings: none", style="green" if fine else ""), *spread]
    lines: list[RenderableType] = [Text("findings:", style="bold"), *spread]
    for (element, direction, _), told_of in sorted(seen.items(), key=lambda item: -len(item[1])):
        lines.append(Text(f"  {element} {direction}: in {_of_rounds(told_of, len(verdicts))}", style="bold red"))
        for number, finding in told_of[-SENTENCES_SHOWN:]:
            line = Text(f"    round {number}: {finding.sentence}")
            line.append(f"  (confidence {finding.confidence:.3f})", style="dim")
            lines.append(line)
    return lines


def _of_rounds(told: Sequence[tuple[int, Finding]], rounds: int) -> str:
    if len(told) == rounds:
        return "every round" if rounds > 1 else f"round {told[0][0]}"
    numbers = ", ".join(str(number) for number, _ in told)
    return f"{'round' if len(told) == 1 else 'rounds'} {numbers} of {rounds}"


def worst_table(pairs: Sequence[tuple[int, Pair]]) -> Table:
    """Pairs that lost or failed, the worst first, each with its round; where none did, the slowest few."""
    bad = [item for item in pairs if item[1].requests.failed or item[1].loss.lost]
    shown = sorted(bad, key=_badness)[:WORST_SHOWN] if bad else sorted(pairs, key=_slowness)[:SLOWEST_SHOWN]
    table = _table("worst pairs" if bad else "slowest pairs (none lost or failed)", ["round", "source", "destination"])
    table.add_column("via")
    for name in ("ok", "failed", "packet loss [95 %]", "p50", "p99"):
        table.add_column(name, justify="right")
    for number, pair in shown:
        table.add_row(
            str(number),
            pair.src,
            pair.dst or pair.target,
            pair.proto if pair.proto == pair.layer else f"{pair.proto} {pair.layer}",
            words.count(pair.requests.ok),
            words.count(pair.requests.failed),
            loss_text(pair.loss),
            words.delay(pair.delay.p50_us),
            words.delay(pair.delay.p99_us),
        )
    return table


def _badness(item: tuple[int, Pair]) -> tuple[float, float]:
    """Packets lost count as much as requests failed: whichever share is greater."""
    pair = item[1]
    requests = pair.requests.ok + pair.requests.failed
    share = max(pair.loss.rate, pair.requests.failed / requests if requests else 0.0)
    return (-share, _slowness(item))


def _slowness(item: tuple[int, Pair]) -> float:
    return -(item[1].delay.p99_us or 0)


def matrix(cells: Sequence[Cell]) -> RenderableType:
    """Source × destination: packet loss in percent, ✗ with failed requests; a dot where all is well."""
    sources = sorted({c.src for c in cells}, key=_natural)
    targets = sorted({c.dst for c in cells}, key=_natural)
    if len(sources) > MATRIX_MAX or len(targets) > MATRIX_MAX:
        return Text(f"matrix: {len(sources)} × {len(targets)} is too wide for a terminal; use --json", style="dim")
    by_pair = {(c.src, c.dst): c for c in cells}
    title = Text("packet loss in %, source ↓ × destination →; ✗n: n requests failed", style="italic")
    table = _table("", [""])
    for target in targets:
        table.add_column(target, justify="right")
    for source in sources:
        table.add_row(source, *(_cell(by_pair.get((source, target))) for target in targets))
    return Group(title, table)


def _cell(cell: Cell | None) -> Text:
    if cell is None or not cell.requests:
        return Text(" ", style="dim")
    failed = cell.requests - cell.ok
    rate = cell.packets_lost / cell.packets_sent * 100 if cell.packets_sent else 0.0
    text = f"{rate:.1f}" if cell.packets_lost else "·"
    if failed:
        text += f" ✗{failed}"
    style = "bold red" if failed or rate >= 1 else "yellow" if cell.packets_lost else "green"
    return Text(text, style=style)


def _natural(name: str) -> tuple[str, int, str]:
    head = name.rstrip("0123456789")
    digits = name[len(head) :]
    return (head, int(digits or 0), name)
