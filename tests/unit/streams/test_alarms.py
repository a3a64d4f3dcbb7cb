from dataclasses import dataclass, field
from typing import Any

import msgspec

from streams.alarm_rules import CALM_AFTER, FLAPS, KEPT_CLOSED, KEPT_ROUNDS, TaskAlarms, end, fold
from streams.alarms import take_end, take_verdict
from streams.round_store import MAX_VALUE_BYTES
from streams.silences import Silence
from topics import alarms
from topics.alarms import AlarmRecord
from topics.round_verdicts import EXAMPLE, AgentAccount, CanarySeen, Finding, Loss, RoundVerdict, Trust


def finding(element: str = "node-3", rate: float = 0.02) -> Finding:
    loss = Loss(sent=1000, lost=int(rate * 1000), rate=rate, low=rate / 2, high=rate * 2)
    sentence = f"{element} loses {rate:.1%}"
    return Finding(element=element, direction="ingress", kind="loss", sentence=sentence, loss=loss, confidence=0.99)


def verdict(number: int, *found: Finding, revision: int = 1, **changes: Any) -> RoundVerdict:
    values = {
        **{"round": number, "round_id": number, "revision": revision, "findings": found},
        **{"start_us": number * 1_000_000, "at_us": number * 1_000_000 + 500_000},
    }
    return msgspec.structs.replace(EXAMPLE, **values | changes)


@dataclass
class Task:
    state: TaskAlarms = field(default_factory=TaskAlarms)

    def see(self, *verdicts: RoundVerdict) -> list[tuple[str, int, str]]:
        """(kind of record, transition, element) of what is told."""
        told: list[AlarmRecord] = []
        for one in verdicts:
            self.state, records = fold(self.state, one)
            told += records
        self.last = told[-1] if told else None
        return [(type(r).__name__, r.transition, r.element) for r in told]


def test_one_bad_round_is_no_alarm_and_two_in_a_row_are() -> None:
    task = Task()
    assert task.see(verdict(1, finding()), verdict(2), verdict(3, finding())) == []
    assert task.see(verdict(4, finding())) == [("AlarmOpened", 1, "node-3")]
    assert task.last is not None
    assert task.last.alarm_id == "netreach/reach-task:node-3:ingress:loss"
    assert (task.last.since_us, task.last.at_us, task.last.severity) == (3_000_000, 4_500_000, "critical")
    assert alarms.TOPIC.decode(alarms.TOPIC.encode(task.last)) == task.last


def test_an_alarm_says_since_when_in_how_many_rounds_how_far_and_where_to_look() -> None:
    met = msgspec.structs.replace(finding(), scope="udp", spared=("what it sends", "host network"))
    task = Task()
    task.see(verdict(1, met), verdict(2, met))
    assert task.last is not None
    assert (task.last.since_us, task.last.rounds, task.last.scope) == (1_000_000, 2, "udp")
    assert task.last.spared == ("what it sends", "host network")
    assert "element = 'node-3'" in task.last.evidence_sql
    task.see(verdict(3, met), verdict(3, met, revision=2), verdict(4), verdict(5))
    assert isinstance(task.last, alarms.AlarmClosed)
    assert task.last.rounds == 3


def test_it_closes_after_two_rounds_without_it_and_opens_again_with_the_next_number() -> None:
    task = Task()
    task.see(verdict(1, finding()), verdict(2, finding()))
    assert task.see(verdict(3), verdict(4, finding()), verdict(5)) == []
    assert task.see(verdict(6)) == [("AlarmClosed", 2, "node-3")]
    assert task.last is not None
    assert task.last.sentence.startswith("over: ")
    assert task.see(verdict(7, finding()), verdict(8, finding())) == [("AlarmOpened", 3, "node-3")]


def test_a_loss_that_doubles_is_told_again_once() -> None:
    task = Task()
    task.see(verdict(1, finding(rate=0.02)), verdict(2, finding(rate=0.02)))
    assert task.see(verdict(3, finding(rate=0.03))) == []
    assert task.see(verdict(4, finding(rate=0.05))) == [("AlarmUpdated", 2, "node-3")]
    assert task.see(verdict(5, finding(rate=0.05))) == []


def test_failed_rounds_and_rounds_that_cannot_be_told_are_alarms_of_the_task() -> None:
    task = Task()
    assert task.see(*(verdict(n, verdict="fail", why="5 of 6") for n in (1, 2))) == [("AlarmOpened", 1, "task")]
    unknown = [verdict(n, verdict="unknown", why="agents gone") for n in (3, 4)]
    assert task.see(*unknown) == [("AlarmClosed", 2, "task"), ("AlarmOpened", 1, "task")]
    assert task.last is not None
    assert task.last.severity == "warning"


def test_an_instrument_that_is_not_fit_raises_no_alarm_about_the_network() -> None:
    weak = Trust(grade="degraded", reasons=("a: CPU throttled",), unfit=("node-3",))
    task = Task()
    assert task.see(*(verdict(n, finding(), trust=weak) for n in (1, 2))) == [("AlarmOpened", 1, "instrument")]


def test_beside_an_unfit_agent_what_the_others_have_found_stands() -> None:
    weak = Trust(grade="degraded", reasons=("a: CPU throttled",), unfit=("node-4", "node-5"))
    task = Task()
    told = task.see(*(verdict(n, finding(), finding("node-2>node-4"), trust=weak) for n in (1, 2)))
    assert told == [("AlarmOpened", 1, "instrument"), ("AlarmOpened", 1, "node-3")]


def test_a_loss_at_a_node_whose_agent_has_told_nothing_is_no_alarm() -> None:
    for state, opened in (("silent", []), ("gone", []), ("finished", [("AlarmOpened", 1, "node-3")])):
        account = AgentAccount(
            **{"agent": "c", "node": "node-3", "planned": 10, "stored": 10, "unsent": 0},
            **{"declared_missing": 0, "unexplained": 0, "state": state},
        )
        assert Task().see(*(verdict(n, finding(), accounts=(account,)) for n in (1, 2))) == opened


def test_a_repeated_verdict_tells_nothing_and_changes_nothing() -> None:
    task = Task()
    task.see(verdict(1, finding()))
    before = task.state
    assert task.see(verdict(1, finding())) == []
    assert task.state is before


def test_a_later_revision_replaces_the_former() -> None:
    task = Task()
    task.see(verdict(1, finding()), verdict(2, verdict="fail", final=False))
    assert task.see(verdict(2, finding(), revision=2)) == [("AlarmOpened", 1, "node-3")]


def test_an_old_round_told_again_changes_nothing() -> None:
    task = Task()
    task.see(*(verdict(n) for n in range(1, 20)))
    before = task.state
    assert task.see(verdict(3, finding(), revision=5)) == []
    assert task.state is before


def test_the_state_stays_small() -> None:
    task = Task()
    for n in range(1, 300, 4):
        bad = [finding(f"node-{n}-{i}") for i in range(5)]
        task.see(verdict(n, *bad), verdict(n + 1, *bad), verdict(n + 2), verdict(n + 3))
    assert sum(not t.open for t in task.state.told.values()) == KEPT_CLOSED
    assert len(msgspec.json.encode(task.state)) < MAX_VALUE_BYTES


def test_the_state_survives_the_table_and_a_crash_tells_the_same_again() -> None:
    rows: dict[bytes, bytes] = {}
    one, two = (take_verdict(rows, verdict(n, finding()), 0) for n in (1, 1))
    assert one == two
    assert one.value is not None
    rows[one.key] = one.value
    first, again = (take_verdict(rows, verdict(2, finding()), 0) for _ in range(2))
    assert first == again
    assert [alarms.TOPIC.decode(o.value).transition for o in first.outgoing] == [1]
    assert first.outgoing[0].topic == "alarms-v1"


def weak(number: int, lost: int = 1) -> RoundVerdict:
    loss = Loss(sent=200, lost=lost, rate=lost / 200, low=0.0, high=0.05)
    found = Finding(element="node-3", direction="ingress", kind="loss", sentence="a little", loss=loss, confidence=0.7)
    return verdict(number, found)


def test_weak_evidence_takes_more_rounds() -> None:
    task = Task()
    told = [bool(task.see(weak(n, lost=2))) for n in range(1, 8)]
    assert told.index(True) == 2, "twice two of 200 are not enough, three times are"
    assert not any(Task().see(weak(n)) for n in range(1, 4))


def test_evidence_outlives_the_rounds_that_are_kept() -> None:
    task, needed = Task(), 0
    while not task.see(weak(needed := needed + 1)):
        assert needed < 40
    assert needed > KEPT_ROUNDS


def test_many_at_once_are_one_alarm_and_the_failed_round_with_them_none() -> None:
    task = Task()
    rack = [finding(f"node-{n}") for n in range(40)]
    assert task.see(verdict(1, finding("node-3")), verdict(2, finding("node-3"))) == [("AlarmOpened", 1, "node-3")]
    told = task.see(*(verdict(n, *rack, verdict="fail", why="0 of 40") for n in (3, 4, 5)))
    assert told == [("AlarmOpened", 1, "many")], "node-3 goes on among them, the task's failure is theirs"
    assert task.last is not None
    assert task.last.sentence.startswith("40 elements at once (ingress): node-0, ")
    assert "and 32 more" in task.last.sentence
    assert task.see(verdict(6), verdict(7)) == [("AlarmClosed", 2, "many"), ("AlarmClosed", 2, "node-3")]


def test_a_failing_task_is_told_until_a_finding_accounts_for_it() -> None:
    task = Task()
    assert task.see(*(verdict(n, verdict="fail", why="no") for n in (1, 2))) == [("AlarmOpened", 1, "task")]
    told = task.see(*(verdict(n, finding(), verdict="fail", why="no") for n in (3, 4)))
    assert told == [("AlarmOpened", 1, "node-3"), ("AlarmClosed", 2, "task")]
    assert task.last is not None
    assert task.last.sentence == "over: it is told as: node-3 loses 2.0%"
    assert task.see(verdict(5, verdict="fail"), verdict(6, verdict="fail")) == [
        ("AlarmClosed", 2, "node-3"),
        ("AlarmOpened", 3, "task"),
    ]


def test_what_comes_and_goes_stays_open_until_it_is_calm() -> None:
    task, told, number = Task(), [], 0
    for _ in range(6):
        for rounds, bad in ((2, True), (3, False)):
            for _ in range(rounds):
                number += 1
                told += task.see(verdict(number, *([finding()] if bad else [])))
    opened = [kind for kind, _, _ in told if kind == "AlarmOpened"]
    assert len(opened) == FLAPS, "six times bad, three times told"
    assert task.state.told["netreach/reach-task:node-3:ingress:loss"].open
    told = [each for n in range(CALM_AFTER) for each in task.see(verdict(number + 1 + n))]
    assert told == [("AlarmClosed", 2 * FLAPS, "node-3")]


def test_rounds_with_an_unfit_instrument_close_nothing() -> None:
    unfit = Trust(grade="degraded", reasons=("a: CPU throttled",), unfit=("node-3",))
    task = Task()
    task.see(verdict(1, finding()), verdict(2, finding()))
    assert task.see(*(verdict(n, trust=unfit) for n in range(3, 8))) == [("AlarmOpened", 1, "instrument")]
    assert task.state.told["netreach/reach-task:node-3:ingress:loss"].open
    assert ("AlarmClosed", 2, "node-3") in task.see(verdict(8), verdict(9))


def test_rounds_with_another_unfit_agent_close_it() -> None:
    unfit = Trust(grade="degraded", reasons=("a: CPU throttled",), unfit=("node-4",))
    task = Task()
    task.see(verdict(1, finding()), verdict(2, finding()))
    assert ("AlarmClosed", 2, "node-3") in task.see(*(verdict(n, trust=unfit) for n in (3, 4)))


def test_in_a_maintenance_it_is_recorded_as_silenced_and_told_when_that_is_over() -> None:
    silence = Silence(reason="works", from_us=0, until_us=4_000_000, match={"element": "node-*"})
    state, told = TaskAlarms(), []
    for n in range(1, 6):
        state, records = fold(state, verdict(n, finding()), [silence])
        told += records
    assert [(type(r).__name__, r.silenced) for r in told] == [("AlarmOpened", "works"), ("AlarmUpdated", "")]
    state, told = TaskAlarms(), []
    for n, found in ((1, [finding()]), (2, [finding()]), (3, []), (5, [])):
        state, records = fold(state, verdict(n, *found), [silence])
        told += records
    assert [(type(r).__name__, r.silenced) for r in told] == [("AlarmOpened", "works"), ("AlarmClosed", "works")]


def test_the_alarms_of_a_deleted_task_close_once() -> None:
    task = Task()
    task.see(verdict(1, finding()), verdict(2, finding()))
    state, (closed,) = end(task.state, at_us=3_000_000, why="the task was deleted")
    assert (type(closed).__name__, closed.transition, closed.task) == ("AlarmClosed", 2, "netreach/reach-task")
    assert closed.sentence.startswith("over: the task was deleted; was: ")
    assert end(state, at_us=3_000_000, why="") == (state, ())
    assert fold(state, verdict(2, finding(), revision=2)) == (state, ()), "a late verdict of an old round"
    for n in (4, 5):
        state, told = fold(state, verdict(n, finding()))
    assert [(type(r).__name__, r.transition) for r in told] == [("AlarmOpened", 3)]


def test_the_end_of_a_task_finds_its_row_and_no_other() -> None:
    rows: dict[bytes, bytes] = {}
    for n in (1, 2):
        step = take_verdict(rows, verdict(n, finding()), 0)
        assert step.value is not None
        rows[step.key] = step.value
    assert take_end(rows, "other", 9_000_000, 0).value is None
    step = take_end(rows, EXAMPLE.task_uid, 9_000_000, 0)
    assert (step.key, len(step.outgoing)) == (b"0/4b2f", 1)
    assert step.value is not None
    rows[step.key] = step.value
    assert take_end(rows, EXAMPLE.task_uid, 9_000_000, 0).value is None


def test_a_canary_that_is_not_found_in_two_rounds_is_an_alarm_and_one_that_is_found_alarms_nobody() -> None:
    lost = CanarySeen(src_node="node-1", dst_node="node-2", share=0.2, reported=False)
    sung = msgspec.structs.replace(lost, reported=True)
    own = msgspec.structs.replace(finding("node-1>node-2", rate=0.2), kind="canary", direction="pair")
    task = Task()
    assert task.see(*(verdict(n, own, canary=sung) for n in (1, 2, 3))) == []
    assert task.see(verdict(4, canary=lost)) == []
    assert task.see(verdict(5, canary=lost)) == [("AlarmOpened", 1, "canary")]
    assert task.last is not None
    assert (task.last.kind, task.last.severity) == ("unreported", "critical")
    assert "node-2 ignores 20 % of what node-1 sends it by itself" in task.last.sentence
    assert task.see(verdict(6, own, canary=sung), verdict(7, own, canary=sung)) == [("AlarmClosed", 2, "canary")]


def test_of_a_canary_at_an_unfit_agent_the_instrument_s_alarm_tells() -> None:
    lost = CanarySeen(src_node="node-1", dst_node="node-2", share=0.2, reported=False)
    weak = Trust(grade="degraded", reasons=("b: CPU throttled",), unfit=("node-2",))
    assert Task().see(*(verdict(n, canary=lost, trust=weak) for n in (1, 2))) == [("AlarmOpened", 1, "instrument")]
