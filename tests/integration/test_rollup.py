"""Roll-ups on a real endpoint: equal to raw to the row, whatever comes late, twice, or is killed in the middle."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.seed import Seed, fill, insert_sql, node
from streams.clickhouse import ClickHouse, ClickHouseAway
from streams.migrate import Migration
from streams.rollup import RollUp
from tests.integration.endpoint_fixture import WRITER_PASSWORD, Endpoint, running_endpoint

HOUR = timedelta(hours=1)
SUMS = (
    "count() AS n, countIf(outcome = 'ok') AS n_ok, countIf(outcome = 'timeout') AS n_lost, sum(p.sent) AS sent, "
    "sum(p.lost) AS lost, sumIf(total_us, outcome = 'ok') AS total_sum, "
    "min(if(outcome = 'ok', total_us, 4294967295)) AS total_min, "
    "maxIf(total_us, outcome = 'ok') AS total_max, sumIf(dur_us, outcome = 'ok') AS dur_sum, "
    "arraySort(groupArrayIf(toUInt8(floor(log2(total_us) * 8)), outcome = 'ok')) AS buckets"
)
ROLLED = (
    "n, n_ok, n_lost, sent, lost, total_sum, total_min, total_max, dur_sum, "
    "arrayFlatten(arrayMap((b, c) -> arrayWithConstant(c, b), mapKeys(h), mapValues(h))) AS buckets"
)
PAIR = "task, toString(proto) AS pr, src_node, src_zone, dst, dst_node, dst_zone, toString(layer) AS la, size"
NODE = "task, toString(proto) AS pr, src_node, src_zone, dst_zone"


def door(endpoint: Endpoint) -> ClickHouse:
    return ClickHouse(url=f"http://writer@127.0.0.1:{endpoint.port}/kpatrol", password=WRITER_PASSWORD)


TABLES = ("probe", "node_1m", "node_1m_closed", "node_1h", "pair_1h", "pair_1d", "node_1d", "rolled")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with running_endpoint(tmp_path_factory.mktemp("rollup")) as running:
        clickhouse = door(running)
        clickhouse.wait_ready(timeout_s=60)
        Migration(clickhouse=clickhouse).apply()
        clickhouse.close()
        yield running


@pytest.fixture
def database(endpoint: Endpoint) -> Iterator[ClickHouse]:
    """Empty tables."""
    clickhouse = door(endpoint)
    for table in TABLES:
        clickhouse.command(f"TRUNCATE TABLE {table}")
    yield clickhouse
    clickhouse.close()


def today(hour: int) -> datetime:
    """An hour of the day before yesterday: over, and within what raw keeps."""
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    return day + timedelta(hours=hour)


def seed(**changes: Any) -> Seed:
    given: dict[str, Any] = {"start": today(9) + timedelta(minutes=30), "rounds": 90, "nodes": 4, "loss": 0.02}
    return Seed(**given | changes)


def assert_equal_to_raw(clickhouse: ClickHouse) -> None:
    """Every line of every table against raw, each request once by its identity."""
    raw = "(SELECT *, total_us FROM probe LIMIT 1 BY round_id, agent, incarnation, seq) AS p"
    for table, step, keys in (
        ("pair_1h", "toStartOfHour(toDateTime(ts, 'UTC'))", PAIR),
        ("node_1m_closed", "toStartOfMinute(toDateTime(ts, 'UTC'))", NODE),
        ("node_1h", "toStartOfHour(toDateTime(ts, 'UTC'))", NODE),
        ("node_1d", "toStartOfDay(toDateTime(ts, 'UTC'))", NODE),
        ("pair_1d", "toStartOfDay(toDateTime(ts, 'UTC'))", PAIR),
    ):
        by = ", ".join(part.split(" AS ")[-1] for part in keys.split(", "))
        expected = clickhouse.query_rows(
            f"SELECT {step} AS t, {keys}, {SUMS} FROM {raw} GROUP BY t, {by} ORDER BY t, {by}"
        )
        found = clickhouse.query_rows(
            f"SELECT t, {keys}, {ROLLED} FROM {table} WHERE version IN (SELECT version FROM rolled FINAL) "
            f"ORDER BY t, {by}"
        )
        assert expected
        assert found == expected, table


def job(clickhouse: ClickHouse, **options: Any) -> RollUp:
    return RollUp(clickhouse=clickhouse, raw_days=7, **options)


def test_every_table_is_what_raw_says_and_a_second_pass_writes_nothing(database: ClickHouse) -> None:
    one = seed(rounds=90, lossy={node(1): 0.3})
    fill(database, one)
    assert database.query_rows("SELECT count() AS n FROM probe") == [{"n": one.rows}]
    rollup = job(database)
    written = rollup.run_once()
    assert [(w.period, w.closed) for w in written] == [("hour", True), ("hour", True), ("day", True)]
    assert sum(w.rows for w in written if w.period == "hour") == one.rows
    assert_equal_to_raw(database)
    assert rollup.run_once() == []
    assert rollup.run_once(audit=True) == []
    assert job(database).run_once() == []


def test_late_and_repeated_data_are_found_without_an_audit(database: ClickHouse) -> None:
    fill(database, seed(rounds=60))
    rollup = job(database)
    rollup.run_once()
    fill(database, seed(task="netpatrol/late", rounds=10, start=today(9)))
    assert [w.t for w in rollup.run_once()] == [today(9), today(0)]
    assert_equal_to_raw(database)
    # The same requests under other Kafka places: a spool that was published twice.
    again = insert_sql(seed(rounds=60, salt=0), first=0, count=60).replace("token = 'seed-", "token = 'again-")
    database.command(again.replace("src % 12", "src % 12 + 1"))
    assert database.query_rows("SELECT count() AS n FROM probe")[0]["n"] > 60 * 48 + 480
    assert len(rollup.run_once()) == 3
    assert_equal_to_raw(database)


def test_chunks_add_up(database: ClickHouse) -> None:
    fill(database, seed(nodes=6, rounds=20))
    job(database, chunk=100).run_once()
    assert_equal_to_raw(database)


def test_the_running_hour_is_written_and_closed_when_it_is_over(database: ClickHouse) -> None:
    fill(database, seed(start=today(9), rounds=20))
    now = [today(9) + timedelta(minutes=21)]
    rollup = job(database, now=lambda: now[0])
    assert [(w.period, w.closed) for w in rollup.run_once()] == [("hour", False), ("day", False)]
    assert rollup.run_once() == []
    # Minutes of an hour that runs are the live ones.
    live = "SELECT sum(n) AS n FROM v_node_1m WHERE t >= {t:DateTime('UTC')}"
    assert database.query_rows(live, {"t": today(9)}) == [{"n": 20 * 48}]
    now[0] = today(10) + timedelta(minutes=3)
    assert [(w.period, w.closed) for w in rollup.run_once()] == [("hour", True), ("day", False)]
    assert database.query_rows(live, {"t": today(9)}) == [{"n": 20 * 48}]
    now[0] = today(0) + timedelta(days=1, minutes=3)
    # Nothing of the day has changed since its last hour was closed, but it is over now.
    rollup.run_once()
    assert_equal_to_raw(database)


def test_live_minutes_with_repeats_give_way_to_the_jobs_rows(database: ClickHouse) -> None:
    fill(database, seed(rounds=20))
    again = insert_sql(seed(rounds=20), first=0, count=20).replace("token = 'seed-", "token = 'again-")
    database.command(again)
    count = "SELECT sum(n) AS n, sum(sumMap) AS h FROM (SELECT n, arraySum(mapValues(h)) AS sumMap FROM v_node_1m)"
    assert database.query_rows(count)[0]["n"] == 2 * 20 * 48
    job(database).run_once()
    once = database.query_rows(count)[0]
    assert once["n"] == 20 * 48
    assert once["h"] == database.query_rows("SELECT sum(n_ok) AS n FROM pair_1h FINAL")[0]["n"]


def test_an_hour_of_which_raw_may_be_gone_is_left_alone(database: ClickHouse) -> None:
    fill(database, seed(start=today(9), rounds=5))
    later = today(9) + timedelta(days=6, hours=3)
    assert job(database, now=lambda: later).run_once() == []


def command(endpoint: Endpoint, tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    password = tmp_path / "password"
    password.write_text(WRITER_PASSWORD)
    environment = {
        **os.environ,
        "KPATROL_CLICKHOUSE_URL": f"http://writer@127.0.0.1:{endpoint.port}/kpatrol",
        "KPATROL_CLICKHOUSE_PASSWORD_FILE": str(password),
    }
    return [sys.executable, "-m", "streams", "rollup", "--once"], environment


def wait_for_hours(clickhouse: ClickHouse, hours: int) -> int:
    """How many hours are written, as soon as it is so many."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        written = clickhouse.query_rows("SELECT uniqExact(t) AS n FROM rolled WHERE period = 'hour'")[0]["n"]
        if written >= hours:
            return int(written)
        time.sleep(0.01)
    raise AssertionError(f"{written} hours after a minute, {hours} expected")


def test_killed_in_the_middle_job_writer_and_endpoint_it_comes_out_right(tmp_path: Path) -> None:
    with running_endpoint(tmp_path) as running:
        clickhouse = door(running)
        clickhouse.wait_ready(timeout_s=60)
        Migration(clickhouse=clickhouse).apply()
        whole = seed(start=today(1), rounds=240, interval_s=300, nodes=12)
        words, environment = command(running, tmp_path)

        # The writer: killed between two inserts or inside one, then it sends all again with the same tokens.
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER.format(port=running.port, password=WRITER_PASSWORD, start=whole.start)]
        )
        time.sleep(1.2)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        for first in range(0, 240, 8):
            clickhouse.command(insert_sql(whole, first=first, count=8))
            if first == 120:
                # The endpoint: killed while it inserts and rolls up; what it had not stored is sent again.
                started = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
                wait_for_hours(clickhouse, 3)
                running.kill()
                started.wait()
                running.start()
                clickhouse.wait_ready(timeout_s=60)
        # The job, at several places of its way.
        written = []
        for hours in (5, 9, 14):
            started = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
            written.append(wait_for_hours(clickhouse, hours))
            started.send_signal(signal.SIGKILL)
            started.wait()
        # On a busy machine the job may have gone far before anybody looked; of the first kill it has not ended.
        assert written[0] < 20, written
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        raw = "SELECT count() AS n FROM (SELECT 1 FROM probe LIMIT 1 BY round_id, agent, incarnation, seq)"
        assert clickhouse.query_rows(raw) == [{"n": whole.rows}]
        assert_equal_to_raw(clickhouse)
        running.kill()
        with pytest.raises(ClickHouseAway):
            clickhouse.command("SELECT 1")
        refused = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert refused.returncode == 2
        assert "Traceback" not in refused.stderr
        clickhouse.close()


WRITER = """
from datetime import datetime, timezone, timedelta
import datetime as dt
from bench.seed import Seed, insert_sql
from streams.clickhouse import ClickHouse
start = datetime.fromisoformat("{start}")
seed = Seed(start=start, rounds=240, interval_s=300, nodes=12, loss=0.02)
door = ClickHouse(url="http://writer@127.0.0.1:{port}/kpatrol", password="{password}")
for first in range(0, 240, 8):
    door.command(insert_sql(seed, first=first, count=8))
"""
