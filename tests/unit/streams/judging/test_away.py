"""An agent that is stopped, dies or is replaced in mid-round: no failure of others, no loss, and never green."""

from typing import Any

import pytest

from streams.judging.pair_table import PairTable
from streams.judging.trust import Fitness
from streams.judging.verdict import Facts, judge
from tests.unit.streams.judging.mesh import START_US, accounts, line, nodes, scheduled, table
from topics.round_verdicts import RoundVerdict

STOPPED = {"stored": 100, "declared_missing": 200, "cause": "agent died: it was stopped", "state": "gone"}
UNHEARD = STOPPED | {"cause": "agent died: no report for 3 intervals of 5 s"}
BEGAN_AGAIN = {"stored": 250, "declared_missing": 50, "cause": "agent died"}
REPLACED = {"incarnations": 2}
MOVED = {"replaced": True}
FAREWELL = {"stored": 250, "unsent": 50, "unsent_causes": {"agent_stopped": 50}}
GOOD: dict[str, Any] = {}
LOST = {"failed": {"timeout": 60}, "packets_lost": 60}


def others(*, elsewhere: dict[str, Any] = GOOD, **to_node_4: Any) -> PairTable:
    """A mesh of four; requests to node-4 ended as given, those from node-1 to node-2 as `elsewhere` says."""
    lines = []
    for src in nodes(4):
        for dst in nodes(4):
            if src != dst:
                ended = to_node_4 if dst == "node-4" else elsewhere if (src, dst) == ("node-1", "node-2") else {}
                lines.append(line(src, dst, **ended))
    return table(lines)


def verdict(pairs: PairTable, account: dict[str, Any]) -> RoundVerdict:
    fit = [Fitness(agent=n, node=n) for n in nodes(4)]
    facts = Facts(round=scheduled(count=4), accounts=accounts(4, node_4=account), fitness=fit, final=True)
    return judge(facts=facts, pairs=pairs, revision=1, at_us=START_US)


@pytest.mark.parametrize(
    ("account", "ended"),
    [
        (STOPPED, LOST),
        (STOPPED, {"failed": {"refused": 60}}),
        (UNHEARD, {"failed": {"refused": 60}}),
        (BEGAN_AGAIN, {"failed": {"refused": 30, "target_gone": 20}}),
        (REPLACED, {"failed": {"timeout": 20, "wrong_peer": 40}, "packets_lost": 20}),
        (MOVED, {"failed": {"timeout": 90, "unreachable": 10}, "packets_lost": 90}),
        (FAREWELL, LOST),
        (GOOD, {"failed": {"target_gone": 20, "timeout": 10}, "packets_lost": 10}),
    ],
)
def test_who_was_away_fails_nobody_and_loses_nothing(account: dict[str, Any], ended: dict[str, Any]) -> None:
    made = verdict(others(**ended), account)
    assert made.verdict == "unknown", made.why
    assert "to agents that were away failed (node-4)" in made.why
    assert made.failed_nodes == (), "what is missing of its own share is not reported"
    assert set(made.not_reported_nodes) <= {"node-4"}
    assert made.loss.lost == 0
    assert [f for f in made.findings if f.kind != "agent_dead"] == []
    assert made.requests.failed == 3 * sum(ended["failed"].values()), "they are counted as they ended"


def test_an_agent_that_said_it_stops_is_no_finding() -> None:
    made = verdict(others(**LOST), STOPPED)
    assert (made.findings, made.not_reported_nodes) == ((), ("node-4",))
    assert "1 agent went away in the round: node-4 (agent died: it was stopped)" in made.why


def test_a_failure_among_those_who_were_there_still_fails_the_round() -> None:
    made = verdict(others(elsewhere=LOST, failed={"refused": 60}), STOPPED)
    assert made.verdict == "fail"
    assert made.failed_nodes == ("node-1",)
    assert made.loss.lost == 60
    assert [(f.element, f.direction) for f in made.findings] == [("node-1>node-2", "pair")]


def test_the_pairs_that_are_named_are_those_that_failed_the_round() -> None:
    made = verdict(others(elsewhere={"failed": {"timeout": 10}}, failed={"refused": 60}), STOPPED)
    assert "1 of 12 pairs below the success rate asked (100 %): node-1 → node-2 http" in made.why


@pytest.mark.parametrize("ended", [LOST, {"failed": {"timeout": 100}, "packets_lost": 100}])
def test_failures_alone_excuse_nobody(ended: dict[str, Any]) -> None:
    """Where nothing but lost requests speaks of a node it may be the network: the round fails."""
    made = verdict(others(**ended), GOOD)
    assert made.verdict == "fail"
    assert made.loss.lost == 3 * ended["packets_lost"]


def test_a_node_from_which_nothing_came_back_is_no_agent_that_went_away() -> None:
    dead = UNHEARD | {"stored": 0, "declared_missing": 300}
    made = verdict(others(failed={"timeout": 100}, packets_lost=100), dead)
    assert made.verdict == "fail"
    assert [f.kind for f in made.findings] == ["node_dead"]
