"""What Grafana and its ClickHouse data source make of a panel's SQL before it is sent; for tests and benchmarks.

Held to the data source's documentation (its macros table) and Grafana's (formats of variables), by
tests/unit/dashboards/test_macros.py. Statement macros ($__columns and so on) are not used by these boards.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

ALL = "$__all"


class UnknownMacro(ValueError):
    """A macro or variable that nobody expands: Grafana would send it as it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What a panel is asked for. `chosen` is variable → values; (ALL,) with the options in `options` is "All"."""

    since: datetime
    until: datetime
    interval_s: int = 60
    chosen: Mapping[str, Sequence[str]] = field(default_factory=dict)
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def from_ms(self) -> int:
        """Milliseconds since the epoch."""
        return int(self.since.timestamp() * 1000)

    @property
    def to_ms(self) -> int:
        """Milliseconds since the epoch."""
        return int(self.until.timestamp() * 1000)

    def is_all(self, name: str) -> bool:
        """Whether "All" is chosen."""
        return tuple(self.chosen.get(name, ())) == (ALL,)

    def values(self, name: str) -> Sequence[str]:
        """The values of a variable; of "All", every option. Raises UnknownMacro."""
        if name not in self.chosen:
            raise UnknownMacro(f"variable ${name} is not defined")
        return self.options.get(name, ()) if self.is_all(name) else self.chosen[name]


def expand(sql: str, asked: Range) -> str:
    """The SQL that ClickHouse gets: front-end macro, variables, back-end macros. Raises UnknownMacro."""
    text = _conditional_all(sql, asked)
    text = _variables(text, asked)
    text = _backend(text, asked)
    left = re.search(r"\$__\w+|\$\{\w+", text)
    if left:
        raise UnknownMacro(f"{left[0]} is left in: {text}")
    return text


def _arguments(text: str, start: int) -> tuple[str, int]:
    """What stands in the parentheses or braces that open at `start`, and the place behind them."""
    pairs = {"(": ")", "{": "}"}
    close = pairs[text[start]]
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == text[start]) - (text[place] == close)
        if depth == 0:
            return text[start + 1 : place], place + 1
    raise UnknownMacro(f"not closed: {text[start:]}")


def _conditional_all(text: str, asked: Range) -> str:
    name = "$__conditionalAll("
    while (start := text.find(name)) >= 0:
        inside, end = _arguments(text, start + len(name) - 1)
        condition, _, variable = inside.rpartition(",")
        bare = variable.strip()
        if not re.fullmatch(r"\$\w+", bare):
            raise UnknownMacro(f"the second argument is a bare variable, found {bare!r}")
        asked.values(bare[1:])
        text = text[:start] + ("1=1" if asked.is_all(bare[1:]) else condition.strip()) + text[end:]
    return text


def _variables(text: str, asked: Range) -> str:
    def one(found: re.Match[str]) -> str:
        values = asked.values(found["name"])
        if found["format"] == "singlequote":
            return ",".join("'" + v.replace("'", "\\'") + "'" for v in values)
        if found["format"] in (None, "raw"):
            return values[0] if len(values) == 1 else "{" + ",".join(values) + "}"
        raise UnknownMacro(f"format {found['format']!r} of a variable")

    return re.sub(r"\$\{(?P<name>[a-z]\w*)(?::(?P<format>\w+))?\}", one, text)


def _backend(text: str, asked: Range) -> str:
    since, until = f"toDateTime({asked.from_ms // 1000})", f"toDateTime({asked.to_ms // 1000})"
    since_ms, until_ms = f"fromUnixTimestamp64Milli({asked.from_ms})", f"fromUnixTimestamp64Milli({asked.to_ms})"
    days = f"toDate('{asked.since:%Y-%m-%d}')", f"toDate('{asked.until:%Y-%m-%d}')"
    with_arguments: Mapping[str, Callable[..., str]] = {
        "timeFilter": lambda c: f"{c} >= {since} AND {c} <= {until}",
        "timeFilter_ms": lambda c: f"{c} >= {since_ms} AND {c} <= {until_ms}",
        "dateFilter": lambda c: f"{c} >= {days[0]} AND {c} <= {days[1]}",
        "dateTimeFilter": lambda d, t: (
            f"({d} >= {days[0]} AND {d} <= {days[1]}) AND ({t} >= {since} AND {t} <= {until})"
        ),
        "timeInterval": lambda c: f"toStartOfInterval(toDateTime({c}), INTERVAL {asked.interval_s} second)",
        "timeInterval_ms": lambda c: (
            f"toStartOfInterval(toDateTime64({c}, 3), INTERVAL {asked.interval_s * 1000} millisecond)"
        ),
    }
    bare = {
        "fromTime": since,
        "toTime": until,
        "fromTime_ms": since_ms,
        "toTime_ms": until_ms,
        "interval_s": str(asked.interval_s),
    }
    for name, expansion in with_arguments.items():
        while found := re.search(rf"\$__{name}(?=[({{])", text):
            inside, end = _arguments(text, found.end())
            arguments = [part.strip() for part in inside.split(",")]
            text = text[: found.start()] + expansion(*arguments) + text[end:]
    for name, value in bare.items():
        text = re.sub(rf"\$__{name}\b(?!_)(?:\(\))?", value, text)
    return text
