"""What a dashboard is made of, as plain values: boards of rows of panels, their queries, variables and links.

`build.py` turns them into Grafana's JSON. Conditions that several panels share stand here, once.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "table", "stat", "heatmap", "matrix", "bars"]
Format = Literal["timeseries", "table"]

# Grafana replaces $__conditionalAll by 1=1 where "All" is chosen, and ${x:singlequote} by the quoted choice.
TASK = "$__conditionalAll(task IN (${task:singlequote}), $task)"
PROTO = "$__conditionalAll(toString(proto) IN (${proto:singlequote}), $proto)"
CHOSEN = f"{TASK} AND {PROTO}"
# A range that begins inside a minute or an hour would cut that period's row off.
MINUTES = "t >= toStartOfMinute($__fromTime) AND t <= $__toTime"
HOURS = "t >= toStartOfHour($__fromTime) AND t <= $__toTime"
DAYS = "t >= toStartOfDay($__fromTime) AND t <= $__toTime"
ROUNDS = "round_at >= $__fromTime AND round_at <= $__toTime"
# Never finer than the view's own periods.
BY_MINUTE = "toStartOfInterval(t, INTERVAL greatest($__interval_s, 60) second) AS time"
BY_HOUR = "toStartOfInterval(t, INTERVAL greatest($__interval_s, 3600) second) AS time"
BY_DAY = "toStartOfDay(t) AS time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """How one column of a table is shown. `link` is the board a click goes to, `sends` its variables: name → column."""

    name: str
    unit: str = ""
    thresholds: tuple[float, ...] = ()
    link: str = ""
    sends: tuple[tuple[str, str], ...] = ()
    width: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """One panel. `thresholds` are where yellow and red begin; `wide` is of 24."""

    kind: Kind
    title: str
    description: str
    sql: str
    unit: str = "short"
    wide: int = 12
    tall: int = 8
    thresholds: tuple[float, ...] = ()
    columns: tuple[Column, ...] = ()
    decimals: int | None = None
    # Of a matrix: (row, column, value), and where a cell leads.
    matrix: tuple[str, str, str] = ("", "", "")
    link: str = ""
    sends: tuple[tuple[str, str], ...] = ()
    log: bool = False

    @property
    def format(self) -> Format:
        """How Grafana reads the answer."""
        return "timeseries" if self.kind in ("timeseries", "bars", "heatmap") else "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A choice at the top of a board, filled by a query: one column is the value, a second one its text."""

    name: str
    label: str
    sql: str
    multi: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard; `uid` is its file's name, too. `rows` are (title, panels)."""

    uid: str
    title: str
    description: str
    rows: tuple[tuple[str, tuple[Show, ...]], ...]
    variables: tuple[Variable, ...] = ()
    since: str = "now-6h"
    refresh: str = "1m"
    annotated: bool = True


TASKS = Variable(
    name="task",
    label="task",
    sql="SELECT DISTINCT task FROM v_round WHERE round_at >= now() - INTERVAL 30 DAY ORDER BY task",
)
PROTOCOLS = Variable(
    name="proto",
    label="protocol",
    sql="SELECT DISTINCT toString(proto) AS name FROM v_node_1h WHERE t >= now() - INTERVAL 7 DAY ORDER BY name",
)
NODE_NAMES = "SELECT DISTINCT src_node FROM v_node_1h WHERE t >= now() - INTERVAL 7 DAY ORDER BY src_node"
ANNOTATIONS: tuple[tuple[str, str, str], ...] = (
    (
        "alarms",
        "orange",
        "SELECT at AS time, concat(toString(state), ': ', element, ' ', sentence) AS text, "
        "concat(task, ',', severity, ',', toString(state)) AS tags "
        "FROM v_alarm_transition WHERE at >= $__fromTime AND at <= $__toTime ORDER BY time",
    ),
    (
        "cluster events",
        "blue",
        "SELECT at AS time, concat(object, ' ', reason, ': ', message) AS text, concat(node, ',', reason) AS tags "
        "FROM v_event WHERE at >= $__fromTime AND at <= $__toTime ORDER BY time",
    ),
)
LOSS = (0.001, 0.01)
