"""The canary's own loss is told apart from the network's, and its absence is noticed."""

from typing import Any

import pytest

from streams.judging.canary import with_canary
from streams.judging.verdict import Facts, judge
from tests.unit.streams.judging.mesh import START_US, accounts, full_mesh, scheduled
from topics.round_verdicts import Finding, Loss, RoundVerdict
from topics.task_rounds import Canary, Expect

CANARY = Canary(src="node-1", dst="node-2", src_node="node-1", dst_node="node-2", share=0.2)


def finding(element: str = "node-1>node-2", rate: float = 0.21) -> Finding:
    loss = Loss(sent=100, lost=round(100 * rate), rate=rate, low=rate * 0.7, high=min(1.0, rate * 1.4))
    return Finding(element=element, direction="pair", kind="loss", sentence="lost", loss=loss, confidence=0.9)


def judged(lose: Any, canary: Canary | None = CANARY) -> RoundVerdict:
    round_ = scheduled(count=5, canary=canary, expect=Expect(success_rate=0.0))
    facts = Facts(round=round_, accounts=accounts(5), fitness=(), final=True, last_result_us=START_US)
    return judge(facts=facts, pairs=full_mesh(5, lose=lose), revision=1, at_us=START_US)


def test_a_round_says_that_its_canary_was_found_and_what_else_was() -> None:
    def lose(src: str, dst: str) -> float:
        return 0.2 if (src, dst) == ("node-1", "node-2") else 0.3 if dst == "node-4" else 0.0

    made = judged(lose)
    assert made.canary is not None
    assert made.canary.reported
    kinds = {(f.element, f.direction): f.kind for f in made.findings}
    assert kinds == {("node-1>node-2", "pair"): "canary", ("node-4", "ingress"): "loss"}
    assert judged(lose, None).canary is None
    assert all(f.kind == "loss" for f in judged(lose, None).findings)


def test_a_round_whose_canary_lost_nothing_says_so() -> None:
    made = judged(lambda src, dst: 0.0)
    assert made.canary is not None
    assert not made.canary.reported


@pytest.mark.parametrize(("rate", "kind"), [(0.21, "canary"), (0.15, "canary"), (0.9, "loss"), (0.03, "loss")])
def test_a_pair_that_loses_another_share_than_asked_is_at_fault_itself(rate: float, kind: str) -> None:
    (found,), seen = with_canary([finding(rate=rate)], CANARY)
    assert (found.kind, seen is not None and seen.reported) == (kind, True)
    assert ("nothing is lost on the network" in found.sentence) == (kind == "canary")


def test_the_pair_s_other_direction_and_other_kinds_are_not_the_canary() -> None:
    (found,), seen = with_canary([finding(element="node-2>node-1")], CANARY)
    assert (found.kind, seen is not None and seen.reported) == ("loss", False)
