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
    # What was not sent in time on a busy machine can be missing.
    full = 2 * 2 * 20 * 2
    assert full - 2 * only["unsent"] <= dropped[0] <= full
    assert dropped[1] > 0
    # Datagrams to the packet; TCP, of which the fault takes none, to within two.
    assert 0 <= only["loss"]["lost"] - sum(dropped) <= 2
    assert 0 <= only["requests"]["by_outcome"]["timeout"] - sum(dropped) <= 2
    assert run.code == 1
