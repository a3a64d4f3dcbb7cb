"""Which rounds `kpatrol stop` means."""

import pytest
from msgspec.structs import replace

from kpatrol.stopping import Stopped, open_rounds
from topics.round_verdicts import EXAMPLE as VERDICT
from topics.task_rounds import EXAMPLE, RoundCancelled, RoundScheduled, TaskRound

NOW_US = EXAMPLE.start_us + 1_000_000


def a_round(
    number: int, *, task: str = "netreach/reach-task", deadline_us: int = EXAMPLE.deadline_us
) -> RoundScheduled:
    return replace(
        EXAMPLE, round_id=number, number=number, task=task, task_uid=f"uid of {task}", deadline_us=deadline_us
    )


def cancelled(number: int, *, task_uid: str = "", at_us: int = NOW_US) -> RoundCancelled:
    return RoundCancelled(round_id=number, task_uid=task_uid, reason="", at_us=at_us)


def still_open(*records: TaskRound, task: str = "") -> list[int]:
    return [r.number for r in open_rounds(records, task=task, now_us=NOW_US)]


def test_rounds_past_their_deadline_and_cancelled_ones_are_over() -> None:
    assert still_open(a_round(1, deadline_us=NOW_US), a_round(2), a_round(3), cancelled(3)) == [2]
    assert still_open() == []


def test_an_earlier_global_stop_ended_what_stood_before_it() -> None:
    assert still_open(a_round(1), cancelled(0), a_round(2)) == [2]
    other = a_round(3, task="netdns/other")
    assert still_open(a_round(1), other, cancelled(0, task_uid="uid of netdns/other")) == [1]


@pytest.mark.parametrize("task", ["netdns/names", "names", "uid of netdns/names"])
def test_a_task_may_be_named_in_three_ways(task: str) -> None:
    assert still_open(a_round(1), a_round(2, task="netdns/names"), task=task) == [2]


def test_the_first_record_of_a_round_counts() -> None:
    again = replace(a_round(1), planned=5)
    (kept,) = open_rounds([a_round(1), again], task="", now_us=NOW_US)
    assert kept.planned == EXAMPLE.planned


def test_what_is_not_confirmed_is_not_called_stopped() -> None:
    row = Stopped(round=a_round(4), verdict=None).row()
    assert (row["stopped"], row["sent"], row["why"]) == (False, None, "not confirmed in time")
    told = Stopped(round=a_round(4), verdict=replace(VERDICT, stored=7, unsent=593)).row()
    assert (told["stopped"], told["sent"], told["unsent"], told["unexplained"]) == (True, 7, 593, 0)
