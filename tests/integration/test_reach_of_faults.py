"""How far a fault reaches, in real packets: a hole in the MTU one way, and a hole for some 5-tuples (about 35 s)."""

from pathlib import Path

import pytest

from tests.integration.labs import run_lab

pytestmark = pytest.mark.paced
PATROL = """
apiVersion: kpatrol.io/v1beta1
kind: NetPatrol
metadata: {name: reach}
spec:
  protocols: [udp]
  intervalSecond: 6
  requestsPerRound: 64
  perRequestTimeoutInMS: 500
  packetSizesInByte: [0]
  fullSizePacket: true
  sourcePorts: 16
"""


def test_the_size_and_the_tuples_that_are_lost_are_named_with_their_direction(tmp_path: Path) -> None:
    task = tmp_path / "reach.yaml"
    task.write_text(PATROL)
    run = run_lab(
        "-f", str(task), "--agents", "6", "--rounds", "2",
        "--fault", "ingress node-2 loss=100% tuples=1/16 proto=udp",
        "--fault", "egress node-5 loss=100% size>1000 proto=udp", logs=tmp_path,
    )  # fmt: skip
    rounds = [r for r in run.rounds("netpatrol/reach") if r["trust"] == "good"]
    assert rounds, run.report
    for round_ in rounds:
        found = {(f["element"], f["direction"]): f for f in round_["findings"]}
        assert found.keys() == {("node-2", "ingress"), ("node-5", "egress")}, round_["findings"]
        hole, some = found["node-5", "egress"], found["node-2", "ingress"]
        assert hole["scope"] == "size 1472 bytes"
        # Over several rounds what was tried is an estimate: of earlier rounds only what lost something is remembered.
        assert hole["loss"]["rate"] > 0.9, hole
        assert "not smaller packets" in hole["sentence"]
        assert some["scope"] == "tuples"
        assert "it depends on the 5-tuple" in some["sentence"]
    assert all(fault["dropped"] == fault["examined"] > 0 for fault in run.report["faults"])
