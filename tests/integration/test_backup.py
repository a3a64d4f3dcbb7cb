"""`kpatrol backup` and `restore` over a running endpoint, and the roll-up job over TLS. Takes about 12 s."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.seed import Seed, fill
from kpatrol.lab.tls import Authority
from streams.migrate import Migration
from streams.rollup import RollUp
from tests.integration.endpoint_fixture import Endpoint, running_endpoint
from tests.integration.seeded import writer
from tests.integration.tls_before import tls_before

SUMS = "SELECT (SELECT count() FROM v_probe) AS raw, (SELECT sum(n) FROM v_node_1m) AS minutes, " + (
    "(SELECT sum(n) FROM v_pair_1h) AS hours, (SELECT round(max(p99_us)) FROM v_node_1h) AS p99"
)


def kpatrol(endpoint: Endpoint, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "KPATROL_CLICKHOUSE_URL": f"http://writer@127.0.0.1:{endpoint.port}/kpatrol",
        "KPATROL_CLICKHOUSE_PASSWORD_FILE": str(endpoint.password_file),
    }
    command = [sys.executable, "-m", "kpatrol", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def filled(endpoint: Endpoint, seed: Seed) -> None:
    clickhouse = writer(endpoint)
    clickhouse.wait_ready(timeout_s=60)
    Migration(clickhouse=clickhouse).apply()
    fill(clickhouse, seed)
    clickhouse.close()


def seed() -> Seed:
    from datetime import UTC, datetime, timedelta

    return Seed(start=datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=3), rounds=100, nodes=6)


def test_a_backup_taken_while_it_runs_comes_back_whole_in_a_new_folder(tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with running_endpoint(tmp_path / "one", "--backups", str(backups)) as first:
        filled(first, seed())
        clickhouse = writer(first)
        RollUp(clickhouse=clickhouse, raw_days=7).run_once()
        before = clickhouse.query_rows(SUMS)
        done = kpatrol(first, "backup", "monday")
        assert done.returncode == 0, done.stderr
        assert "monday: written in" in done.stderr + done.stdout
        again = kpatrol(first, "backup", "monday")
        assert again.returncode == 2
        assert "already exists" in again.stderr
        bad = kpatrol(first, "backup", "../out")
        assert (bad.returncode, "NAME: found '../out'" in bad.stderr) == (2, True)
        full = kpatrol(first, "restore", "monday")
        assert (full.returncode, "tables: restore into a new, empty folder" in full.stderr) == (2, True)
        clickhouse.close()
    assert before[0]["raw"] == seed().rows
    with running_endpoint(tmp_path / "two", "--backups", str(backups)) as second:
        done = kpatrol(second, "restore", "monday")
        assert done.returncode == 0, done.stderr
        clickhouse = writer(second)
        assert clickhouse.query_rows(SUMS) == before
        # It goes on from there: the view that feeds the live minutes is there, and nothing is left to migrate.
        assert Migration(clickhouse=clickhouse).apply() == []
        fill(clickhouse, Seed(start=seed().start, rounds=1, nodes=6, task="netpatrol/other"))
        assert clickhouse.query_rows(SUMS)[0]["raw"] == seed().rows + 120
        clickhouse.close()


@pytest.mark.parametrize(
    "sql",
    [
        "BACKUP DATABASE kpatrol TO File('/etc/x')",
        "BACKUP DATABASE kpatrol TO File('../x')",
        "BACKUP DATABASE system TO File('x')",
        "BACKUP ALL TO File('x')",
        "BACKUP DATABASE kpatrol TO Disk('default', 'x')",
        "BACKUP DATABASE kpatrol TO S3('http://127.0.0.1:1/x')",
        "BACKUP DATABASE kpatrol TO File('x') SETTINGS base_backup = File('/etc')",
        "RESTORE DATABASE kpatrol AS other FROM File('x')",
        "RESTORE DATABASE kpatrol FROM File('.backup')",
    ],
)
def test_backups_go_nowhere_else(sql: str) -> None:
    from kpatrol.endpoint.sql_guard import Known, check
    from kpatrol.endpoint.sql_tokens import Refused

    known = Known(
        table_functions=frozenset({"file"}), formats={}, databases=frozenset(), database="kpatrol", backups=True
    )
    assert check(text=b"BACKUP DATABASE kpatrol TO File('x')", parameters={}, known=known, reader=False)
    for reader in (False, True):
        with pytest.raises(Refused):
            check(text=sql.encode(), parameters={}, known=known, reader=reader)


def test_the_roll_up_job_trusts_the_authority_it_is_told_of_and_nobody_else(tmp_path: Path) -> None:
    authority = Authority(name="kpatrol test")
    with running_endpoint(tmp_path) as endpoint, tls_before(endpoint.port, authority, tmp_path) as (port, ca_file):
        filled(endpoint, seed())
        environment = {
            **os.environ,
            "KPATROL_CLICKHOUSE_URL": f"https://writer@127.0.0.1:{port}/kpatrol",
            "KPATROL_CLICKHOUSE_PASSWORD_FILE": str(endpoint.password_file),
        }
        command = [sys.executable, "-m", "streams", "rollup", "--once"]
        trusting = {**environment, "KPATROL_CLICKHOUSE_CA_FILE": str(ca_file)}
        done = subprocess.run(command, env=trusting, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        clickhouse = writer(endpoint)
        assert clickhouse.query_rows("SELECT sum(n) AS n FROM v_pair_1h")[0]["n"] == seed().rows
        clickhouse.close()
        doubting = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert doubting.returncode == 2
        assert "CERTIFICATE_VERIFY_FAILED" in doubting.stderr
        read = [sys.executable, "-m", "kpatrol", "sql", "SELECT count() FROM v_probe"]
        told = subprocess.run(read, env=trusting, capture_output=True, text=True, timeout=120, check=False)
        assert (told.returncode, str(seed().rows) in told.stdout) == (0, True), told.stderr
