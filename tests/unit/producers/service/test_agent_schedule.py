"""When rounds run: refusals, slack, turns."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from producers.schedule import Turns, may_start, refusal, shift_us, slack_us, start_monotonic_us
from topics.task_rounds import EXAMPLE


def test_a_round_is_taken_by_its_group_before_its_deadline_once() -> None:
    def why(*, group: str = "default", now_us: int = EXAMPLE.start_us, known: bool = False) -> str:
        return refusal(round_=EXAMPLE, group=group, known=lambda _: known, now_us=now_us)

    assert why() == ""
    assert why(now_us=EXAMPLE.deadline_us - 1) == ""
    assert why(now_us=EXAMPLE.deadline_us) == "deadline passed"
    assert why(group="other") == "other group"
    assert why(known=True) == "known"


@given(
    start=st.integers(0, 2**53), wall=st.integers(0, 2**53), monotonic=st.integers(0, 2**53), on=st.integers(0, 10**12)
)
def test_the_start_is_the_same_instant_on_both_clocks(start: int, wall: int, monotonic: int, on: int) -> None:
    first = start_monotonic_us(start_us=start, wall_us=wall, monotonic_us=monotonic)
    later = start_monotonic_us(start_us=start, wall_us=wall + on, monotonic_us=monotonic + on)
    assert first == later
    assert first - monotonic == start - wall


def test_slack_is_what_duration_and_timeout_leave_of_the_deadline() -> None:
    round_ = replace(EXAMPLE, start_us=0, deadline_us=20_000_000, duration_s=10.0, timeout_ms=1500)
    assert slack_us(round_) == 8_500_000
    assert slack_us(replace(round_, deadline_us=11_000_000)) == 0


@pytest.mark.parametrize(
    ("load_class", "running", "waiting", "free"),
    [
        ("normal", [], [], True),
        ("normal", ["normal", "background"], [], True),
        ("normal", ["normal"], ["exclusive"], True),
        ("normal", ["exclusive"], [], False),
        ("background", ["normal"], ["normal"], True),
        ("background", ["exclusive"], [], False),
        ("background", ["normal"], ["exclusive"], False),
        ("exclusive", [], ["exclusive", "normal"], True),
        ("exclusive", ["background"], [], False),
        ("exclusive", ["exclusive"], [], False),
    ],
)
def test_an_exclusive_round_runs_alone(load_class: str, running: list[str], waiting: list[str], free: bool) -> None:
    assert may_start(load_class=load_class, running=running, waiting=waiting) is free


def test_only_waiting_shifts_a_round_not_being_late() -> None:
    assert shift_us(start_us=1_000_000, asked_us=700_000, got_us=700_010) == 0
    assert shift_us(start_us=1_000_000, asked_us=5_000_000, got_us=5_000_200) == 0
    assert shift_us(start_us=1_000_000, asked_us=700_000, got_us=3_000_000) == 2_000_000
    assert shift_us(start_us=1_000_000, asked_us=5_000_000, got_us=6_000_000) == 1_000_000


def test_turns_wait_for_the_exclusive_one_and_their_patience_ends() -> None:
    async def scene() -> tuple[bool, bool, bool, int]:
        turns = Turns()

        async def take(round_id: int, load_class: str, patience_s: float, *, give_up: bool = False) -> bool:
            return await turns.take(
                round_id=round_id, load_class=load_class, patience_s=patience_s, give_up=lambda: give_up
            )

        assert await take(1, "exclusive", 1.0)
        waiting = asyncio.create_task(take(2, "normal", 5.0))
        await asyncio.sleep(0)
        assert not waiting.done()
        turns.leave(1)
        in_turn = await waiting
        impatient = await take(3, "exclusive", 0.01)
        gives_up = await take(4, "exclusive", 60.0, give_up=True)
        return in_turn, impatient, gives_up, turns.running

    assert asyncio.run(scene()) == (True, False, False, 1)


def test_a_load_and_a_patrol_are_never_on_the_node_together_and_both_come_to_their_turn() -> None:
    """Patrol rounds come one after the other without a pause; a load waits among them and gets in."""
    seen: list[frozenset[str]] = []

    async def one(turns: Turns, running: set[str], round_id: int, load_class: str) -> bool:
        if not await turns.take(round_id=round_id, load_class=load_class, patience_s=5.0, give_up=lambda: False):
            return False
        running.add(load_class)
        seen.append(frozenset(running))
        await asyncio.sleep(0.002)
        if turns.running == 1 or load_class == "exclusive":
            running.discard(load_class)
        turns.leave(round_id)
        return True

    async def scene() -> list[bool]:
        turns, running = Turns(), set[str]()
        rounds = [asyncio.create_task(one(turns, running, 0, "background"))]
        await asyncio.sleep(0)
        rounds.append(asyncio.create_task(one(turns, running, 1, "exclusive")))
        for number in range(2, 12):
            rounds.append(asyncio.create_task(one(turns, running, number, "background")))
            await asyncio.sleep(0.001)
        return await asyncio.gather(*rounds)

    assert all(asyncio.run(scene()))
    assert frozenset({"exclusive"}) in seen
    assert not [together for together in seen if len(together) > 1]
