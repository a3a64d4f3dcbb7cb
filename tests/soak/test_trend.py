"""A loss of 1 ± 0.3 in 100,000 that grows over 30 days is seen: by `kpatrol history` and on the board of trends."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bench.seed import Seed, fill
from dashboards.boards.trends import BOARD
from dashboards.macros import ALL, Range, expand
from kpatrol.reading.store import Store
from streams.migrate import Migration, Values
from streams.rollup import RollUp
from tests.integration.endpoint_fixture import READER_PASSWORD, Endpoint, running_endpoint
from tests.integration.seeded import writer

pytestmark = pytest.mark.soak

DAYS, NODES, ROUNDS_A_DAY, PACKETS = 30, 48, 1, 20_000
TASK = "netpatrol/bulk"


def true_rate(day: int) -> float:
    """0.7 in 100,000 on the first day, 1.3 on the last."""
    return (0.7 + 0.6 * day / (DAYS - 1)) * 1e-5


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with running_endpoint(tmp_path_factory.mktemp("trend")) as running:
        clickhouse = writer(running)
        clickhouse.wait_ready(timeout_s=60)
        Migration(clickhouse=clickhouse, values=Values(raw_days=60)).apply()
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        for day in range(DAYS):
            fill(
                clickhouse,
                Seed(
                    start=today - timedelta(days=DAYS - day), rounds=ROUNDS_A_DAY, interval_s=86_400 // ROUNDS_A_DAY,
                    nodes=NODES, protocols=("tcp",), packets={"tcp": PACKETS}, loss=true_rate(day), task=TASK, salt=day,
                ),
            )  # fmt: skip
        RollUp(clickhouse=clickhouse, raw_days=60).run_once()
        clickhouse.close()
        yield running


def history(endpoint: Endpoint, *arguments: str) -> dict[str, Any]:
    url = f"http://reader:{READER_PASSWORD}@127.0.0.1:{endpoint.port}/kpatrol"
    done = subprocess.run(
        [sys.executable, "-m", "kpatrol", "history", "bulk", "--json", *arguments],
        env={**os.environ, "KPATROL_CLICKHOUSE_URL": url}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def slope_a_day(points: list[tuple[float, float]]) -> float:
    """Least squares: change of the rate a day."""
    days, rates = [p[0] for p in points], [p[1] for p in points]
    mean_day, mean_rate = sum(days) / len(days), sum(rates) / len(rates)
    above = sum((d - mean_day) * (r - mean_rate) for d, r in points)
    return above / sum((d - mean_day) ** 2 for d in days)


def test_history_returns_the_trend_with_honest_intervals(endpoint: Endpoint) -> None:
    (line,) = history(endpoint, "--since", f"{DAYS + 1}d")["lines"]
    assert line["packets_sent"] == DAYS * ROUNDS_A_DAY * NODES * (NODES - 1) * PACKETS
    assert line["loss_low"] < 1.0e-5 < line["loss_high"]
    assert line["loss_high"] - line["loss_low"] < 0.1e-5
    first = datetime.fromisoformat(line["points"][0]["t"])
    points = [
        ((datetime.fromisoformat(p["t"]) - first).total_seconds() / 86_400, p)
        for p in line["points"]
        if p["packets_sent"]
    ]
    slope = slope_a_day([(day, p["loss_rate"]) for day, p in points])
    assert slope * (DAYS - 1) == pytest.approx(0.6e-5, abs=0.1e-5)
    covered = [p["loss_low"] <= true_rate(int(day)) <= p["loss_high"] for day, p in points]
    assert len(covered) >= DAYS
    assert sum(covered) >= 0.85 * len(covered)


def test_history_says_that_the_last_days_are_worse(endpoint: Endpoint) -> None:
    (line,) = history(endpoint, "--since", "10d", "--compare", "10d")["lines"]
    assert line["change"] == "worse"
    assert line["loss_low"] > line["before"]["loss_high"]


def test_the_board_of_trends_shows_it(endpoint: Endpoint) -> None:
    now = datetime.now(UTC)
    asked = Range(since=now - timedelta(days=DAYS + 1), until=now, chosen={v.name: [ALL] for v in BOARD.variables})
    shows = {show.title: show for _, shows in BOARD.rows for show in shows}
    store = Store(url=f"http://reader@127.0.0.1:{endpoint.port}/kpatrol", password=READER_PASSWORD)
    names, rows = store.named_rows(expand(shows["Packet loss per day, with its 95 % interval"].sql, asked))
    _, halves = store.named_rows(expand(shows["Second half of the range against the first"].sql, asked))
    store.close()
    assert names == ["time", "loss", "at_least", "at_most"]
    assert len(rows) == DAYS
    assert slope_a_day([(day, row[1]) for day, row in enumerate(rows)]) * (DAYS - 1) == pytest.approx(
        0.6e-5, abs=0.1e-5
    )
    # The first and the last week are apart for certain.
    assert max(row[3] for row in rows[:5]) < max(row[2] for row in rows[-5:])
    assert {row[-1] for row in halves} == {"worse"}
