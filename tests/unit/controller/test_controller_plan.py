"""The controller's decisions, seen over time: nothing lost, nothing twice, nothing stalled."""

from dataclasses import replace
from itertools import pairwise

import pytest

from controller import plan as plans
from controller.addressbook import AddressBook
from controller.plan import Settings, plan
from tests.unit.controller.controller_world import ENDPOINT_ONLY, START, S, World, net_reach, report, tasks, verdict_of
from topics.round_progress import AgentGone
from topics.task_rounds import RoundCancelled, RoundScheduled


def world(text: str = "", **settings: object) -> World:
    chosen = replace(Settings(expected_agents=3, book=AddressBook()), **settings)  # type: ignore[arg-type]
    return World(desired=tasks(text or net_reach(target=ENDPOINT_ONLY)), settings=chosen)


def test_rounds_come_an_interval_apart_until_all_are_done() -> None:
    w = world()
    w.run(200, step_us=S // 2)
    starts = [r.start_us for r in w.scheduled()]
    assert [r.number for r in w.scheduled()] == [1, 2, 3]
    assert [b - a for a, b in pairwise(starts)] == [60 * S, 60 * S]
    assert w.status()["finish"] is True
    assert w.status()["doneRound"] == 3


def test_every_round_is_told_to_the_judge_once_and_word_for_word() -> None:
    w = world()
    w.run(200, step_us=S // 2)
    assert w.progress == w.rounds


def test_a_round_is_published_the_lead_time_before_its_start() -> None:
    w = world(lead_time_us=2 * S)
    w.run(60 + 3)
    second = w.scheduled()[1]
    assert second.start_us == w.scheduled()[0].start_us + 60 * S
    w = world(lead_time_us=2 * S)
    w.run(58)
    assert len(w.scheduled()) == 1


def test_no_round_starts_before_the_expected_agents_are_there() -> None:
    w = world()
    w.agents = ("node-1", "node-2")
    w.run(100)
    assert w.scheduled() == []
    assert w.members == []
    assert w.status()["reasons"] == ["waiting for agents: at least 3 must report"]
    w.agents = ("node-1", "node-2", "node-3")
    w.run(3)
    assert [r.number for r in w.scheduled()] == [1]
    assert w.status()["skippedRound"] == 0


def test_planned_counts_every_agent_every_target_every_request() -> None:
    w = world()
    w.run(1)
    # 3 agents, 2 peers each, 10 requests/s for 5 s.
    assert w.scheduled()[0].planned == 3 * 2 * 50


def test_rounds_of_one_task_do_not_overlap_when_a_minute_is_short() -> None:
    w = world(minute_s=1.0)
    w.run(60)
    first, second, _ = w.scheduled()
    assert first.deadline_us == first.start_us + round((5 + 0.5 + 5) * S)
    # The verdict came 6 s after the start: the next one needs no more than the lead time.
    assert first.start_us + 6 * S < second.start_us <= first.start_us + 9 * S


def test_an_unjudged_round_holds_the_next_one_up_to_its_deadline_only() -> None:
    w = world(minute_s=1.0)
    w.judge_after_us = None
    w.run(60)
    first, second, third = w.scheduled()
    assert second.start_us >= first.deadline_us
    assert third.start_us >= second.deadline_us
    assert w.status()["lastRoundStatus"] == "unknown"


def test_for_ever_goes_on_and_remembers_no_more_than_it_must() -> None:
    w = world(net_reach(rounds=-1, target=ENDPOINT_ONLY), minute_s=10.0)
    w.run(500, step_us=S)
    assert len(w.scheduled()) == pytest.approx(50, abs=2)
    assert w.status()["expectedRound"] == -1
    assert w.status()["finish"] is False
    assert len(w.status()["history"]) == 10


def test_two_kinds_with_one_name_are_two_tasks() -> None:
    http = (
        "---\napiVersion: kdoctor.io/v1beta1\nkind: AppHttpHealthy\nmetadata: {name: reach}\n"
        "spec: {target: {host: web, method: GET}}"
    )
    w = world(net_reach(rounds=1, target=ENDPOINT_ONLY) + http)
    w.run(20)
    assert sorted(r.task for r in w.scheduled()) == ["apphttphealthy/reach", "netreach/reach"]
    assert len({r.round_id for r in w.scheduled()}) == 2


@pytest.mark.parametrize("after_s", [0.4, 1, 3, 10, 40, 59, 61, 100])
@pytest.mark.parametrize("forget_state", [False, True])
def test_a_restart_at_any_time_loses_no_round_and_repeats_none(after_s: float, forget_state: bool) -> None:
    w = world()
    w.run(after_s)
    w.restart(forget_state=forget_state)
    w.run(220, step_us=S // 2)
    numbers = [r.number for r in w.scheduled()]
    assert numbers == [1, 2, 3]
    assert w.status()["doneRound"] == 3
    assert {r.number for r in w.progress if isinstance(r, RoundScheduled)} == {1, 2, 3}


def test_a_round_whose_announcement_was_lost_is_announced_after_the_restart() -> None:
    w = world()
    w.run(1)
    w.progress.clear()
    w.restart()
    w.step()
    assert w.progress == w.rounds


def test_an_absence_skips_starts_and_counts_them() -> None:
    w = world()
    w.run(30)
    w.now_us += 500 * S
    w.restart()
    w.run(130)
    assert [r.number for r in w.scheduled()] == [1, 2, 3]
    assert w.status()["skippedRound"] == 7
    assert w.status()["reasons"] == ["7 start times passed while no round could start"]


def test_of_two_records_of_one_round_the_first_wins() -> None:
    w = world()
    w.run(1)
    first = w.scheduled()[0]
    w.observed.saw_round(replace_start(first, first.start_us + S))
    assert w.observed.rounds[first.task_uid][1] == first


def replace_start(round_: RoundScheduled, start_us: int) -> RoundScheduled:
    from msgspec.structs import replace as with_fields

    return with_fields(round_, start_us=start_us)


def test_a_round_under_way_is_not_published_again() -> None:
    w = world()
    w.run(0.4)
    (uid,) = w.observed.memory
    assert w.rounds == []
    w.observed.publishing[uid] = 1
    actions = plan(desired=w.desired, observed=w.observed, now_us=w.now_us, settings=w.settings)
    assert not [a for a in actions if isinstance(a, plans.PublishRound)]


def test_a_removed_task_has_its_round_cancelled_once_and_its_status_taken_away() -> None:
    w = world()
    w.run(5)
    w.desired = {}
    w.run(5)
    cancelled = [r for r in w.rounds if isinstance(r, RoundCancelled)]
    assert [c.round_id for c in cancelled] == [w.scheduled()[0].round_id]
    assert cancelled[0] in w.progress
    assert w.statuses == {}


def test_the_global_stop_closes_what_runs_and_the_schedule_goes_on() -> None:
    w = world()
    w.run(3)
    w.rounds.append(RoundCancelled(round_id=0, task_uid="", reason="stop", at_us=w.now_us))
    w.observed.saw_round(w.rounds[-1])
    w.judge_after_us = None
    w.step()
    assert w.status()["history"][0]["why"] == "cancelled"
    assert w.status()["lastRoundStatus"] == "unknown"
    w.run(60)
    assert [r.number for r in w.scheduled()] == [1, 2]


def test_a_changed_task_is_a_new_one() -> None:
    w = world()
    w.run(5)
    before = w.scheduled()[0].task_uid
    w.desired = tasks(net_reach(rounds=2, target=ENDPOINT_ONLY))
    w.run(5)
    assert [type(r).__name__ for r in w.rounds] == ["RoundScheduled", "RoundCancelled", "RoundScheduled"]
    assert w.scheduled()[1].task_uid != before
    assert w.scheduled()[1].number == 1


def test_an_agent_that_falls_silent_is_declared_gone_once_with_the_cause() -> None:
    w = world()
    w.judge_after_us = None
    w.run(5)
    w.agents = ("node-1", "node-2")
    w.run(25)
    gone = [r for r in w.progress if isinstance(r, AgentGone)]
    assert [(g.agent, g.round_id) for g in gone] == [("node-3", w.scheduled()[0].round_id)]
    assert gone[0].cause == "agent died: no report for 3 intervals of 5 s"


def test_when_nobody_is_heard_nobody_is_gone() -> None:
    w = world()
    w.judge_after_us = None
    w.run(5)
    w.agents = ()
    w.run(40)
    w.agents = ("node-1", "node-2", "node-3")
    w.observed.roster.hear(report("node-1", at_us=w.now_us), at_us=w.now_us)
    w.step()
    assert not [r for r in w.progress if isinstance(r, AgentGone)]


def test_memberships_come_at_most_every_ten_seconds() -> None:
    w = world(net_reach(rounds=-1, target=ENDPOINT_ONLY))
    w.run(5)
    for number in range(4, 12):
        w.agents = (*w.agents, f"node-{number}")
        w.run(2)
    at = [chunk.at_us for chunk in w.members]
    assert all(b - a >= 10 * S for a, b in pairwise(at))
    assert 2 <= len(w.members) <= 3
    assert w.observed.newest_epoch is not None
    assert w.scheduled()[-1].members.epoch <= w.observed.newest_epoch.number


def test_a_final_revision_replaces_the_provisional_verdict_in_the_status() -> None:
    w = world(net_reach(rounds=1, target=ENDPOINT_ONLY))
    w.judge_after_us = None
    w.run(5)
    (round_,) = w.scheduled()
    w.observed.saw_verdict(verdict_of(round_, at_us=w.now_us, revision=1, final=False, verdict="unknown", why="late"))
    w.step()
    assert w.status()["lastRoundStatus"] == "unknown"
    w.observed.saw_verdict(
        verdict_of(round_, at_us=w.now_us, revision=2, verdict="fail", why="loss", failed_nodes=("node-2",))
    )
    w.observed.saw_verdict(verdict_of(round_, at_us=w.now_us, revision=1, final=False, verdict="unknown"))
    w.step()
    item = w.status()["history"][0]
    assert (item["status"], item["revision"], item["final"]) == ("fail", 2, True)
    assert item["failedAgentNodeList"] == ["node-2"]
    assert item["failureReason"] == "some agents failed: loss"


def test_a_status_goes_through_notstarted_ongoing_and_the_verdict() -> None:
    w = world(net_reach(rounds=1, target=ENDPOINT_ONLY))
    seen = []
    for _ in range(60):
        w.step()
        w.now_us += S // 5
        seen += [item["status"] for item in w.status()["history"]]
    assert list(dict.fromkeys(seen)) == ["notstarted", "ongoing", "succeed"]
    status = w.status()
    assert status["lastRoundStatus"] == "succeed"
    assert status["history"][0]["succeedAgentNodeList"] == ["node-1", "node-2", "node-3"]
    assert status["history"][0]["duration"].startswith("6")
    assert status["finishTime"] == status["history"][0]["endTimeStamp"]


def test_an_unchanged_world_needs_no_action() -> None:
    w = world(net_reach(rounds=1, target=ENDPOINT_ONLY))
    w.run(20)
    assert w.step() == []


def test_the_clock_of_the_world_began_where_it_should() -> None:
    assert world().now_us == START
