"""The caps: what exceeds them is counted, and rounds that run at once share them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.load.caps import BURST_US, Governor, Limits
from topics.outcome import Layer, Proto
from topics.task_rounds import Target


def target(name: str = "10.0.0.1", port: int = 80) -> Target:
    return Target(name=name, dst="t", proto=Proto.http, layer=Layer.pod, address=name, port=port)


def admitted(governor: Governor, *, rate: float, seconds: float, targets: int = 1) -> int:
    passage = governor.enter([target(port=80 + i) for i in range(targets)])
    due = [int(i * 1e6 / rate) for i in range(int(rate * seconds))]
    count = sum(passage.admits(stream, at_us) for at_us in due for stream in range(targets))
    governor.leave(passage)
    return count


@given(rate=st.floats(1, 5000), cap=st.integers(1, 5000))
def test_the_flow_let_through_is_the_asked_one_or_the_cap(rate: float, cap: int) -> None:
    passed = admitted(Governor(Limits(rate_per_target=cap)), rate=rate, seconds=1.0)
    due = int(rate)
    if rate <= cap:
        assert passed == due
    else:
        assert min(due, cap) <= passed <= min(due, cap + 2 + cap * BURST_US / 1e6)


def test_the_cap_of_all_is_shared_by_targets_and_rounds() -> None:
    governor = Governor(Limits(rate=100))
    assert 100 <= admitted(governor, rate=100, seconds=1.0, targets=4) <= 104
    first, second = governor.enter([target()]), governor.enter([target("10.0.0.2")])
    passed = [0, 0]
    for i in range(1000):
        at_us = 10_000_000 + i * 1000
        passed[0] += first.admits(0, at_us)
        passed[1] += second.admits(0, at_us)
    assert 100 <= sum(passed) <= 104


def test_rounds_to_one_target_share_its_cap_and_forget_it_afterwards() -> None:
    governor = Governor(Limits(rate_per_target=10))
    first, second = governor.enter([target()]), governor.enter([target(), target(port=81)])
    # One is due every 100 ms, whichever round it is of.
    assert sum(p.admits(0, 500_000) for p in (first, second) for _ in range(10)) == 1
    assert second.admits(1, 500_000), "another port is another target"
    governor.leave(first)
    governor.leave(second)
    governor.leave(second)
    assert governor.enter([target()]).admits(0, 500_000)


@pytest.mark.parametrize(("rounds", "room", "room_to"), [(1, 100, 16), (2, 50, 8), (3, 33, 5), (200, 1, 1)])
def test_requests_in_flight_are_shared_evenly_and_nobody_has_none(rounds: int, room: int, room_to: int) -> None:
    governor = Governor(Limits(in_flight=100, in_flight_per_target=16))
    passages: list[Any] = [governor.enter([target()]) for _ in range(rounds)]
    assert {(p.room, p.room_to[0]) for p in passages} == {(room, room_to)}
    for passage in passages[1:]:
        governor.leave(passage)
    assert (passages[0].room, passages[0].room_to) == (100, [16])
