"""Evidence pooled over rounds, and what is remembered of them."""

from collections.abc import Callable

import msgspec
import numpy as np

from streams.judging import memory
from streams.judging.directions import directions
from streams.judging.evidence import evidence
from streams.judging.localise import Located, locate
from streams.judging.memory import Memory
from streams.judging.pair_table import PairTable
from tests.unit.streams.judging.mesh import START_US, full_mesh

MINUTE_US = 60_000_000
Lose = Callable[[str, str], float]


def rounds(*tables: PairTable) -> list[Located]:
    """Consecutive rounds, each with the memory of those before."""
    told: list[Located] = []
    for number, pairs in enumerate(tables, start=1):
        before: list[Memory] = [t.memory for t in told[::-1]][: memory.ROUNDS - 1]
        seen = evidence(pairs, directions(pairs))
        start_us = START_US + number * MINUTE_US
        told.append(locate(seen, round_id=number, number=number, start_us=start_us, memories=before))
    return told


def losing(packets: int) -> PairTable:
    """node-3 loses some packets of what it receives, one of each peer in turn; 200 packets a pair."""
    peers = ("node-1", "node-2", "node-4", "node-5", "node-6")
    share = {peer: len(range(i, packets, len(peers))) / 200 for i, peer in enumerate(peers)}
    return full_mesh(6, lambda src, dst: share[src] if dst == "node-3" else 0.0)


def places(told: Located) -> list[tuple[str, str]]:
    return [(f.element, f.direction) for f in told.findings]


def test_what_one_round_cannot_tell_two_together_can() -> None:
    first, second, third = rounds(losing(4), losing(4), losing(4))
    assert places(first) == []
    assert places(second) == places(third) == [("node-3", "ingress")]
    assert "taken over 2 rounds, since 14:15 UTC" in second.findings[0].sentence
    assert (second.findings[0].loss.lost, second.findings[0].rounds) == (8, 2)


def test_since_is_the_first_round_of_an_unbroken_row() -> None:
    told = rounds(losing(12), losing(12), losing(12))
    assert [t.findings[0].since_us for t in told] == [START_US + MINUTE_US] * 3
    broken = rounds(losing(12), full_mesh(6), losing(12))
    assert broken[2].findings[0].since_us == START_US + 3 * MINUTE_US


def test_what_stood_in_the_round_before_goes_less_easily_than_it_came() -> None:
    # Two lost packets alone say nothing; after ten in the round before they say that it goes on.
    few = full_mesh(6, lambda src, dst: 0.005 if dst == "node-3" and src in ("node-1", "node-2") else 0.0)
    alone, after = rounds(few)[0], rounds(losing(10), few)[1]
    assert (places(alone), places(after)) == ([], [("node-3", "ingress")])
    bare = msgspec.structs.replace(
        rounds(losing(10))[0].memory, src=(), dst=(), own=(), lost=(), way=(), kind=(), size=()
    )
    seen = evidence(losing(4), directions(losing(4)))
    told = locate(seen, round_id=2, number=2, start_us=START_US + MINUTE_US, memories=[bare])
    assert places(told) == [("node-3", "ingress")]
    assert places(locate(seen, round_id=2, number=2, start_us=START_US, memories=[])) == []


def test_a_fault_that_is_over_is_not_named_again() -> None:
    told = rounds(losing(40), losing(40), full_mesh(6))
    assert places(told[1]) == [("node-3", "ingress")]
    assert places(told[2]) == []


def test_a_memory_survives_its_bytes() -> None:
    (told,) = rounds(losing(12))
    assert len(told.memory.src) == 5
    assert memory.decode(memory.encode(told.memory)) == told.memory


def test_what_does_not_fit_leaves_out_the_great_faults_first() -> None:
    pairs = full_mesh(
        6, lambda src, dst: 0.1 if dst == "node-3" else 0.005 if (src, dst) == ("node-1", "node-2") else 0
    )
    seen = evidence(pairs, directions(pairs))
    lossy = np.nonzero(seen.lost > 0)[0]
    great = lossy[seen.lost[lossy] > 1]
    small = np.setdiff1d(lossy, great)
    kept = memory.remember(
        seen=seen, unexplained=small, explained=[great], standing=[], number=1, start_us=START_US, most=3
    )
    assert (kept.tried, kept.lost, kept.forgot) == (int(seen.tried.sum()), (1,), True)
    assert memory.recall(seen, [kept]).forgot == (True,)
    assert memory.bare(memory.decode(memory.encode(told_of(pairs)))).forgot


def told_of(pairs: PairTable) -> Memory:
    (told,) = rounds(pairs)
    assert not told.memory.forgot
    return told.memory


def test_what_is_explained_along_with_a_fault_is_remembered_too() -> None:
    # Of what node-3 sends a little is lost as well, less than would be a fault of its own beside what it receives.
    (told,) = rounds(full_mesh(6, lambda src, dst: 0.1 if dst == "node-3" else 0.005 if src == "node-3" else 0))
    assert places(told) == [("node-3", "ingress")]
    assert sum(told.memory.lost) == 5 * 20 + 5 * 1


def test_losses_of_all_alike_are_said_to_be_spread_and_nobody_is_blamed() -> None:
    (told,) = rounds(full_mesh(8, lambda src, dst: 0.02))
    assert told.findings == ()
    assert told.unlocated.startswith("2.0 % [1.8–2.3] is lost on 56 pairs of 8 places")


def test_a_sound_round_has_nothing_to_say() -> None:
    assert [t.unlocated for t in rounds(full_mesh(5), full_mesh(5))] == ["", ""]
