"""What is to be expected of chance is reckoned by the judge's own rule."""

from bench.chance import alarmed, expected, named
from bench.simulator import Network

PACKETS, NODES = 400, 5000


def test_a_node_is_named_by_the_counts_that_the_judge_would_name_it_by() -> None:
    rule = {(5, 0, 0): (1, 5), (4, 0, 0): None, (3, 3, 0): (2, 6), (2, 2, 2): (3, 6), (2, 2, 1): None}
    assert {counts: named(counts, packets=PACKETS, nodes=NODES) for counts in rule} == rule
    # What the round at hand speaks against is over.
    assert named((0, 5, 3), packets=PACKETS, nodes=NODES) is None


def test_an_alarm_takes_two_rounds_and_more_than_what_is_named_by() -> None:
    assert not alarmed((2, 2, 2, 0), packets=PACKETS, nodes=NODES)
    assert not alarmed((1, 2, 2, 2), packets=PACKETS, nodes=NODES)
    assert alarmed((5, 5, 4, 0), packets=PACKETS, nodes=NODES)


def test_a_worse_background_names_more_and_alarms_stay_rarer() -> None:
    sound, unequal = (expected(Network(kind=kind), rounds=43_200) for kind in ("independent", "unequal"))
    assert 0.0 < sound[1] < 0.01 < sound[0] < 5.0
    assert sound[0] < unequal[0]
    assert unequal[1] < 0.1
