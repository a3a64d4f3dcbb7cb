"""Roll-ups: hours and days of pair_1h, node_1m_closed, node_1h, pair_1d and node_1d, taken from raw.

`python -m streams rollup` goes through it every KPATROL_ROLLUP_S seconds; `--once` a single time.
Every period is written as a whole under a new version, so a pass may be repeated, killed or run twice at once: a period
is right when raw still says what it said when it was written, and else it is written again.

Which hours are looked at: those that new rows have reached (node_1m says when its rows arrived), those that ended
since, and at the start and once a day all that raw still has. An hour of which raw may be dropped is never touched.
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from streams.clickhouse import ClickHouse, ClickHouseAway, ClickHouseRefused, rollup_sql
from streams.migrate import Values
from topics.connection import BadConfiguration

log = logging.getLogger(__name__)

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
# An insert that arrived at 10:00:00 may become visible a little later.
SLACK = timedelta(minutes=2)
AUDIT_EVERY = DAY
# Bounds the memory of "each request once": about 60 bytes a row.
CHUNK_ROWS = 4_000_000
QUERY_TIMEOUT_S = 600.0
# Unknown table, unknown database: the migration has not run yet.
NO_TABLES_YET = frozenset({60, 81})
Period = Literal["hour", "day"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What raw has of an hour now: rows, repeats included, and a sum over their places in Kafka."""

    t: datetime
    rows: int
    mark: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """A period as it was written last. A day's `mark` is the newest version of its hours."""

    t: datetime
    closed: bool
    rows: int
    mark: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What one pass has done with one period."""

    period: Period
    t: datetime
    closed: bool
    rows: int
    took_ms: int


def is_over(t: datetime, length: timedelta, now: datetime) -> bool:
    """Whether a period has ended, rows under way included."""
    return t + length + SLACK <= now


def oldest_hour(now: datetime, *, raw_days: int) -> datetime:
    """The first hour of which raw certainly has everything. Rows go by their round's start, whole days at once; a round
    may have begun a day (or a quarter of `raw_days`) before its last request."""
    margin = min(DAY, timedelta(days=raw_days) / 4)
    first = now - timedelta(days=raw_days) + margin
    return first.replace(minute=0, second=0, microsecond=0) + HOUR


def hours_due(marks: Iterable[Mark], known: Mapping[datetime, Rolled], *, now: datetime) -> list[Mark]:
    """The hours to write: never written, changed in raw since, or ended since."""
    return [m for m in marks if _hour_is_due(m, known.get(m.t), now)]


def _hour_is_due(mark: Mark, known: Rolled | None, now: datetime) -> bool:
    if known is None:
        return True
    return (mark.rows, mark.mark) != (known.rows, known.mark) or (is_over(mark.t, HOUR, now) and not known.closed)


def days_due(
    hours: Iterable[Rolled], known: Mapping[datetime, Rolled], *, now: datetime, first: datetime
) -> list[Mark]:
    """The days to write from their hours: a new one, one with an ended hour newer than itself, one that ended."""
    newest: dict[datetime, Mark] = {}
    for hour in hours:
        day = hour.t.replace(hour=0)
        before = newest.get(day, Mark(t=day, rows=0, mark=0))
        newest[day] = Mark(t=day, rows=before.rows + hour.rows, mark=max(before.mark, hour.version))
    ended = {h.t.replace(hour=0) for h in hours if h.closed and h.version > _mark(known, h.t.replace(hour=0))}
    due = []
    for day, mark in sorted(newest.items()):
        was = known.get(day)
        now_over = is_over(day, DAY, now) and not (was and was.closed)
        if day + DAY > first and (was is None or (mark.mark > was.mark and (day in ended or now_over))):
            due.append(mark)
    return due


def _mark(known: Mapping[datetime, Rolled], day: datetime) -> int:
    was = known.get(day)
    return was.mark if was else -1


class RollUp:
    """The passes over one database. `now` is the server's clock unless a test says otherwise."""

    def __init__(
        self,
        *,
        clickhouse: ClickHouse,
        raw_days: int,
        now: Callable[[], datetime] | None = None,
        chunk: int = CHUNK_ROWS,
    ) -> None:
        self._clickhouse = clickhouse
        self._raw_days = raw_days
        self._now = now or self._server_now
        self._chunk = chunk
        self._looked: datetime | None = None
        self._audited: datetime | None = None
        self._last = 0

    def run_once(self, *, audit: bool = False) -> list[Written]:
        """One pass. Raises ClickHouseAway, ClickHouseRefused; what was written until then stays and is right."""
        now = self._now()
        known = self._rolled("hour")
        audit = audit or self._audited is None or now - self._audited >= AUDIT_EVERY
        first = oldest_hour(now, raw_days=self._raw_days)
        hours = None if audit else self._reached(known, now=now, first=first)
        written = [
            self._write_hour(m, known.get(m.t), now) for m in hours_due(self._marks(hours, first, now), known, now=now)
        ]
        days = self._rolled("day")
        due = days_due(self._rolled("hour").values(), days, now=now, first=first)
        written += [self._write_day(m, days.get(m.t), now) for m in due]
        self._looked = now
        self._audited = now if audit else self._audited
        return written

    def _server_now(self) -> datetime:
        rows = self._clickhouse.query_rows("SELECT toUnixTimestamp64Milli(now64(3)) AS now_ms")
        return datetime.fromtimestamp(rows[0]["now_ms"] / 1000, UTC)

    def _rolled(self, period: Period) -> dict[datetime, Rolled]:
        rows = self._clickhouse.query_rows(
            "SELECT toUnixTimestamp(t) AS t_s, closed, raw_rows, raw_mark, version FROM rolled FINAL "
            "WHERE period = {period:String}",
            {"period": period},
        )
        found = (
            Rolled(
                t=_at(r["t_s"]), closed=bool(r["closed"]), rows=r["raw_rows"], mark=r["raw_mark"], version=r["version"]
            )
            for r in rows
        )
        return {r.t: r for r in found}

    def _reached(self, known: Mapping[datetime, Rolled], *, now: datetime, first: datetime) -> list[datetime]:
        """Hours that rows have reached since the last look, and those that ended since they were written."""
        assert self._looked is not None
        rows = self._clickhouse.query_rows(
            "SELECT DISTINCT toUnixTimestamp(toStartOfHour(t)) AS t_s FROM node_1m "
            "WHERE arrived >= fromUnixTimestamp64Milli({since_ms:Int64}, 'UTC')",
            {"since_ms": int((self._looked - SLACK).timestamp() * 1000)},
        )
        ended = {r.t for r in known.values() if not r.closed and is_over(r.t, HOUR, now)}
        return sorted(t for t in {_at(r["t_s"]) for r in rows} | ended if t >= first)

    def _marks(self, hours: Sequence[datetime] | None, first: datetime, now: datetime) -> list[Mark]:
        """What raw has of `hours`; of all from `first` on where None."""
        if hours is not None and not hours:
            return []
        bounds = (hours[0], hours[-1]) if hours else (first, now + DAY)
        parameters = {"hours": [_text(t) for t in hours or ()], "first": _text(bounds[0]), "last": _text(bounds[1])}
        rows = self._clickhouse.query_rows(rollup_sql("marks"), parameters)
        return [Mark(t=r["t"].replace(tzinfo=UTC), rows=r["raw_rows"], mark=r["raw_mark"]) for r in rows]

    def _write_hour(self, mark: Mark, was: Rolled | None, now: datetime) -> Written:
        chunks = 1 + mark.rows // self._chunk
        closed = is_over(mark.t, HOUR, now)

        def write(version: int) -> None:
            for chunk in range(chunks):
                parameters = {"t": _text(mark.t), "version": version, "chunks": chunks, "chunk": chunk}
                self._clickhouse.command(rollup_sql("pair_1h"), parameters)
                self._clickhouse.command(rollup_sql("node_1m"), parameters)
            self._clickhouse.command(rollup_sql("node_1h"), {"t": _text(mark.t), "version": version})

        return self._write("hour", mark, was, now, closed=closed, write=write)

    def _write_day(self, mark: Mark, was: Rolled | None, now: datetime) -> Written:
        def write(version: int) -> None:
            for table in ("pair_1d", "node_1d"):
                self._clickhouse.command(rollup_sql(table), {"t": _text(mark.t), "version": version})

        return self._write("day", mark, was, now, closed=is_over(mark.t, DAY, now), write=write)

    def _write(
        self,
        period: Period,
        mark: Mark,
        was: Rolled | None,
        now: datetime,
        *,
        closed: bool,
        write: Callable[[int], None],
    ) -> Written:
        """The rows first, then the word that they are there: killed in between, the period is written again."""
        began_s = time.monotonic()
        # Microseconds: no two periods ever have the same, so the version alone says whether a row counts.
        version = max(int(now.timestamp() * 1_000_000), was.version + 1 if was else 0, self._last + 1)
        self._last = version
        write(version)
        took_ms = int((time.monotonic() - began_s) * 1000)
        self._clickhouse.insert_rows(
            table="rolled",
            columns=["period", "t", "closed", "raw_rows", "raw_mark", "took_ms", "at", "version"],
            rows=[[period, mark.t, int(closed), mark.rows, mark.mark, took_ms, now, version]],
        )
        return Written(period=period, t=mark.t, closed=closed, rows=mark.rows, took_ms=took_ms)


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _text(t: datetime) -> str:
    return t.strftime("%Y-%m-%d %H:%M:%S")


@dataclass(frozen=True, slots=True, kw_only=True)
class RollUpConfig:
    """What the job is told: where, how often, and how long raw is kept (as `python -m streams.migrate` was told)."""

    clickhouse_url: str
    clickhouse_password: str
    raw_days: int
    every_s: float
    clickhouse_ca_file: str = ""

    def __repr__(self) -> str:
        return f"RollUpConfig(clickhouse_url={self.clickhouse_url!r}, password=***, every_s={self.every_s})"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "RollUpConfig":
        """Read KPATROL_*. Raises BadConfiguration; OSError when the password's file cannot be read."""
        url = env.get("KPATROL_CLICKHOUSE_URL", "")
        if not url.startswith(("http://", "https://")):
            raise BadConfiguration(f"KPATROL_CLICKHOUSE_URL: found {url!r}, expected http(s)://user@host:port/database")
        file = env.get("KPATROL_CLICKHOUSE_PASSWORD_FILE", "")
        return cls(
            clickhouse_url=url,
            clickhouse_password=Path(file).read_text(encoding="utf-8").strip() if file else "",
            raw_days=Values.from_env(env).raw_days,
            every_s=every_s(env.get("KPATROL_ROLLUP_S", "300")),
            clickhouse_ca_file=env.get("KPATROL_CLICKHOUSE_CA_FILE", ""),
        )


def every_s(value: str) -> float:
    """Parse KPATROL_ROLLUP_S. Raises BadConfiguration."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 1 <= seconds <= 3600:
        raise BadConfiguration(f"KPATROL_ROLLUP_S: found {value!r}, expected seconds from 1 to 3600")
    return seconds


def main(arguments: Sequence[str], env: Mapping[str, str]) -> int:
    """The process. Exit codes: 0 done, 2 refused, or (with --once) unreachable."""
    parser = argparse.ArgumentParser(prog="python -m streams rollup")
    parser.add_argument("--once", action="store_true", help="one pass over everything raw has, then end")
    options = parser.parse_args(arguments)
    try:
        config = RollUpConfig.from_env(env)
        clickhouse = ClickHouse(
            url=config.clickhouse_url,
            password=config.clickhouse_password,
            ca_file=config.clickhouse_ca_file,
            timeout_s=QUERY_TIMEOUT_S,
        )
        job = RollUp(clickhouse=clickhouse, raw_days=config.raw_days)
        if options.once:
            _say(job.run_once())
            return 0
        _for_ever(job, every_s=config.every_s)
    except (BadConfiguration, ClickHouseAway, ClickHouseRefused, OSError) as error:
        print(f"streams rollup: {error}", file=sys.stderr)
        return 2
    return 0


def _for_ever(job: RollUp, *, every_s: float) -> None:
    """Pass after pass. ClickHouse or its tables not being there is waited out: the next pass finds what was missed."""
    while True:
        began_s = time.monotonic()
        try:
            _say(job.run_once())
        except (ClickHouseAway, ClickHouseRefused) as error:
            if isinstance(error, ClickHouseRefused) and error.code not in NO_TABLES_YET:
                raise
            log.warning("%s; next pass in %.0f s", error, every_s)
        time.sleep(max(0.0, every_s - (time.monotonic() - began_s)))


def _say(written: Sequence[Written]) -> None:
    for w in written:
        log.info(
            "%s %s: %d raw rows, %d ms%s", w.period, _text(w.t), w.rows, w.took_ms, "" if w.closed else ", running"
        )
