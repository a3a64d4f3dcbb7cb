"""Both ends' accounts as loss by direction, and what that does for naming the place."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from streams.judging.directions import Directions, directions, lacking
from streams.judging.localise import localise
from streams.judging.pair_table import PairTable
from streams.judging.served import Served
from streams.judging.summary import packet_loss
from tests.unit.streams.judging.mesh import full_mesh, line, nodes, served_line, served_mesh, table


def one(served: Served | None, **changes: Any) -> Directions:
    return directions(replace(table([line("node-1", "node-2", **changes)]), served=served))


def test_each_end_counts_its_own_way() -> None:
    ways = one(Served.of(served_line("node-1", "node-2", lost=5)), packets_lost=3)
    assert ways.known.tolist() == [True]
    assert (ways.forward_sent[0], ways.forward_lost[0]) == (200, 3)
    assert (ways.reverse_sent[0], ways.reverse_lost[0]) == (200, 5)
    loss = packet_loss(ways)
    assert (loss.ends, loss.total.sent, loss.total.lost) == ("both", 400, 8)


def test_a_lost_syn_ack_is_no_loss_on_the_way_there() -> None:
    ways = one(Served.of(served_line("node-1", "node-2", lost=1, synack_lost=1)), packets_lost=1)
    assert (ways.forward_lost[0], ways.reverse_lost[0]) == (0, 1)


def test_a_report_that_came_late_takes_a_loss_back_and_no_more() -> None:
    assert one(Served.of(served_line("node-1", "node-2", lost=-1))).reverse_lost[0] == 0


def test_a_connection_that_never_came_about_has_no_direction_but_is_lost() -> None:
    served = Served.of(served_line("node-1", "node-2", received=96))
    changes = {"failed": {"timeout": 4}, "packets_lost": 4, "unopened": 4, "unopened_sent": 4, "unopened_lost": 4}
    ways = one(served, **changes)
    assert (ways.forward_sent[0], ways.forward_lost[0], ways.reverse_lost[0]) == (196, 0, 0)
    assert packet_loss(ways).total.lost == 4


def test_datagrams_are_lost_on_the_way_there_when_they_did_not_come() -> None:
    key = ("node-1", "to node-2", "node-2", "node-2", "udp", "pod", 0)
    changes = {"proto": "udp", "packets_sent": 100, "packets_lost": 7, "failed": {"timeout": 7}}
    ways = one(Served.of({key: (97, 0, 0, 0, 0)}), **changes)
    assert (ways.forward_sent[0], ways.forward_lost[0]) == (100, 3)
    assert (ways.reverse_sent[0], ways.reverse_lost[0]) == (97, 4)
    # An answer without a receipt: receipts are missing, and the counts would be wrong.
    assert not one(Served.of({key: (97, 0, 0, 0, 1)}), **changes).known[0]


@pytest.mark.parametrize("served", [None, Served.of({}), Served.of(served_line("node-1", "node-2", received=9))])
def test_without_all_receipts_there_is_no_direction_and_nothing_else_changes(served: Served | None) -> None:
    ways = one(served, packets_lost=3)
    assert ways.known.tolist() == [False]
    loss = packet_loss(ways)
    assert (loss.ends, loss.total.sent, loss.total.lost, loss.forward) == ("client", 200, 3, None)


def test_receipts_are_missed_where_our_own_agents_answered_and_nowhere_else() -> None:
    pairs = table(
        [line("node-1", "node-2"), line("node-1", "url", dst_node=""), line("node-1", "node-2", proto="icmp")]
    )
    assert lacking(pairs)
    assert not lacking(replace(pairs, served=Served.of(served_line("node-1", "node-2"))))


def test_a_node_that_answered_nobody_is_known_only_where_it_told_of_others() -> None:
    rows = [line("node-1", "node-2", failed={"timeout": 100}), line("node-3", "node-2")]
    served = Served.of(served_line("node-3", "node-2"))
    assert directions(replace(table(rows), served=served)).known.tolist() == [True, True]
    assert directions(replace(table(rows[:1]), served=served)).known.tolist() == [False]


def both_ends(count: int, lose: Any, rng: Any, *, n: int) -> PairTable:
    """A TCP mesh of which each packet is lost with the probability of its way, `lose(src, dst)`."""
    rows, counts = [], {}
    for src in nodes(count):
        for dst in nodes(count):
            if src != dst:
                rows.append(line(src, dst, n=n, packets_sent=n, packets_lost=int(rng.binomial(n, lose(src, dst)))))
                back = int(rng.binomial(n, lose(dst, src)))
                counts |= served_line(src, dst, received=n, sent=n, lost=back)
    return replace(table(rows), served=Served.of(counts))


def direction_found(pairs: PairTable) -> list[tuple[str, str]]:
    return [(f.element, f.direction) for f in localise(pairs=pairs, round_id=7, start_us=1_790_000_000_000_000)]


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_with_both_ends_the_direction_of_two_percent_is_right(direction: str) -> None:
    """20 rounds of 5 nodes, 100 requests a pair: 98 in 100 must name node and direction and nothing else."""
    end = 1 if direction == "ingress" else 0
    right = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = direction_found(both_ends(5, lambda *way: 0.02 if way[end] == "node-3" else 2e-5, rng, n=100))
        right += found == [("node-3", direction)]
    assert right >= 18


def test_a_node_that_loses_both_ways_is_named_for_each() -> None:
    pairs = both_ends(5, lambda src, dst: 0.03 if "node-3" in (src, dst) else 0.0, np.random.default_rng(1), n=400)
    assert set(direction_found(pairs)) == {("node-3", "ingress"), ("node-3", "egress")}


def test_two_nodes_one_each_way_are_both_named() -> None:
    def lose(src: str, dst: str) -> float:
        return 0.03 if dst == "node-2" or src == "node-5" else 0.0

    found = direction_found(both_ends(6, lose, np.random.default_rng(2), n=400))
    assert set(found) == {("node-2", "ingress"), ("node-5", "egress")}


def test_a_sound_mesh_with_both_ends_has_no_finding() -> None:
    assert direction_found(replace(full_mesh(5), served=served_mesh(5))) == []


def test_the_query_behind_a_finding_shows_both_ends() -> None:
    pairs = replace(full_mesh(5), served=served_mesh(5, lambda src, dst: 0.05 if src == "node-3" else 0.0))
    (finding,) = localise(pairs=pairs, round_id=7, start_us=1_790_000_000_000_000)
    assert (finding.element, finding.direction) == ("node-3", "egress")
    assert "FROM v_loss_direction WHERE round_at" in finding.evidence_sql
