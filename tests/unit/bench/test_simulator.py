"""The simulated network says the same as a pair table would, and the judge finds in it what was put in."""

from dataclasses import replace

import numpy as np
import pytest

from bench.simulator import Agents, Background, Fault, Network, round_of
from streams.judging.directions import directions
from streams.judging.evidence import Evidence, evidence
from streams.judging.localise import Located, locate
from streams.judging.memory import Memory
from streams.judging.served import COUNTS, Served
from tests.unit.streams.judging.mesh import START_US, line, table

SMALL = Network(nodes=200, per_rack=10, degree=10, background=1e-4)


def watch(
    network: Network, *, rounds: int, seed: int, faults: list[Fault], agents: Agents | None = None
) -> list[Located]:
    rng, told = np.random.default_rng(seed), list[Located]()
    for number in range(1, rounds + 1):
        seen = round_of(network, number=number, rng=rng, faults=faults, agents=agents or Agents())
        memories: list[Memory] = [t.memory for t in told[-2:]][::-1]
        told.append(locate(seen, round_id=number, number=number, start_us=START_US, memories=memories))
    return told


def lines_of(seen: Evidence) -> list[tuple[object, ...]]:
    names = np.array(seen.nodes)
    racks = np.array([*seen.racks, ""])[seen.rack]
    columns = (names[seen.src], names[seen.dst], seen.tried, seen.lost, seen.exact, seen.forward, racks[seen.src])
    return sorted(zip(*(c.tolist() for c in columns), strict=True))


def test_its_evidence_is_what_the_judge_makes_of_the_same_pair_table() -> None:
    network = Network(nodes=12, per_rack=3, degree=4, packets=20, background=0.02)
    seen = round_of(network, number=3, rng=np.random.default_rng(5))
    there = network.nodes * network.degree
    rows, counts = [], {}
    for i in range(there):
        src, dst = seen.nodes[seen.src[i]], seen.nodes[seen.dst[i]]
        tried, gone, back = (int(x) for x in (seen.tried[i], seen.lost[i], seen.lost[there + i]))
        made = line(src, dst, n=tried, proto="udp", failed={"timeout": gone + back} if gone + back else {})
        made |= {"packets_sent": tried, "packets_lost": gone + back}
        for end, node in (("src", seen.src[i]), ("dst", seen.dst[i])):
            made |= {f"{end}_rack": seen.racks[seen.rack[node]], f"{end}_zone": seen.zones[seen.zone[node]]}
        rows.append(made)
        told = {"received": tried - gone, "sent": 0, "lost": 0, "synack_lost": 0, "missing": 0}
        counts[(src, f"to {dst}", dst, dst, "udp", "pod", 0)] = tuple(told[name] for name in COUNTS)
    pairs = replace(table(rows), served=Served.of(counts))
    assert float(seen.lost.sum()) > 10
    assert lines_of(evidence(pairs, directions(pairs))) == lines_of(seen)


def test_each_ordered_pair_comes_once_in_a_cycle() -> None:
    rng = np.random.default_rng(1)
    codes = [
        seen.src[:2000] * 1000 + seen.dst[:2000] for seen in (round_of(SMALL, number=n, rng=rng) for n in range(1, 20))
    ]
    assert len(np.unique(np.concatenate(codes))) == 19 * 2000


@pytest.mark.parametrize("kind", ["independent", "bursty", "unequal", "bursty and unequal"])
def test_the_background_is_as_large_as_said_and_raises_nothing(kind: Background) -> None:
    network = replace(SMALL, kind=kind)
    rng, lost, tried = np.random.default_rng(2), 0.0, 0.0
    for number in range(1, 20):
        seen = round_of(network, number=number, rng=rng)
        lost, tried = lost + float(seen.lost.sum()), tried + float(seen.tried.sum())
    assert 0.6e-4 < lost / tried < 1.5e-4
    assert [t.findings for t in watch(network, rounds=15, seed=4, faults=[])] == [()] * 15


FAULTS = [
    Fault(place="node", number=17, direction="ingress", rate=0.05),
    Fault(place="rack", number=4, direction="egress", rate=0.03),
    Fault(place="zone_pair", number=1, direction="pair", rate=0.03),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.place)
def test_a_fault_is_named_exactly(fault: Fault) -> None:
    for seed in range(3):
        told = watch(SMALL, rounds=2, seed=seed, faults=[fault])[-1]
        assert [(f.element, f.direction) for f in told.findings] == [SMALL.element(fault)]


def test_agents_that_forge_losses_or_tell_nothing_mislead_nobody() -> None:
    agents = Agents(silent=frozenset({3, 40}), throttled=frozenset({7, 90}))
    assert [t.findings for t in watch(SMALL, rounds=4, seed=1, faults=[], agents=agents)] == [()] * 4
    told = watch(SMALL, rounds=2, seed=2, faults=[FAULTS[0]], agents=agents)[-1]
    assert [(f.element, f.direction) for f in told.findings] == [("node-0017", "ingress")]
