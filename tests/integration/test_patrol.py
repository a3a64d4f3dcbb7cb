"""A standing patrol in the lab: every protocol and both sizes, and each packet that a fault took is in the report."""

from pathlib import Path

import pytest

from tests.integration.labs import assert_adds_up, run_lab

pytestmark = pytest.mark.paced
PATROL = Path(__file__).parent / "tasks_patrol.yaml"


def test_a_patrol_counts_every_datagram_that_a_fault_took(tmp_path: Path) -> None:
    run = run_lab(
        "-f", str(PATROL), "--agents", "3", "--rounds", "1",
        "--fault", "ingress node-3 loss=100% size>1450", "--fault", "pair node-1>node-2 every=7 proto=udp",
        logs=tmp_path,
    )  # fmt: skip
    (only,) = run.rounds("netpatrol/mesh")
    assert_adds_up([only])
    # 3 agents × 2 peers × (icmp, udp: two sizes each; tcp, http: one) × 20.
    assert only["planned"] == 3 * 2 * 6 * 20
    dropped = [fault["dropped"] for fault in run.report["faults"]]
    # Full-size packets to node-3: 2 peers × 2 protocols × 20 requests there, and as many replies to its own.
    assert dropped[0] == 2 * 2 * 20 * 2
    assert dropped[1] > 0
    assert only["loss"]["lost"] == sum(dropped) == only["requests"]["by_outcome"]["timeout"]
    assert run.code == 1
