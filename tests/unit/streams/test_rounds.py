from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.accounts import complete, decide, digest, fitness, settle
from streams.rounds import Published, RoundState, begin, fold, rounds_of
from topics.round_progress import (
    AgentFinished,
    AgentGone,
    BatchesStored,
    RoundDeadline,
    RoundProgress,
    StoredBatch,
)
from topics.round_verdicts import AgentAccount
from topics.task_rounds import MembersRef, Mesh, RoundCancelled, RoundScheduled

START_US = 1_790_000_000_000_000
END_US = START_US + 60_000_000
PLANNED = {"a": 1000, "b": 1000}
NODES = {"a": "node-a", "b": "node-b"}

SCHEDULED = RoundScheduled(
    round_id=7,
    number=1,
    task_uid="uid",
    task="netreach/t",
    kind="NetReach",
    start_us=START_US,
    deadline_us=END_US,
    duration_s=10.0,
    rate=100.0,
    timeout_ms=500,
    members=MembersRef(group="default", epoch=1, digest="d", count=2),
    planned=2000,
    mesh=Mesh(),
)


def stored(*batches: tuple[str, int, int, int], partition: int = 0, next_offset: int = 1) -> BatchesStored:
    """Batches as (agent, incarnation, batch_seq, rows)."""
    return BatchesStored(
        task_uid="uid",
        partition=partition,
        next_offset=next_offset,
        at_us=START_US + 11_000_000,
        batches=tuple(StoredBatch(7, *b) for b in batches),
    )


def finished(agent: str, **changes: Any) -> AgentFinished:
    values: dict[str, Any] = {
        **{"task_uid": "uid", "round_id": 7, "agent": agent, "node": f"node-{agent}", "incarnation": 1},
        **{"at_us": START_US + 10_000_000, "planned": 1000, "sent": 1000, "unsent": 0, "batches": 2, "rows": 1000},
    }
    return AgentFinished(**values | changes)


def gone(agent: str, cause: str = "no report for 15 s") -> AgentGone:
    return AgentGone(
        task_uid="uid", round_id=7, agent=agent, node=f"node-{agent}", at_us=START_US + 30_000_000, cause=cause
    )


def deadline(at_us: int = END_US, **ends: int) -> RoundDeadline:
    return RoundDeadline(task_uid="uid", round_id=7, at_us=at_us, end_offsets={int(k[1:]): v for k, v in ends.items()})


BOTH: tuple[RoundProgress, ...] = (
    SCHEDULED,
    stored(("a", 1, 0, 500), ("b", 1, 0, 500)),
    stored(("a", 1, 1, 500)),
    stored(("b", 1, 1, 500)),
    finished("a"),
    finished("b"),
)


def after(events: Sequence[RoundProgress]) -> RoundState:
    state = begin(task_uid="uid", round_id=7)
    for event in events:
        state = fold(state, event)
    return state


def accounts(state: RoundState) -> dict[str, AgentAccount]:
    return {a.agent: a for a in settle(state=state, planned=PLANNED, nodes=NODES)}


def due(state: RoundState) -> str:
    return decide(state=state, planned=PLANNED)


def published(state: RoundState, *, final: bool) -> RoundState:
    told = Published(revision=1, final=final, at_us=END_US, digest=digest(state))
    return RoundState(head=msgspec.structs.replace(state.head, published=told), shares=state.shares)


def test_further_attempts_of_an_agent_are_owed_as_soon_as_it_says_so() -> None:
    more = [
        *BOTH[:-2],
        stored(("a", 1, 2, 30)),
        finished("a", planned=1030, sent=1030, further=30, rows=1030, batches=3),
    ]
    state = after([*more, finished("b")])
    assert due(state) == "final"
    assert complete(state=state, planned=PLANNED)
    told = accounts(state)["a"]
    assert (told.planned, told.stored, told.unexplained) == (1030, 1030, 0)
    # One of them not stored: seen.
    lacking = after([*BOTH[:-2], finished("a", planned=1030, further=30), finished("b")])
    assert accounts(lacking)["a"].unexplained == 30
    assert not complete(state=lacking, planned=PLANNED)


def test_a_round_is_due_when_everything_expected_is_stored() -> None:
    for count in range(len(BOTH)):
        assert due(after(BOTH[:count])) == "nothing"
    state = after(BOTH)
    assert due(state) == "final"
    assert complete(state=state, planned=PLANNED)
    assert {a.agent: (a.stored, a.unexplained, a.state) for a in accounts(state).values()} == {
        "a": (1000, 0, "finished"),
        "b": (1000, 0, "finished"),
    }
    assert (state.stored, state.last_result_us) == (2000, START_US + 10_000_000)


STORY: tuple[RoundProgress, ...] = (
    *BOTH,
    stored(("a", 2, 0, 7), partition=3, next_offset=90),
    stored(("b", 1, 5, 70), ("b", 1, 3, 30), ("b", 1, 4, 50), partition=3, next_offset=80),
    finished("a", incarnation=2, unsent=3),
    finished("b", at_us=START_US + 20_000_000, declared_missing=4, missing_cause="agent died"),
    gone("b"),
    gone("c", "node deleted"),
    deadline(END_US, p0=40, p3=12),
    deadline(END_US + 5, p0=41),
    RoundCancelled(round_id=7, task_uid="uid", reason="stop", at_us=END_US),
    RoundCancelled(round_id=7, task_uid="uid", reason="stop again", at_us=END_US + 1),
)


@settings(max_examples=150, deadline=None)
@given(st.permutations(STORY), st.lists(st.sampled_from(STORY), max_size=12), st.randoms(use_true_random=False))
def test_any_order_and_repetition_gives_the_same_state(
    order: list[RoundProgress], again: list[RoundProgress], rng: Any
) -> None:
    events = list(order)
    for event in again:
        events.insert(rng.randrange(len(events) + 1), event)
    state, expected = after(events), after(STORY)
    assert state.head == expected.head
    assert dict(state.shares) == dict(expected.shares)
    assert settle(state=state, planned=PLANNED, nodes=NODES) == settle(state=expected, planned=PLANNED, nodes=NODES)
    assert digest(state) == digest(expected)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=60))
def test_batch_numbers_are_kept_as_the_shortest_runs(numbers: list[int]) -> None:
    state = after([stored(("a", 1, n, 10)) for n in numbers])
    runs = state.shares["a"].runs[0].stored if numbers else ()
    assert [n for first, last in runs for n in range(first, last + 1)] == sorted(set(numbers))
    assert all(b[0] > a[1] + 1 for a, b in pairwise(runs))
    assert state.stored == 10 * len(set(numbers))


def test_an_event_that_says_nothing_new_gives_the_same_object() -> None:
    state = after(BOTH)
    for event in BOTH:
        assert fold(state, event) is state


def test_the_first_of_two_records_of_a_round_wins() -> None:
    other = msgspec.structs.replace(SCHEDULED, rate=1.0)
    assert after([SCHEDULED, other]).head.round == SCHEDULED


def test_other_rounds_of_the_same_flush_are_left_out() -> None:
    event = BatchesStored(
        task_uid="uid",
        partition=0,
        next_offset=3,
        at_us=1,
        batches=(StoredBatch(7, "a", 1, 0, 500), StoredBatch(8, "a", 1, 0, 300)),
    )
    assert rounds_of(event) == (("uid", 7), ("uid", 8))
    assert after([event]).stored == 500


def test_gaps_in_batch_numbers_are_no_lack_when_the_agent_says_how_many_there_are() -> None:
    evicted = finished("a", batches=1, rows=500, sent=500, declared_missing=500, missing_cause="spool evicted")
    state = after([SCHEDULED, stored(("a", 1, 1, 500)), evicted, stored(("b", 1, 0, 1000)), finished("b", batches=1)])
    assert due(state) == "final"
    account = accounts(state)["a"]
    assert (account.stored, account.declared_missing, account.unexplained) == (500, 500, 0)
    assert account.cause == "spool evicted"


def test_an_agent_that_died_is_accounted_by_its_next_incarnation() -> None:
    died = finished(
        "a", sent=500, rows=500, batches=1, declared_missing=500, missing_cause="agent died", at_us=END_US - 5
    )
    state = after([SCHEDULED, stored(("a", 1, 0, 500)), *(e for e in BOTH[1:] if e is not BOTH[4]), died])
    assert due(after([SCHEDULED, stored(("a", 1, 0, 500)), finished("b", batches=0), died])) == "final"
    assert accounts(state)["a"].declared_missing == 500


def test_a_replaced_pod_that_knows_nothing_of_the_one_before_tells_nothing_twice() -> None:
    first = finished("a", sent=700, unsent=300, batches=1, unsent_causes={"stopped": 300})
    second = finished("a", incarnation=2, sent=0, unsent=1000, batches=0, unsent_causes={"late": 1000})
    of_a = accounts(after([SCHEDULED, stored(("a", 1, 0, 700)), first, second]))["a"]
    assert (of_a.stored, of_a.unsent, of_a.unexplained, of_a.unsent_causes) == (700, 300, 0, {"stopped": 300})

    # The first was killed and its spool is lost with the pod: the next one's word stands for the rest.
    killed = accounts(after([SCHEDULED, stored(("a", 1, 0, 700)), second, deadline(p0=1)]))["a"]
    assert (killed.unsent, killed.unexplained, killed.unsent_causes) == (300, 0, {"late": 300})


def test_an_agent_that_began_after_the_round_had_was_away() -> None:
    before, after_it = (after([SCHEDULED, finished("a", incarnation=START_US + late_us)]) for late_us in (-1, 1))
    assert (accounts(before)["a"].replaced, accounts(after_it)["a"].replaced) == (False, True)
    assert not accounts(before)["b"].replaced, "nothing is known of it"


def test_what_a_stopped_agent_left_unsent_is_sent_by_the_pod_that_replaces_it() -> None:
    farewell = finished("a", sent=300, rows=300, batches=1, unsent=700, unsent_causes={"agent_stopped": 700})
    resumed = finished("a", incarnation=2, sent=600, rows=600, batches=1, unsent=400, unsent_causes={"late": 400})
    state = after([SCHEDULED, stored(("a", 1, 0, 300), ("a", 2, 0, 600)), farewell, resumed])
    replaced = accounts(state)["a"]
    assert (replaced.stored, replaced.unsent, replaced.unexplained) == (900, 100, 0)


def test_a_pod_replaced_without_a_word_is_settled_once_the_sink_has_passed_the_deadline() -> None:
    other = [stored(("a", 1, 0, 300), ("a", 2, 0, 500), ("b", 1, 0, 1000)), finished("b", batches=1)]
    resumed = finished("a", incarnation=2, sent=500, rows=500, batches=1, unsent=100, unsent_causes={"late": 100})
    events = [SCHEDULED, *other, resumed, deadline(p0=40)]
    assert due(after(events)) == "provisional", "its account may still come"
    state = after([*events, stored(("b", 1, 0, 1000), next_offset=40)])
    assert due(state) == "final"
    account = accounts(state)["a"]
    assert (account.stored, account.unsent, account.declared_missing, account.unexplained) == (800, 100, 100, 0)
    assert account.state == "finished"
    assert "its pod was replaced" in account.cause


def test_one_incarnation_that_tells_too_much_shows() -> None:
    told = finished("a", sent=700, unsent=400, batches=1, unsent_causes={"stopped": 400})
    assert accounts(after([SCHEDULED, stored(("a", 1, 0, 700)), told]))["a"].unexplained == -100


def test_a_gone_agent_owes_what_is_not_stored_with_its_cause() -> None:
    state = after([SCHEDULED, stored(("a", 1, 0, 300), ("b", 1, 0, 1000)), finished("b", batches=1), gone("a")])
    assert due(state) == "final"
    account = accounts(state)["a"]
    assert (account.stored, account.declared_missing, account.unexplained) == (300, 700, 0)
    assert (account.cause, account.state) == ("no report for 15 s", "gone")


def test_an_agent_s_own_word_counts_before_the_controller_s() -> None:
    state = after([*BOTH, gone("a")])
    assert accounts(state)["a"].declared_missing == 0
    assert digest(state) == digest(after(BOTH))


def test_at_the_deadline_a_provisional_verdict_is_due_once() -> None:
    state = after([*BOTH[:-1], deadline()])
    assert due(state) == "provisional"
    assert due(published(state, final=False)) == "nothing"
    assert due(fold(published(state, final=False), BOTH[-1])) == "final"
    assert accounts(state)["b"].state == "unfinished"


def test_a_nudge_before_the_deadline_changes_nothing_that_is_due() -> None:
    assert due(after([*BOTH[:-1], deadline(START_US + 5)])) == "nothing"


def test_a_batch_that_the_sink_has_passed_without_storing_stays_unexplained_in_a_final_verdict() -> None:
    lacking = [SCHEDULED, stored(("a", 1, 0, 500), ("b", 1, 0, 1000)), finished("a"), finished("b", batches=1)]
    late = [*lacking, deadline(p0=40, p1=0)]
    assert due(after(late)) == "provisional"
    passed = after([*late, stored(("b", 1, 0, 1000), next_offset=40)])
    assert due(passed) == "final"
    assert accounts(passed)["a"].unexplained == 500
    assert not complete(state=passed, planned=PLANNED)


def test_the_sink_s_position_does_not_close_a_round_whose_agents_have_not_reported() -> None:
    state = after([SCHEDULED, *BOTH[1:5], deadline(p0=1)])
    assert due(published(state, final=False)) == "nothing"


def test_after_a_final_verdict_only_new_facts_make_a_revision_due() -> None:
    state = published(
        after([SCHEDULED, stored(("a", 1, 0, 300), ("b", 1, 0, 1000)), finished("b", batches=1), gone("a")]), final=True
    )
    assert due(state) == "nothing"
    assert due(fold(state, stored(("a", 1, 0, 300)))) == "nothing"
    later = fold(state, stored(("a", 1, 1, 200)))
    assert due(later) == "final"
    assert accounts(later)["a"].declared_missing == 500


def test_a_cancelled_round_ends_at_its_deadline_and_says_what_is_missing() -> None:
    stop = RoundCancelled(round_id=7, task_uid="uid", reason="stop", at_us=START_US + 1)
    cut = finished("b", sent=200, rows=200, batches=1, declared_missing=800, missing_cause="cancelled")
    state = after([SCHEDULED, stop, stored(("b", 1, 0, 200)), cut])
    assert due(state) == "nothing"
    over = fold(state, deadline())
    assert due(over) == "final"
    assert {a.agent: (a.declared_missing, a.unexplained, a.cause) for a in accounts(over).values()} == {
        "a": (1000, 0, "cancelled"),
        "b": (800, 0, "cancelled"),
    }


def test_a_round_that_nobody_owes_anything_is_due_at_once() -> None:
    assert decide(state=after([SCHEDULED]), planned={}) == "final"
    assert decide(state=after([SCHEDULED]), planned={"a": 0}) == "final"


def test_results_of_an_agent_nobody_expected_show_as_surplus() -> None:
    account = accounts(after([*BOTH, stored(("x", 1, 0, 5))]))["x"]
    assert (account.planned, account.stored, account.unexplained, account.state) == (0, 5, -5, "unexpected")


def test_a_closed_round_takes_nothing_more() -> None:
    head = msgspec.structs.replace(after(BOTH).head, closed=True)
    state = RoundState(head=head)
    assert fold(state, finished("a")) is state
    assert due(state) == "nothing"


def test_fitness_is_what_each_agent_said_of_itself() -> None:
    state = after([SCHEDULED, finished("a", unsent=4, lateness_p99_us=9000, throttled_us=3, achieved_rate=5.0)])
    (told,) = fitness(state, NODES)
    assert (told.node, told.unsent, told.lateness_p99_us, told.throttled_us) == ("node-a", 4, 9000, 3)
