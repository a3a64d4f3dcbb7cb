"""`kpatrol history`: what is asked of the roll-up views, and what comes of it. SQL and figures; no printing.

Which view: minutes come from raw (a pair) or from node_1m, hours and days from the roll-ups; the coarsest that still
has what is asked. Sums and histograms are added up, so every rate and quantile is of the whole, never a mean of means.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from kpatrol.reading.store import CannotRead, Store
from streams.judging.stats import merged, quantile, wilson
from topics.outcome import Proto

By = Literal["all", "protocol", "zone", "node", "pair"]
BYS: tuple[By, ...] = get_args(By)
UNITS: Mapping[str, timedelta] = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
STEPS_S = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86_400, 7 * 86_400, 30 * 86_400)
POINTS = 60
NODE_VIEWS = {60: "v_node_1m", 3600: "v_node_1h", 86_400: "v_node_1d"}
# Beyond this, every pair of a mesh is read day by day.
PAIR_HOURS = timedelta(days=3)
# One pair alone is read hour by hour for two weeks: 30 days of hours take eight times as long as 30 days.
ONE_PAIR_HOURS = timedelta(days=14)
MAX_LINES = 10_000
# The name of a line, by what is grouped; `src_node` and so on are columns of the views.
NAMES: Mapping[By, str] = {
    "all": "'all'",
    "protocol": "toString(proto)",
    "zone": "concat(src_zone, ' → ', dst_zone)",
    "node": "arrayJoin([concat('from ', src_node), concat('to ', dst)])",
    "pair": "concat(src_node, ' → ', dst)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: [since, until), of one task (`kind/name` or a bare name; empty: all), perhaps of one pair."""

    task: str
    since: datetime
    until: datetime
    by: By = "all"
    pair: tuple[str, str] | None = None
    protocol: str = ""

    def shifted(self, back: timedelta) -> "Question":
        """The same, that much earlier."""
        return Question(
            task=self.task, since=self.since - back, until=self.until - back, by=self.by, pair=self.pair,
            protocol=self.protocol,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A view and the length of a point. `unit_s` is the length of the view's own periods."""

    view: str
    step_s: int
    unit_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Sums over some time. Delays in microseconds, of successful requests, from their planned time."""

    requests: int
    ok: int
    failed: int
    packets_sent: int
    packets_lost: int
    total_us: int
    histogram: Mapping[int, int]

    @property
    def availability(self) -> float | None:
        """Share of requests with a valid reply, of those that one was due for."""
        return self.ok / (self.ok + self.failed) if self.ok + self.failed else None

    @property
    def loss_rate(self) -> float | None:
        """Share of packets lost."""
        return min(1.0, self.packets_lost / self.packets_sent) if self.packets_sent else None

    @property
    def loss_interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the loss rate."""
        if not self.packets_sent:
            return None
        return wilson(hits=min(self.packets_lost, self.packets_sent), trials=self.packets_sent)

    def quantile_us(self, q: float) -> float | None:
        """A quantile of the delay."""
        return quantile(self.histogram, q)

    def json(self) -> dict[str, Any]:
        """Stable names, for JSON and CSV."""
        low, high = self.loss_interval or (None, None)
        return {
            "requests": self.requests,
            "ok": self.ok,
            "failed": self.failed,
            "availability": self.availability,
            "packets_sent": self.packets_sent,
            "packets_lost": self.packets_lost,
            "loss_rate": self.loss_rate,
            "loss_low": low,
            "loss_high": high,
            "mean_us": round(self.total_us / self.ok, 1) if self.ok else None,
            **{f"p{name}_us": _rounded(self.quantile_us(q)) for name, q in (("50", 0.5), ("90", 0.9), ("99", 0.99))},
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


NOTHING = Figures(requests=0, ok=0, failed=0, packets_sent=0, packets_lost=0, total_us=0, histogram={})
Change = Literal["worse", "better", "same", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the answer: its name, its points in time (those that have data), and the same of an earlier time."""

    name: str
    points: tuple[tuple[datetime, Figures], ...]
    before: Figures | None = None

    @property
    def total(self) -> Figures:
        """All points together."""
        return summed(figures for _, figures in self.points)

    @property
    def change(self) -> Change:
        """How loss has changed: only what the two intervals keep apart counts as a change."""
        if self.before is None:
            return "unknown"
        now, before = self.total.loss_interval, self.before.loss_interval
        if now is None or before is None:
            return "unknown"
        return "worse" if now[0] > before[1] else "better" if now[1] < before[0] else "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The answer. `compare` is how much earlier `before` is."""

    question: Question
    source: Source
    lines: tuple[Line, ...]
    compare: timedelta | None = None


def summed(many: Iterable[Figures]) -> Figures:
    """The figures of all together."""
    figures = list(many)
    return Figures(
        requests=sum(f.requests for f in figures),
        ok=sum(f.ok for f in figures),
        failed=sum(f.failed for f in figures),
        packets_sent=sum(f.packets_sent for f in figures),
        packets_lost=sum(f.packets_lost for f in figures),
        total_us=sum(f.total_us for f in figures),
        histogram=merged(f.histogram for f in figures),
    )


def span(text: str, *, name: str) -> timedelta:
    """`30d`, `12h`, `90m`, `2w`. Raises CannotRead."""
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip())
    if found is None or int(found[1]) == 0:
        raise CannotRead(f"{name}: found {text!r}, expected a number and s, m, h, d or w, as in 30d")
    try:
        return int(found[1]) * UNITS[found[2]]
    except OverflowError as error:
        raise CannotRead(f"{name}: found {text!r}, which is too long") from error


def instant(text: str, *, now: datetime, name: str) -> datetime:
    """How long ago (`30d`), or a date or time (`2026-11-01`, `2026-11-01T08:00`: UTC). Raises CannotRead."""
    if re.fullmatch(r"\d+[smhdw]", text.strip()):
        try:
            return now - span(text, name=name)
        except OverflowError as error:
            raise CannotRead(f"{name}: found {text!r}, which is before all time") from error
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise CannotRead(f"{name}: found {text!r}, expected 30d, 12h, 2026-11-01 or 2026-11-01T08:00") from error
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def pair_of(text: str) -> tuple[str, str]:
    """`a,b`. Raises CannotRead."""
    names = [part.strip() for part in text.split(",")]
    if len(names) != 2 or not all(names):
        raise CannotRead(f"--pair: found {text!r}, expected source,destination")
    return names[0], names[1]


def protocol(text: str) -> str:
    """A protocol's name, or nothing. Raises CannotRead."""
    if text and text not in Proto.__members__:
        raise CannotRead(f"--protocol: found {text!r}, allowed: {', '.join(Proto.__members__)}")
    return text


def source(question: Question) -> Source:
    """Where to read it: the coarsest view that still has what is asked."""
    length = question.until - question.since
    wanted_s = length.total_seconds() / POINTS
    step_s = next((s for s in STEPS_S if s >= wanted_s), STEPS_S[-1])
    if question.pair is None and question.by not in ("node", "pair"):
        unit_s = 60 if step_s < 3600 else 3600 if step_s < 86_400 else 86_400
        return Source(view=NODE_VIEWS[unit_s], step_s=step_s, unit_s=unit_s)
    if step_s < 3600:
        return Source(view="v_pair_1m", step_s=step_s, unit_s=60)
    if length <= (ONE_PAIR_HOURS if question.pair else PAIR_HOURS):
        return Source(view="v_pair_1h", step_s=step_s, unit_s=3600)
    return Source(view="v_pair_1d", step_s=max(step_s, 86_400), unit_s=86_400)


def query(question: Question, where: Source) -> tuple[str, dict[str, Any]]:
    """The query and its parameters."""
    conditions = ["t >= {since:DateTime('UTC')}", "t < {until:DateTime('UTC')}"]
    parameters: dict[str, Any] = {
        "since": _text(_floor(question.since, where.unit_s)),
        "until": _text(question.until),
        "step": where.step_s,
    }
    if question.task:
        conditions.append("(task = {task:String} OR endsWith(task, concat('/', {task:String})))")
        parameters["task"] = question.task
    if question.protocol:
        conditions.append("proto = {protocol:String}")
        parameters["protocol"] = question.protocol
    if question.pair:
        # Both ways: which of the two is bad is the first thing to ask.
        conditions.append(
            "src_node IN ({a:String}, {b:String}) AND dst IN ({a:String}, {b:String}) AND src_node != dst"
        )
        parameters |= {"a": question.pair[0], "b": question.pair[1]}
    name = NAMES[question.by if not question.pair or question.by != "all" else "pair"]
    return (
        f"SELECT {name} AS line, intDiv(toUInt32(t), {{step:UInt32}}) * {{step:UInt32}} AS at_s, "
        "sum(v.n), sum(v.n_ok), sum(v.n_lost), sum(v.sent), sum(v.lost), sum(v.total_sum), sumMap(v.h) "
        f"FROM {where.view} AS v WHERE {' AND '.join(conditions)} GROUP BY line, at_s ORDER BY line, at_s",
        parameters,
    )


def _floor(t: datetime, unit_s: int) -> datetime:
    seconds = int(t.timestamp())
    return datetime.fromtimestamp(seconds - seconds % unit_s, UTC)


def _text(t: datetime) -> str:
    return t.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def read(store: Store, question: Question, *, compare: timedelta | None = None) -> History:
    """Ask the store. Raises CannotRead, also when nothing is there."""
    if question.since >= question.until:
        raise CannotRead(f"--since {_text(question.since)} is not before --until {_text(question.until)}")
    where = source(question)
    lines = _lines(store, question, where)
    if not lines:
        raise CannotRead(
            f"nothing of {f'task {question.task!r}' if question.task else 'any task'}"
            f"{' between ' + ' and '.join(question.pair) if question.pair else ''} is in {where.view} from "
            f"{_text(question.since)} to {_text(question.until)} UTC; hours and days are written by the roll-up job"
        )
    if compare is not None:
        earlier = {line.name: line.total for line in _lines(store, question.shifted(compare), where)}
        lines = [Line(name=x.name, points=x.points, before=earlier.get(x.name, NOTHING)) for x in lines]
    return History(question=question, source=where, lines=tuple(lines), compare=compare)


def _lines(store: Store, question: Question, where: Source) -> list[Line]:
    sql, parameters = query(question, where)
    points: dict[str, list[tuple[datetime, Figures]]] = {}
    for name, at_s, n, n_ok, n_lost, sent, lost, total_us, h in store.rows(sql, parameters):
        figures = Figures(
            requests=n, ok=n_ok, failed=n_lost, packets_sent=sent, packets_lost=lost, total_us=total_us, histogram=h
        )
        points.setdefault(name, []).append((datetime.fromtimestamp(at_s, UTC), figures))
    if len(points) > MAX_LINES:
        raise CannotRead(f"{len(points)} lines: choose --pair, or group --by node or --by zone")
    return [Line(name=name, points=tuple(found)) for name, found in points.items()]


def worst_first(lines: Sequence[Line]) -> list[Line]:
    """By the lower end of the loss interval, so one lost packet of two is not worse than a hundred of a thousand."""
    return sorted(lines, key=lambda x: (-(x.total.loss_interval or (0.0, 0.0))[0], -_p99(x.total), x.name))


def _p99(figures: Figures) -> float:
    return figures.quantile_us(0.99) or 0.0


def history_json(history: History) -> dict[str, Any]:
    """One object with stable names."""
    asked = history.question
    return {
        "task": asked.task,
        "since": asked.since.isoformat(),
        "until": asked.until.isoformat(),
        "by": asked.by,
        "pair": list(asked.pair) if asked.pair else None,
        "source": history.source.view,
        "step_s": history.source.step_s,
        "compare_s": int(history.compare.total_seconds()) if history.compare else None,
        "lines": [_line_json(line) for line in history.lines],
    }


def _line_json(line: Line) -> dict[str, Any]:
    points = [{"t": t.isoformat(), **figures.json()} for t, figures in line.points]
    compared = {} if line.before is None else {"before": line.before.json(), "change": line.change}
    return {"name": line.name, **line.total.json(), **compared, "points": points}


def history_rows(history: History) -> list[dict[str, Any]]:
    """A row per line and point in time, for CSV."""
    return [{"name": x.name, "t": t.isoformat(), **f.json()} for x in history.lines for t, f in x.points]
