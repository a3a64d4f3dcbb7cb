"""A round that was stopped: the stop may be heard after the accounts of those who obeyed it."""

import pytest

from streams.accounts import digest, settle
from streams.rounds import RoundState, begin, fold
from topics.round_progress import AgentFinished, Condition, Hop, HopTrace, NodeCounters
from topics.task_rounds import EXAMPLE, RoundCancelled

TRACE = HopTrace(agent="b", node="node-2", address="10.0.0.2", hops=(Hop(limit=1, sent=3),), asked=24)
STOP = RoundCancelled(round_id=EXAMPLE.round_id, task_uid=EXAMPLE.task_uid, reason="fire drill", at_us=5)


def finished(unsent_causes: dict[str, int]) -> AgentFinished:
    unsent = sum(unsent_causes.values())
    return AgentFinished(
        task_uid=EXAMPLE.task_uid,
        round_id=EXAMPLE.round_id,
        agent="node-1",
        node="node-1",
        incarnation=1,
        at_us=4,
        planned=600,
        sent=600 - unsent,
        unsent=unsent,
        batches=1,
        rows=600 - unsent,
        resident_bytes=5,
        unsent_causes=unsent_causes,
        condition=Condition(resident_max_bytes=9, conntrack_entries=1, conntrack_max=4),
        node_counters=NodeCounters(softnet_drops=2),
        traces=(TRACE,),
    )


def state_after(unsent_causes: dict[str, int]) -> RoundState:
    state = begin(task_uid=EXAMPLE.task_uid, round_id=EXAMPLE.round_id)
    for event in (EXAMPLE, finished(unsent_causes)):
        state = fold(state, event)
    return state


@pytest.mark.parametrize(("causes", "revised"), [({"cancelled": 100}, True), ({"late": 100}, False), ({}, False)])
def test_a_stop_heard_last_revises_the_verdict_where_it_was_obeyed(causes: dict[str, int], revised: bool) -> None:
    state = state_after(causes)
    assert (digest(fold(state, STOP)) != digest(state)) is revised


def test_the_account_keeps_what_the_agent_said_of_itself() -> None:
    (account,) = settle(state=state_after({"cancelled": 7}), planned={"node-1": 600}, nodes={})
    assert account.unsent_causes == {"cancelled": 7}
    assert account.resident_bytes == 9
    assert account.node_counters == NodeCounters(softnet_drops=2)
    assert account.traces == (TRACE,)
