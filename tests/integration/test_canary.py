"""A canary in real packets: the loss that an agent makes by itself is found, told as such, and alarms nobody (20 s)."""

from pathlib import Path

import pytest

from tests.integration.labs import assert_adds_up, run_lab

pytestmark = pytest.mark.paced
CANARY = """
apiVersion: kpatrol.io/v1beta1
kind: NetPatrol
metadata: {name: canary}
spec:
  protocols: [udp]
  intervalSecond: 5
  requestsPerRound: 100
  perRequestTimeoutInMS: 500
  canaryLossRate: 0.3
"""


def test_the_loss_of_a_canary_is_found_within_two_rounds_and_is_no_loss_of_the_network(tmp_path: Path) -> None:
    task = tmp_path / "canary.yaml"
    task.write_text(CANARY)
    run = run_lab("-f", str(task), "--agents", "4", "--rounds", "2", logs=tmp_path)
    rounds = run.rounds("netpatrol/canary")
    assert_adds_up(rounds)
    last = rounds[-1]
    found = [f for r in rounds for f in r["findings"] if f["kind"] == "canary"]
    assert found, last
    assert all("by itself, and nothing is lost on the network" in f["sentence"] for f in found)
    assert {(f["direction"], f["scope"]) for f in found} == {("pair", "")}, found
    # An agent that was slow on a busy machine may say something else of itself, but no loss of the network is told.
    assert all(f["kind"] == "canary" for r in rounds for f in r["findings"] if r["trust"] == "good"), rounds
