"""Thirty faults in real packets, one after the other on twelve nodes: each named exactly within two rounds (9 minutes).

A standing patrol by UDP and TCP. Each fault is there for two rounds, then one round is sound. Nothing but the fault may
be named; a round whose instrument was not fit says nothing of the network and is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.labs import run_lab

pytestmark = pytest.mark.soak
NODES = 12
ROUND_S = 5
SLOT_S = 3 * ROUND_S
PATROL = f"""
apiVersion: kpatrol.io/v1beta1
kind: NetPatrol
metadata: {{name: matrix}}
spec:
  protocols: [udp, tcp]
  intervalSecond: {ROUND_S}
  requestsPerRound: 20
  perRequestTimeoutInMS: 1000
  packetSizesInByte: [0]
  fullSizePacket: true
  sourcePorts: 10
"""
FAULTS = (
    *("ingress node-1 loss=2%", "ingress node-2 loss=5%", "ingress node-3 loss=20%", "ingress node-4 loss=50%"),
    *("egress node-5 loss=2%", "egress node-6 loss=5%", "egress node-7 loss=20%", "egress node-8 loss=50%"),
    *("ingress node-9 loss=5% proto=udp", "ingress node-10 loss=20% proto=udp", "egress node-11 loss=5% proto=udp"),
    *("egress node-12 loss=20% proto=udp", "ingress node-1 loss=5% proto=tcp", "ingress node-2 loss=20% proto=tcp"),
    *("egress node-3 loss=5% proto=tcp", "egress node-4 loss=20% proto=tcp"),
    *("pair node-5>node-6 loss=20%", "pair node-7>node-8 loss=50%", "pair node-9>node-10 loss=20% proto=udp"),
    *("pair node-11>node-12 loss=50% proto=udp", "pair node-1>node-5 loss=50% proto=tcp"),
    *("ingress node-6 loss=100% size>1000 proto=udp", "egress node-7 loss=100% size>1000 proto=udp"),
    *("ingress node-8 loss=100% tuples=1/16 proto=udp", "egress node-9 loss=100% tuples=1/16 proto=udp"),
    *("ingress node-10 every=50", "egress node-11 every=50", "ingress node-12 every=10 proto=udp"),
    *("egress node-1 every=10 proto=tcp", "ingress node-2 loss=3%", "egress node-3 loss=3%"),
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was named while a fault was there and in the sound round after it."""

    fault: str
    exact_in: int
    named: tuple[frozenset[tuple[str, str]], ...]
    fit: int


def expected(fault: str) -> tuple[str, str]:
    direction, place = fault.split()[:2]
    return place, direction


def outcome(fault: str, number: int, rounds: Mapping[int, dict[str, Any]]) -> Outcome:
    """Of fault `number`, counted from 0: rounds 3n+1 and 3n+2 have it."""
    mine = [rounds.get(3 * number + i) for i in (1, 2)]
    named = tuple(
        frozenset((f["element"], f["direction"]) for f in r["findings"])
        for r in mine
        if r is not None and r["trust"] == "good"
    )
    exact = [i for i, found in enumerate(named, start=1) if found == {expected(fault)}]
    return Outcome(fault=fault, exact_in=exact[0] if exact else 0, named=named, fit=len(named))


def false_names(outcomes: Sequence[Outcome], rounds: Mapping[int, dict[str, Any]]) -> list[str]:
    """Everything named that no fault explains: beside a fault, or in a sound round."""
    found = [
        f"{o.fault}: {e} {d}" for o in outcomes for names in o.named for e, d in names if (e, d) != expected(o.fault)
    ]
    for number, round_ in rounds.items():
        if number % 3 == 0 and round_["trust"] == "good":
            found += [f"sound round {number}: {f['sentence']}" for f in round_["findings"]]
    return found


def test_thirty_faults_are_named_exactly(tmp_path: Path) -> None:
    task = tmp_path / "matrix.yaml"
    task.write_text(PATROL)
    arguments = ["-f", str(task), "--agents", str(NODES), "--rounds", str(3 * len(FAULTS))]
    for number, fault in enumerate(FAULTS):
        arguments += ["--fault", f"{fault} from={number * SLOT_S} to={number * SLOT_S + 2 * ROUND_S}"]
    run = run_lab(*arguments, logs=tmp_path, timeout_s=SLOT_S * len(FAULTS) + 180)
    rounds = {r["round"]: r for r in run.rounds("netpatrol/matrix")}
    outcomes = [outcome(fault, number, rounds) for number, fault in enumerate(FAULTS)]
    for told in outcomes:
        print(
            f"{told.fault:50} exact in {told.exact_in or '-'}; fit rounds {told.fit}; {[sorted(n) for n in told.named]}"
        )
    print(f"named exactly: {sum(o.exact_in > 0 for o in outcomes)} of {len(outcomes)}")
    strangers = false_names(outcomes, rounds)
    print("\n".join(strangers))
    told_of = [o for o in outcomes if o.fit]
    assert sum(o.exact_in > 0 for o in told_of) >= len(told_of) - 1
    assert strangers == []
