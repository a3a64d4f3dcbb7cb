"""Shapes of rounds with real packets in which something was once named that was not at fault. Twelve nodes, a patrol by
UDP in two sizes and by TCP, both ends' accounts."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.simulator import Network, round_of
from streams.judging import memory
from streams.judging.directions import directions
from streams.judging.evidence import evidence
from streams.judging.localise import Located, locate
from streams.judging.pair_table import PairTable
from streams.judging.served import COUNTS, Served
from tests.unit.streams.judging.mesh import START_US, line, nodes, table
from topics.task_rounds import FULL_SIZE

REQUESTS, SEGMENTS = 12, 24
# Packets lost of one pair's line: on the way there, of the answers, and of requests that never had a connection.
Lost = tuple[int, int, int]
Lose = Callable[[str, str, str, int], Lost]
LINES = (("udp", 0), ("udp", FULL_SIZE), ("tcp", 0))


def patrol(lose: Lose) -> PairTable:
    """A round; `lose(src, dst, proto, size)`."""
    rows, counts = [], {}
    for src in nodes(12):
        for dst in nodes(12):
            for proto, size in LINES if src != dst else ():
                row, told = _udp(src, dst, size, lose) if proto == "udp" else _tcp(src, dst, lose)
                rows.append(row)
                counts[(src, f"to {dst}", dst, dst, proto, "pod", size)] = tuple(told[name] for name in COUNTS)
    return replace(table(rows), served=Served.of(counts))


def _udp(src: str, dst: str, size: int, lose: Lose) -> tuple[dict[str, Any], Mapping[str, int]]:
    there, back, _ = lose(src, dst, "udp", size)
    failed = {"timeout": there + back} if there + back else {}
    row = line(src, dst, n=REQUESTS, proto="udp", size=size, failed=failed, packets_sent=REQUESTS)
    told = {"received": REQUESTS - there, "sent": 0, "lost": 0, "synack_lost": 0, "missing": 0}
    return row | {"packets_lost": there + back}, told


def _tcp(src: str, dst: str, lose: Lose) -> tuple[dict[str, Any], Mapping[str, int]]:
    there, back, unopened = lose(src, dst, "tcp", 0)
    failed = {"timeout": unopened} if unopened else {}
    # Each request that had no connection sent its SYN twice.
    row = line(src, dst, n=REQUESTS, proto="tcp", failed=failed, packets_sent=SEGMENTS + there + 2 * unopened)
    row |= {"packets_lost": there + 2 * unopened, "unopened": unopened}
    row |= {"unopened_sent": 2 * unopened, "unopened_lost": 2 * unopened}
    told = {"received": REQUESTS - unopened, "sent": SEGMENTS + back, "lost": back, "synack_lost": 0, "missing": 0}
    return row, told


def rounds(*tables: PairTable) -> list[Located]:
    told: list[Located] = []
    for number, pairs in enumerate(tables, start=1):
        before = [t.memory for t in told[::-1]][: memory.ROUNDS - 1]
        seen = evidence(pairs, directions(pairs))
        told.append(locate(seen, round_id=number, number=number, start_us=START_US, memories=before))
    return told


def places(told: Located) -> list[tuple[str, str]]:
    return [(f.element, f.direction) for f in told.findings]


def number_of(node: str) -> int:
    return int(node.removeprefix("node-"))


def turns(src: str, dst: str, every: int) -> bool:
    """Some pairs in turn."""
    return (5 * number_of(src) + 7 * number_of(dst)) % every == 0


def half_of_a_pair(src: str, dst: str, proto: str, size: int) -> Lost:
    """node-7>node-8 loses half: what 7 asks of 8, what it answers it, and either's connections."""
    if (src, dst) == ("node-7", "node-8"):
        return (6, 0, 0) if proto == "udp" else (12, 1, 3)
    if (src, dst) == ("node-8", "node-7"):
        return (0, 6, 0) if proto == "udp" else (1, 12, 3)
    return (0, 0, 0)


def test_a_pair_that_loses_half_is_no_fault_of_a_packet_size() -> None:
    told = rounds(*[patrol(half_of_a_pair)] * 2)
    assert [places(t) for t in told] == [[("node-7>node-8", "pair")]] * 2


def into_10(src: str, dst: str, proto: str, size: int) -> Lost:
    """A fifth of the datagrams that node-10 receives."""
    if proto == "tcp" or "node-10" not in (src, dst):
        return (0, 0, 0)
    return (2 + turns(src, dst, 2), 0, 0) if dst == "node-10" else (0, 2 + turns(src, dst, 2), 0)


def out_of_11(share_of: int) -> Lose:
    """One of twelve datagrams that node-11 sends, to some in turn."""

    def lose(src: str, dst: str, proto: str, size: int) -> Lost:
        if proto == "tcp" or "node-11" not in (src, dst):
            return (0, 0, 0)
        one = int(turns(src, dst, share_of))
        return (one, 0, 0) if src == "node-11" else (0, one, 0)

    return lose


def sound(src: str, dst: str, proto: str, size: int) -> Lost:
    return (0, 0, 0)


@pytest.mark.parametrize("share_of", [1, 2, 3])
def test_two_nodes_one_after_the_other_are_no_fault_of_a_layer(share_of: int) -> None:
    told = rounds(*(patrol(lose) for lose in (into_10, sound, out_of_11(share_of))))
    assert places(told[0]) == [("node-10", "ingress")]
    assert places(told[1]) == []
    assert places(told[2]) == [("node-11", "egress")]


def out_of_8(lost: Iterable[int]) -> Lose:
    """So many of each line that node-8 sends, in turn."""
    each = tuple(lost)

    def lose(src: str, dst: str, proto: str, size: int) -> Lost:
        if src == "node-8":
            gone = each[number_of(dst) % len(each)]
            return (gone, 0, 0)
        return (0, each[number_of(src) % len(each)], 0) if dst == "node-8" else (0, 0, 0)

    return lose


def test_a_fault_taken_away_as_a_round_begins_is_told_by_what_that_round_lost() -> None:
    first, after = rounds(patrol(out_of_8((6, 6, 5))), patrol(out_of_8((0, 1, 0, 1))))
    assert places(first) == places(after) == [("node-8", "egress")]
    assert first.findings[0].loss.rate > 0.3
    assert after.findings[0].rounds == 1
    assert after.findings[0].loss.rate < 0.05


def test_a_fault_that_is_over_leaves_nothing_behind() -> None:
    told = rounds(patrol(out_of_8((6, 6, 5))), patrol(sound), patrol(sound))
    assert [places(t) for t in told[1:]] == [[], []]


@pytest.mark.parametrize(("losses", "named"), [((4, 6, 9), []), ((1,) * 6, [("node-0007", "ingress")])])
def test_three_bursts_are_no_node_s_fault_where_six_losses_of_six_peers_are(
    losses: tuple[int, ...], named: list[tuple[str, str]]
) -> None:
    seen = round_of(Network(nodes=1000, background=0.0), number=1, rng=np.random.default_rng(1))
    into = np.nonzero(seen.dst == 7)[0][: len(losses)]
    lost = np.zeros(len(seen))
    lost[into] = losses
    assert places(locate(replace(seen, lost=lost), round_id=1, number=1, start_us=START_US)) == named
