"""What storing and asking costs: 24 h of a full mesh, one round a minute, embedded engine: python -m bench.storage.

Fills raw through the table's own insert (57 M rows: 100 nodes × 99 × 4 protocols × 1,440 rounds), rolls it up, copies
its day backwards for the long-term tables (30 days of hours, a year of nodes' hours and pairs' days), then asks every
dashboard panel, what `kpatrol history` asks and what the page shows. Prints disk per row and the best of three times,
against the goals. `--small` is 1 M rows. `--folder` keeps the data there, and takes what is there already.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.seed import Seed, fill, node, tell_rounds
from bench.sink import PASSWORD
from dashboards.boards.all_boards import BOARDS
from dashboards.macros import ALL, Range, expand
from kpatrol.reading.history import Question, query, source
from kpatrol.reading.store import Store
from kpatrol.ui import facts
from streams.clickhouse import ClickHouse
from streams.migrate import Migration, Values
from streams.rollup import RollUp

GOAL_BYTES = 5.0
PANEL_MS, PAIR_MS, TREND_MS, MESH_MS = 300.0, 100.0, 500.0, 1000.0
TABLES = ("probe", "node_1m", "node_1m_closed", "node_1h", "pair_1h", "pair_1d", "node_1d")
KEPT = "filled"


@contextmanager
def engine(folder: Path) -> Iterator[str]:
    """The endpoint over `folder`, as `python -m kpatrol.endpoint` starts it: its URL."""
    password = folder / "password"
    password.write_text(PASSWORD)
    command = [
        sys.executable,
        "-m",
        "kpatrol.endpoint",
        "--path",
        str(folder / "clickhouse"),
        "--listen",
        "127.0.0.1:0",
    ]
    command += ["--writer-password-file", str(password), "--reader-password-file", str(password)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        port = process.stdout.readline().split("http://127.0.0.1:")[1].split()[0]
        yield f"http://writer@127.0.0.1:{port}/kpatrol"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def make(clickhouse: ClickHouse, *, nodes: int, rounds: int, now: datetime) -> None:
    """Raw, roll-ups, and the long past."""
    Migration(clickhouse=clickhouse, values=Values(raw_days=30, hour_days=400, minute_days=400)).apply()
    start = now - timedelta(minutes=rounds)
    began_s = time.monotonic()
    seed = Seed(start=start, rounds=rounds, nodes=nodes, loss=1e-5, lossy={node(7 % nodes): 0.02})
    fill(clickhouse, seed)
    took_s = time.monotonic() - began_s
    print(f"filled: {seed.rows:,} rows in {took_s:.0f} s, {seed.rows / took_s:,.0f} rows/s (with node_1m)")
    tell_rounds(clickhouse)
    began_s = time.monotonic()
    written = RollUp(clickhouse=clickhouse, raw_days=30).run_once()
    hours = [w.took_ms for w in written if w.period == "hour"]
    print(f"rolled up: {len(hours)} hours in {time.monotonic() - began_s:.0f} s, {max(hours)} ms the slowest")
    print(f"disk: {sizes(clickhouse)}")
    began_s = time.monotonic()
    # A day at a time where the job writes hours, as in life: parts then hold days, not all of them a bit of each.
    for table, days, together in (("pair_1h", 30, 1), ("node_1h", 90, 1), ("pair_1d", 365, 30), ("node_1d", 365, 30)):
        backwards(clickhouse, table, days=days, together=together)
    print(f"the long past: {time.monotonic() - began_s:.0f} s")


def backwards(clickhouse: ClickHouse, table: str, *, days: int, together: int) -> None:
    """The last 24 h of a roll-up table again for every day of the past, the oldest first, so many in one insert."""
    columns = [r["name"] for r in clickhouse.query_rows(f"DESCRIBE TABLE {table}") if r["name"] != "t"]
    listed = ", ".join(columns)
    for first in reversed(range(1, days, together)):
        clickhouse.command(
            f"INSERT INTO {table} (t, {listed}) SELECT t - toIntervalDay(d), {listed} FROM {table} "
            f"ARRAY JOIN range({first}, {min(days, first + together)}) AS d "
            f"WHERE t > (SELECT max(t) FROM {table}) - INTERVAL 1 DAY"
        )


def sizes(clickhouse: ClickHouse) -> str:
    """Bytes a row of every table, after merging what is merged so far."""
    rows = clickhouse.query_rows(
        "SELECT table, sum(rows) AS n, sum(bytes_on_disk) / n AS per_row FROM system.parts "
        f"WHERE active AND database = 'kpatrol' AND table IN {TABLES} GROUP BY table ORDER BY table"
    )
    return ", ".join(f"{r['table']} {r['n']:,} rows × {r['per_row']:.2f} B" for r in rows)


def bytes_a_row(clickhouse: ClickHouse) -> float:
    """Disk per stored request."""
    rows = clickhouse.query_rows(
        "SELECT sum(bytes_on_disk) / sum(rows) AS b FROM system.parts "
        "WHERE active AND database = 'kpatrol' AND table = 'probe'"
    )
    return float(rows[0]["b"])


def best_ms(ask: Callable[[], Any], *, times: int = 3) -> float:
    """The best of some runs, in milliseconds."""
    taken = []
    for _ in range(times):
        began_s = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - began_s) * 1000)
    return min(taken)


def asked(clickhouse: ClickHouse, question: Question) -> float:
    """What `kpatrol history` asks."""
    sql, parameters = query(question, source(question))
    return best_ms(lambda: clickhouse.query_rows(sql, parameters))


def histories(clickhouse: ClickHouse, *, nodes: int, now: datetime) -> list[tuple[str, float, float]]:
    """(what, best ms, goal ms)."""
    pair = (node(7 % nodes), node(1))
    day, month, quarter = timedelta(days=1), timedelta(days=30), timedelta(days=90)
    questions = [
        ("one pair, both ways, 30 days", Question(task="mesh", since=now - month, until=now, pair=pair), PAIR_MS),
        ("zones, 90 days", Question(task="mesh", since=now - quarter, until=now, by="zone"), TREND_MS),
        ("everything, 90 days", Question(task="mesh", since=now - quarter, until=now), TREND_MS),
        ("nodes, from and to, one day", Question(task="mesh", since=now - day, until=now, by="node"), MESH_MS),
    ]
    return [(f"history: {what}", asked(clickhouse, question), goal) for what, question, goal in questions]


def pages(store: Store, *, nodes: int, now: datetime) -> list[tuple[str, float, float]]:
    """(what, best ms, goal ms) of what the page asks: a round's matrix, and an hour of a pair that is clicked on."""
    task, src, dst = "netpatrol/mesh", node(7 % nodes), node(1)
    since = (now - timedelta(hours=1)).isoformat()
    last = facts.rounds(store, task=task)[0]
    chosen = {"round_id": int(last["round_id"]), "round_at": last["round_at"]}
    asked: list[tuple[str, Callable[[], object], float]] = [
        ("rounds of a task", lambda: facts.rounds(store, task=task), PANEL_MS),
        ("a round's matrix", lambda: facts.mesh(store, **chosen), MESH_MS),
        ("a pair, both ways", lambda: facts.pair(store, task=task, src=src, dst=dst, since=since), PANEL_MS),
    ]
    return [(f"page: {what}", best_ms(ask), goal) for what, ask, goal in asked]


# How long a range each board is asked for: Grafana's default for it, as far as there is data.
RANGES = {"kpatrol-trends": timedelta(days=90), "kpatrol-mesh": timedelta(days=1), "kpatrol-pair": timedelta(days=1)}


def panels(clickhouse: ClickHouse, *, nodes: int, now: datetime) -> list[tuple[str, float, float]]:
    """(what, best ms, goal ms) of every dashboard panel: everything chosen, and a day where the board is not longer."""
    taken = []
    (last,) = clickhouse.query_rows(
        "SELECT toString(max(round_id)) AS id FROM v_probe WHERE round_at > now() - INTERVAL 2 DAY"
    )
    single = {"src": [node(7 % nodes)], "dst": [node(1)], "round": [last["id"]]}
    for board in BOARDS:
        span = RANGES.get(board.uid, timedelta(days=1))
        chosen = {v.name: [ALL] if v.multi else single[v.name] for v in board.variables}
        asked = Range(since=now - span, until=now, interval_s=int(span.total_seconds() / 300), chosen=chosen)
        for show in (s for _, shows in board.rows for s in shows):
            sql = expand(show.sql, asked)
            ms = best_ms(lambda sql=sql: clickhouse.query_rows(sql))  # type: ignore[misc]
            goal = TREND_MS if span > timedelta(days=1) else PANEL_MS
            taken.append((f"{board.uid.removeprefix('kpatrol-')}: {show.title}", ms, goal))
    return taken


def main() -> int:
    """Print the figures, missed goals among them."""
    parser = argparse.ArgumentParser(prog="python -m bench.storage", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="1 M rows: 20 nodes, 11 hours")
    parser.add_argument("--folder", type=Path, help="keep the data here, and take what is here already")
    options = parser.parse_args()
    nodes, rounds = (20, 660) if options.small else (100, 1440)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kpatrol-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / KEPT
    try:
        with engine(folder) as url:
            clickhouse = ClickHouse(url=url, password=PASSWORD, timeout_s=900)
            clickhouse.wait_ready(timeout_s=60)
            if not kept.exists():
                now = datetime.now(UTC).replace(second=0, microsecond=0)
                make(clickhouse, nodes=nodes, rounds=rounds, now=now)
                kept.write_text(now.isoformat())
            store = Store(url=url, password=PASSWORD)
            try:
                return report(clickhouse, store, nodes=nodes, now=datetime.fromisoformat(kept.read_text()))
            finally:
                store.close()
    finally:
        if options.folder is None:
            shutil.rmtree(folder)


def report(clickhouse: ClickHouse, store: Store, *, nodes: int, now: datetime) -> int:
    """Ask everything; the exit code, 0: a goal missed is told, not a failure."""
    per_row = bytes_a_row(clickhouse)
    print(f"disk: {sizes(clickhouse)}")
    print(f"a stored request takes {per_row:.2f} B, goal {GOAL_BYTES} B: ratio {per_row / GOAL_BYTES:.2f}")
    taken = histories(clickhouse, nodes=nodes, now=now) + pages(store, nodes=nodes, now=now)
    taken += panels(clickhouse, nodes=nodes, now=now)
    for what, ms, goal in taken:
        print(f"{ms:7.0f} ms, goal {goal:.0f}{'' if ms <= goal else ' MISSED'}: {what}")
    missed = sum(ms > goal for _, ms, goal in taken)
    print(f"{len(taken) - missed} of {len(taken)} within their goals")
    return 0


if __name__ == "__main__":
    sys.exit(main())
