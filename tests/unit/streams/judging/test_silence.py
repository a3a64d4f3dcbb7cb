"""Whose silence it is: node, agent, or the way to Kafka. And a target that fails for everybody."""

from typing import Any

from streams.judging.pair_table import PairTable
from streams.judging.trust import Fitness
from streams.judging.verdict import Facts, judge
from tests.unit.streams.judging.mesh import START_US, accounts, line, nodes, scheduled, table
from topics.round_verdicts import Finding, RoundVerdict

SILENT = {"stored": 0, "declared_missing": 300, "cause": "no report for 15 s", "state": "silent"}


def others(*, layers: tuple[str, ...] = ("pod",), **to_silent: Any) -> PairTable:
    """A mesh of four whose node-4 tells nothing; the others' requests to it ended as given."""
    lines = []
    for src in nodes(3):
        for dst in nodes(4):
            for layer in layers if src != dst else ():
                lines.append(line(src, dst, layer=layer, **(to_silent if dst == "node-4" else {})))
    return table(lines)


def verdict(pairs: PairTable, **changes: Any) -> RoundVerdict:
    fit = [Fitness(agent=n, node=n) for n in nodes(3)]
    values: dict[str, Any] = {
        **{"round": scheduled(count=4), "accounts": accounts(4, node_4=SILENT), "fitness": fit, "final": True},
    }
    return judge(facts=Facts(**values | changes), pairs=pairs, revision=1, at_us=START_US)


def only(pairs: PairTable, **changes: Any) -> Finding:
    (finding,) = verdict(pairs, **changes).findings
    return finding


def test_a_node_that_answers_is_cut_off_from_kafka() -> None:
    finding = only(others())
    assert (finding.element, finding.direction, finding.kind) == ("node-4", "silent", "kafka_cut")
    assert "answers its peers (300 of 300 requests of 3 peers) but its records do not come" in finding.sentence


def test_a_host_that_refuses_has_a_dead_agent() -> None:
    finding = only(others(failed={"refused": 100}, packets_sent=100))
    assert finding.kind == "agent_dead"
    assert "node-4 is there but its agent does not answer (0 answered, 300 refused or reset" in finding.sentence


def test_a_node_from_which_nothing_comes_back_is_dead_and_blamed_once() -> None:
    finding = only(others(failed={"timeout": 100}, packets_lost=100, packets_sent=100))
    assert finding.kind == "node_dead"
    assert "the node is dead or cut off from all of them" in finding.sentence
    assert (finding.loss.sent, finding.loss.lost) == (300, 300)


def test_of_too_few_probes_nothing_is_claimed() -> None:
    lines = [line(src, dst) for src in nodes(3) for dst in nodes(3) if src != dst]
    finding = only(table(lines))
    assert (finding.kind, finding.confidence) == ("silent", 0.0)
    assert "too few probes" in finding.sentence


def test_a_provisional_verdict_does_not_take_the_late_for_silent() -> None:
    assert verdict(others(), final=False).findings == ()


def test_a_target_that_fails_for_all_is_one_finding_that_names_it() -> None:
    lines = [line(src, dst) for src in nodes(4) for dst in nodes(4) if src != dst]
    lines += [line(src, "shop", dst_node="", layer="url", failed={"http_error": 40}) for src in nodes(4)]
    finding = only(table(lines), accounts=accounts(4))
    assert (finding.element, finding.direction, finding.kind, finding.scope) == (
        "shop",
        "server",
        "errors",
        "http_error",
    )
    assert finding.sentence.startswith("shop answers with an HTTP error (160 times): 40.0 % [")
    assert "from 4 of 4 sources" in finding.sentence
    assert "no packet loss" in finding.sentence


def test_a_source_whose_requests_fail_everywhere_is_its_own_side() -> None:
    targets = ("shop", "cart", "till")
    lines = [
        line(src, dst, dst_node="", layer="url", proto="https", failed={"tls_error": 50} if src == "node-2" else {})
        for src in nodes(4)
        for dst in targets
    ]
    finding = only(table(lines), accounts=accounts(4))
    assert (finding.element, finding.direction, finding.kind) == ("node-2", "client", "errors")
    assert "requests of node-2 to 3 of 3 targets fail, those of others do not" in finding.sentence


def test_no_finding_rests_on_an_agent_that_was_not_fit() -> None:
    """A starved instrument forges losses on all it touches: none is the network's."""
    forged = [
        line(
            src,
            dst,
            failed={"timeout": 20} if "node-2" in (src, dst) else {},
            packets_lost=20 * ("node-2" in (src, dst)),
        )
        for src in nodes(5)
        for dst in nodes(5)
        if src != dst
    ]
    weak = Fitness(agent="node-2", node="node-2", throttled_us=9_000_000, duration_us=10_000_000)
    fit = [Fitness(agent=n, node=n) for n in nodes(5) if n != "node-2"]
    made = verdict(table(forged), accounts=accounts(5), fitness=[weak, *fit])
    assert (made.trust.grade, made.findings) == ("degraded", ())
    # The same from fit agents is a finding.
    assert verdict(table(forged), accounts=accounts(5), fitness=fit).findings
