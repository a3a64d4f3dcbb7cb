"""The arithmetic of `kpatrol plan`, and that docs/scale.md shows what it says."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kpatrol import measured
from kpatrol.cli import cli
from kpatrol.planning import CannotPlan, Patrol, plan, plan_json, scale_table, size
from streams.migrate import Values

ROOT = Path(__file__).parents[3]


def test_rows_follow_from_nodes_peers_protocols_and_interval() -> None:
    full = Patrol(nodes=100, interval_s=60)
    assert (full.peers, full.pairs_a_round, full.rows_a_s) == (99, 9900, 660.0)
    ring = Patrol(nodes=5000, interval_s=60, degree=20, protocols=("icmp",))
    assert ring.rows_a_s == pytest.approx(5000 * 20 / 60)
    assert Patrol(nodes=50_000, interval_s=60).peers == 4999


def test_a_ring_meets_more_pairs_the_longer_it_turns() -> None:
    ring = Patrol(nodes=5000, interval_s=60, degree=20)
    assert ring.pairs_within(3600) == 5000 * 1200
    assert ring.pairs_within(86_400) == 5000 * 4999
    full = Patrol(nodes=100, interval_s=60)
    assert full.pairs_within(3600) == full.pairs_within(60) == 9900


def test_disk_is_rows_times_bytes_times_days_with_the_margin() -> None:
    found = plan(Patrol(nodes=100, interval_s=60, kept=Values(raw_days=3)))
    a_day, days = found.tables["probe"]
    assert days == 3
    assert a_day == pytest.approx(660 * 86_400 * measured.DISK_BYTES["probe"] * measured.DISK_MARGIN)
    assert found.tables["pair_1h"][0] == pytest.approx(9900 * 4 * 24 * measured.DISK_BYTES["pair_1h"] * 2)
    assert found.disk_bytes == pytest.approx(sum(a * d for a, d in found.tables.values()))
    assert found.disk_bytes_after_a_year < found.disk_bytes


def test_twice_the_nodes_of_a_ring_is_twice_of_everything_but_an_agent() -> None:
    one, two = (plan(Patrol(nodes=n, interval_s=60, degree=20)) for n in (1000, 2000))
    assert two.topics["probe-results-v1"] == pytest.approx(2 * one.topics["probe-results-v1"])
    assert two.tables["probe"][0] == pytest.approx(2 * one.tables["probe"][0])
    assert two.cores["sink"] == pytest.approx(2 * one.cores["sink"])
    assert two.agent == one.agent


def test_workers_and_partitions_grow_with_the_rows() -> None:
    small, large = plan(Patrol(nodes=50, interval_s=60)), plan(Patrol(nodes=5000, interval_s=10, degree=500))
    assert (small.partitions, small.sink_workers, small.judge_workers) == (8, 1, 1)
    assert large.patrol.rows_a_s == 1_000_000
    assert large.partitions == 128
    assert large.sink_workers == 2


def test_what_is_no_patrol_is_refused() -> None:
    with pytest.raises(CannotPlan, match="--protocols: found quic, allowed: icmp"):
        Patrol(nodes=10, interval_s=60, protocols=("icmp", "quic"))
    with pytest.raises(CannotPlan, match=r"--degree: found 10, expected less than --nodes \(10\)"):
        Patrol(nodes=10, interval_s=60, degree=10)
    refused = CliRunner().invoke(cli, ["plan", "--nodes", "10", "--protocols", "quic"])
    assert refused.exit_code == 2
    assert "found quic" in refused.output


def test_the_command_prints_a_table_and_json() -> None:
    shown = CliRunner().invoke(cli, ["plan", "--nodes", "500", "--degree", "20"])
    assert shown.exit_code == 0
    assert "667/s" in shown.output
    found = json.loads(CliRunner().invoke(cli, ["plan", "--nodes", "500", "--degree", "20", "--json"]).output)
    assert found == json.loads(json.dumps(plan_json(plan(Patrol(nodes=500, interval_s=60, degree=20)))))


def test_the_page_on_scale_is_fresh() -> None:
    assert scale_table() in (ROOT / "docs" / "scale.md").read_text(), "print(kpatrol.planning.scale_table())"


def test_sizes_are_readable() -> None:
    assert [size(v) for v in (0, 999, 1500, 2.34e9, 4.42e12)] == ["0 B", "999 B", "1.5 kB", "2.34 GB", "4.42 TB"]
