"""An agent at a tenth of a core under load, round after round: each is degraded, none is the network's."""

import os
from pathlib import Path

import pytest

from streams.alarm_rules import TaskAlarms, fold
from tests.integration.cpu_quota import cpu_quota
from tests.integration.test_starved_agent import judged, run_alone
from topics.alarms import AlarmRecord

pytestmark = pytest.mark.soak
ROUNDS = 20


@pytest.mark.skipif(os.geteuid() != 0, reason="a cgroup of one's own needs root")
def test_a_starved_agents_rounds_are_all_degraded_and_raise_no_alarm_about_the_network(tmp_path: Path) -> None:
    with cpu_quota(0.1) as cgroup:
        ran = run_alone(tmp_path, rate=5000.0, duration_s=1.0, rounds=ROUNDS, cgroup=str(cgroup))
    verdicts = [judged(ran, number) for number in range(1, ROUNDS + 1)]
    state, told = TaskAlarms(), list[AlarmRecord]()
    for verdict in verdicts:
        state, records = fold(state, verdict)
        told += records
    print(f"{sum(v.trust.grade == 'degraded' for v in verdicts)} of {ROUNDS} degraded; {[r.element for r in told]}")
    assert [v.trust.grade for v in verdicts] == ["degraded"] * ROUNDS
    assert {r.element for r in told} <= {"instrument", "task"}
    assert [f for v in verdicts for f in v.findings] == []
