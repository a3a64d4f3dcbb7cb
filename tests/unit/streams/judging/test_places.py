"""Elements wider than a node, and how far a fault reaches within one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from streams.judging.localise import localise
from streams.judging.pair_table import PairTable
from streams.judging.served import COUNTS, Served
from tests.unit.streams.judging.mesh import START_US, full_mesh, line, nodes, table
from topics.round_verdicts import Finding
from topics.task_rounds import FULL_SIZE

Lose = Callable[..., float]


def rack_of(node: str) -> int:
    return (int(node.removeprefix("node-")) - 1) // 3


def zone_of(node: str) -> int:
    return rack_of(node) % 3


def mesh(lose: Lose, *, count: int = 18, sizes: tuple[int, ...] = (0,), each: int = 100, seed: int = 1) -> PairTable:
    """Datagrams among 18 nodes, three to a rack, two racks to a zone; both ends count. `lose(src, dst, size)`."""
    rng = np.random.default_rng(seed)
    rows, counts = [], {}
    for src in nodes(count):
        for dst in nodes(count):
            for size in sizes if src != dst else ():
                gone = int(rng.binomial(each, lose(src, dst, size)))
                lost_back = int(rng.binomial(each - gone, lose(dst, src, size)))
                failed = {"timeout": gone + lost_back} if gone + lost_back else {}
                made = line(src, dst, n=each, failed=failed, proto="udp", packets_sent=each, size=size)
                made |= {"packets_lost": gone + lost_back, "ports": 4}
                made |= {
                    f"{end}_{what}": f"{what[0]}{of(node)}"
                    for end, node in (("src", src), ("dst", dst))
                    for what, of in (("rack", rack_of), ("zone", zone_of))
                }
                rows.append(made)
                told = {"received": each - gone, "sent": 0, "lost": 0, "synack_lost": 0, "missing": 0}
                key = (src, f"to {dst}", dst, dst, "udp", "pod", size)
                counts[key] = tuple(told[name] for name in COUNTS)
    return replace(table(rows), served=Served.of(counts))


def found(pairs: PairTable) -> list[Finding]:
    return list(localise(pairs=pairs, round_id=7, start_us=START_US))


def places(pairs: PairTable) -> list[tuple[str, str]]:
    return [(f.element, f.direction) for f in found(pairs)]


CASES: list[tuple[str, str, Lose]] = [
    ("rack r2", "ingress", lambda src, dst, _: rack_of(dst) == 2 != rack_of(src)),
    ("rack r4", "egress", lambda src, dst, _: rack_of(src) == 4 != rack_of(dst)),
    ("zone z1", "ingress", lambda src, dst, _: zone_of(dst) == 1 != zone_of(src)),
    ("zone z1", "egress", lambda src, dst, _: zone_of(src) == 1 != zone_of(dst)),
    ("zone z0>zone z2", "pair", lambda src, dst, _: (zone_of(src), zone_of(dst)) == (0, 2)),
    ("node-5", "ingress", lambda src, dst, _: dst == "node-5"),
    ("node-5", "egress", lambda src, dst, _: src == "node-5"),
]


@pytest.mark.parametrize(("element", "direction", "met"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_a_fault_of_two_percent_is_named_by_place_and_direction(element: str, direction: str, met: Lose) -> None:
    pairs = mesh(lambda src, dst, size: 0.02 if met(src, dst, size) else 1e-5)
    assert places(pairs) == [(element, direction)]


def test_three_faults_of_different_kinds_at_once() -> None:
    def lose(src: str, dst: str, _: int) -> float:
        rack = rack_of(src) == 4 != rack_of(dst)
        return 0.05 if rack or dst == "node-2" or src == "node-9" else 1e-5

    assert set(places(mesh(lose))) == {("rack r4", "egress"), ("node-2", "ingress"), ("node-9", "egress")}


def test_the_query_behind_a_rack_names_it() -> None:
    (finding,) = found(mesh(lambda src, dst, _: 0.03 if rack_of(dst) == 2 != rack_of(src) else 0.0))
    assert "'r2' IN (src_rack, dst_rack) AND src_rack != dst_rack" in finding.evidence_sql
    assert finding.sentence.startswith("rack r2 loses ")
    assert "of what comes into it" in finding.sentence


def test_a_hole_in_the_mtu_is_named_by_size_with_its_direction() -> None:
    sizes = (0, FULL_SIZE)
    pairs = mesh(lambda src, dst, size: float(dst == "node-5" and size == FULL_SIZE), sizes=sizes, count=9, each=20)
    (finding,) = found(pairs)
    assert (finding.element, finding.direction, finding.scope) == ("node-5", "ingress", "size full")
    assert finding.sentence.startswith("node-5 loses 100.0 % [")
    assert "packets of full size only" in finding.sentence
    assert finding.sentence.endswith("; not what it sends; not smaller packets")


def test_a_size_that_is_lost_everywhere_is_the_size_s_fault() -> None:
    pairs = mesh(lambda src, dst, size: 0.03 if size == 1400 else 0.0, sizes=(0, 1400), count=9)
    (finding,) = found(pairs)
    assert (finding.element, finding.direction) == ("size 1400 bytes", "size")
    assert finding.evidence_sql.count("size = 1400") == 1


def one_protocol(met: str) -> PairTable:
    rows = []
    for proto in ("http", "udp"):
        for src in nodes(5):
            for dst in nodes(5):
                if src != dst:
                    lost = 10 if (dst, proto) == ("node-3", met) else 0
                    rows.append(line(src, dst, proto=proto, packets_lost=lost))
    return table(rows)


def test_one_protocol_of_a_node_is_said_to_be_the_only_one() -> None:
    (finding,) = found(one_protocol("http"))
    assert (finding.element, finding.direction, finding.scope) == ("node-3", "ingress", "http")
    assert "(HTTP only)" in finding.sentence
    assert finding.sentence.endswith("; not UDP")
    assert (finding.loss.sent, finding.loss.lost) == (800, 40)


def tuples(*, dead: bool, seed: int = 3) -> PairTable:
    """node-3 loses a sixteenth of what it receives: by source port, or packet by packet. 16 ports a line, 5 packets."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for src in nodes(6):
        for dst in nodes(6):
            if src == dst:
                continue
            lost = np.zeros(16, dtype=int)
            if dst == "node-3":
                lost = 5 * (np.arange(16) == rng.integers(16)) if dead else rng.binomial(5, 1 / 16, 16)
            bad = [(30_000 + i, int(n)) for i, n in enumerate(lost) if n]
            gone = int(lost.sum())
            made = line(src, dst, n=80, proto="udp", failed={"timeout": gone} if gone else {}, packets_sent=80)
            rows.append(made | {"packets_lost": gone, "ports": 16, "bad_ports": bad})
    return table(rows)


@pytest.mark.parametrize("seed", range(6))
def test_a_hole_for_some_tuples_is_told_from_random_loss(seed: int) -> None:
    (dependent,) = found(tuples(dead=True, seed=seed))
    assert dependent.element == "node-3"
    assert dependent.scope == "tuples"
    assert "it depends on the 5-tuple" in dependent.sentence
    (random,) = found(tuples(dead=False, seed=seed))
    assert (random.element, random.scope) == ("node-3", "")
    assert "5-tuple" not in random.sentence


def few_tuples(*, sizes: tuple[int, ...]) -> PairTable:
    """node-3 loses five whole ports of 160, one of each peer, by chance all of them of the larger of two sizes."""
    rows: list[dict[str, Any]] = []
    for src in nodes(6):
        for dst, size in ((d, s) for d in nodes(6) if d != src for s in sizes):
            gone = (
                4 if dst == "node-3" and size == max(sizes) and src in {"node-1", "node-2", "node-4", "node-5"} else 0
            )
            made = line(src, dst, n=64, proto="udp", failed={"timeout": gone} if gone else {}, packets_sent=64)
            rows.append(
                made | {"size": size, "packets_lost": gone, "ports": 16, "bad_ports": [(30_007, 4)] * (gone > 0)}
            )
    return table(rows)


def test_a_few_lost_tuples_that_are_by_chance_of_one_size_are_not_said_to_be_of_that_size() -> None:
    (told,) = found(few_tuples(sizes=(0, 1472)))
    assert (told.element, told.scope) == ("node-3", "tuples")
    assert "smaller packets" not in told.sentence


def test_a_finding_says_what_it_does_not_touch() -> None:
    def lose(src: str, dst: str, size: int) -> float:
        return 1.0 if dst == "node-5" and size == FULL_SIZE else 0.0

    (told,) = found(mesh(lose, sizes=(0, FULL_SIZE)))
    assert (told.element, told.direction, told.spared) == ("node-5", "ingress", ("what it sends", "smaller packets"))
    assert told.sentence.endswith("; not what it sends; not smaller packets")


@pytest.mark.parametrize("host", [0.0, 0.3])
def test_the_host_network_is_spared_where_it_was_measured_and_loses_nothing(host: float) -> None:
    pods = full_mesh(12, lambda src, dst: 0.3 * (dst == "node-5"))
    hosts = full_mesh(12, lambda src, dst: host * (dst == "node-5"), layer="host")
    (told,) = found(table([*pods.table.to_pylist(), *hosts.table.to_pylist()]))
    assert ("host network" in told.spared) == (host == 0.0)
    assert ("not host network" in told.sentence) == (host == 0.0)
