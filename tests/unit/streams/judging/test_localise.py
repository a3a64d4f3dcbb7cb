from typing import Any

import numpy as np
import pytest

from streams.judging.likelihood import gains
from streams.judging.localise import localise
from streams.judging.pair_table import PairTable
from tests.unit.streams.judging.mesh import full_mesh, line, nodes, table
from topics.round_verdicts import Finding


def found(pairs: PairTable) -> list[Finding]:
    return list(localise(pairs=pairs, round_id=7, start_us=1_790_000_000_000_000))


def places(pairs: PairTable) -> list[tuple[str, str]]:
    return [(f.element, f.direction) for f in found(pairs)]


def ingress(node: str, share: float, echo: float = 0.0) -> Any:
    return lambda src, dst: share if dst == node else echo if src == node else 0.0


def test_a_sound_mesh_has_no_finding() -> None:
    assert found(full_mesh(5)) == []
    assert found(table([])) == []


def test_what_a_node_receives() -> None:
    finding = found(full_mesh(5, ingress("node-3", 0.02)))[0]
    assert (finding.element, finding.direction, finding.kind) == ("node-3", "ingress", "loss")
    assert finding.sentence == (
        "node-3 loses 2.0 % [1.2–3.2] of what it receives: 4 of 4 peers, HTTP, since 14:13 UTC; not what it sends"
    )
    assert (finding.loss.sent, finding.loss.lost) == (800, 16)
    assert finding.confidence > 0.99


def test_what_a_node_sends() -> None:
    pairs = full_mesh(5, lambda src, dst: 0.03 if src == "node-2" else 0.0)
    assert places(pairs) == [("node-2", "egress")]
    assert "of what it sends: 4 of 4 peers, HTTP, since 14:13 UTC; not what it receives" in found(pairs)[0].sentence


def test_lost_answers_are_the_echo_of_the_same_fault() -> None:
    pairs = full_mesh(5, ingress("node-3", 0.06, echo=0.01))
    assert places(pairs) == [("node-3", "ingress")]
    assert "what it sends only 1.0 %" in found(pairs)[0].sentence


def test_where_both_ways_lose_alike_the_direction_stays_open() -> None:
    pairs = full_mesh(5, ingress("node-3", 0.03, echo=0.03))
    assert places(pairs) == [("node-3", "both")]
    assert "what it sends: 3.0 %, too close to tell the direction" in found(pairs)[0].sentence


def test_nine_lost_against_two_is_enough_to_tell_the_direction_and_four_against_two_is_not() -> None:
    assert places(full_mesh(5, ingress("node-3", 9 / 800, echo=2 / 800), n=400)) == [("node-3", "ingress")]
    few = full_mesh(5, lambda src, dst: 0.02 if dst == "node-3" else 0.01 if src == "node-3" else 0.0, n=50)
    assert places(few) == [("node-3", "both")]


def test_a_pair_that_fails_both_ways_alike_is_named_without_a_direction() -> None:
    def dead(src: str, dst: str) -> float:
        return 0.5 if {src, dst} == {"node-1", "node-4"} else 0.0

    (finding,) = found(full_mesh(5, dead))
    assert (finding.element, finding.direction) == ("node-1<>node-4", "both")
    assert finding.sentence.startswith("between node-1 and node-4, 50.0 % [")
    assert "too close to tell the direction" in finding.sentence
    assert places(full_mesh(5, lambda src, dst: 0.5 if (src, dst) == ("node-4", "node-1") else 0.0)) == [
        ("node-4>node-1", "pair")
    ]


def test_datagrams_alone_give_no_direction() -> None:
    pairs = full_mesh(5, ingress("node-3", 0.05, echo=0.01), proto="udp")
    assert places(pairs) == [("node-3", "both")]


def test_a_single_pair_is_not_blamed_on_its_nodes() -> None:
    pairs = full_mesh(5, lambda src, dst: 0.05 if (src, dst) == ("node-1", "node-4") else 0.0)
    assert places(pairs) == [("node-1>node-4", "pair")]
    assert found(pairs)[0].sentence.startswith("node-1 → node-4 loses 5.0 % [")


def test_one_source_cannot_tell_a_node_from_a_pair() -> None:
    lines = [line("node-1", dst, packets_lost=10 if dst == "node-2" else 0) for dst in nodes(5)[1:]]
    assert places(table(lines)) == [("node-1>node-2", "pair")]


def test_two_nodes_at_once() -> None:
    share = {"node-2": 0.04, "node-7": 0.02}
    pairs = full_mesh(12, lambda src, dst: share.get(dst, 0.0))
    assert places(pairs) == [("node-2", "ingress"), ("node-7", "ingress")]


def test_a_node_cut_off_shows_by_its_failed_requests() -> None:
    lines = [
        line(src, dst, failed={"timeout": 100}, packets_sent=0) if "node-3" in (src, dst) else line(src, dst)
        for src in nodes(5)
        for dst in nodes(5)
        if src != dst
    ]
    assert places(table(lines)) == [("node-3", "both")]
    assert found(table(lines))[0].loss.rate == 1.0


def test_a_refused_port_or_another_peer_is_no_loss() -> None:
    lines = [
        line(src, dst, failed={"refused": 60, "wrong_peer": 40}) if dst == "node-3" else line(src, dst)
        for src in nodes(5)
        for dst in nodes(5)
        if src != dst
    ]
    assert found(table(lines)) == []


def test_two_lost_packets_are_no_finding() -> None:
    assert found(full_mesh(5, lambda src, dst: 0.01 if (src, dst) == ("node-1", "node-2") else 0.0)) == []


def test_a_loss_all_over_is_no_node_s_fault() -> None:
    assert found(full_mesh(8, lambda src, dst: 0.02)) == []


def test_one_layer_among_several() -> None:
    lines = [
        line(src, dst, layer=layer, packets_lost=8 if layer == "node_port" else 0)
        for layer in ("pod", "node_port")
        for src in nodes(4)
        for dst in nodes(4)
        if src != dst
    ]
    assert places(table(lines)) == [("http/node_port", "layer")]


def test_the_query_behind_a_finding_names_round_and_place() -> None:
    sql = found(full_mesh(5, ingress("node-3", 0.02)))[0].evidence_sql
    assert "FROM v_pair_round WHERE round_at = fromUnixTimestamp64Milli(1790000000000, 'UTC') AND round_id = 7" in sql
    assert "if(dst_node = '', dst, dst_node) = 'node-3'" in sql


def test_names_are_quoted_in_the_query() -> None:
    lines = [line(src, "it's", packets_lost=9, dst_node="") for src in nodes(3)]
    lines += [line(src, "fine") for src in nodes(3)]
    assert r"= 'it\'s'" in found(table(lines))[0].evidence_sql


@pytest.mark.parametrize("seed", range(8))
def test_random_loss_of_two_percent_is_found_and_nothing_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = full_mesh(5, lambda src, dst: rng.binomial(200, 0.02 if dst == "node-3" else 2e-5) / 200)
    assert places(pairs) == [("node-3", "ingress")]


def test_false_findings_are_rare_at_the_floor() -> None:
    rng = np.random.default_rng(1)
    rounds = [full_mesh(5, lambda src, dst: rng.binomial(200, 1e-4) / 200) for _ in range(40)]
    assert sum(bool(found(pairs)) for pairs in rounds) == 0


def test_the_gain_is_the_likelihood_ratio() -> None:
    gain = gains(np.array([2.0, 0.0]), np.array([100.0, 100.0]), np.full(2, 0.001))
    expected = 2 * np.log(0.02 / 0.001) + 98 * np.log(0.98 / 0.999)
    assert gain.tolist() == pytest.approx([expected, 0.0])
