from dataclasses import dataclass, field
from typing import Any

import msgspec

from streams.alarm_rules import KEPT_CLOSED, TaskAlarms, fold
from streams.alarms import take_verdict
from streams.round_store import MAX_VALUE_BYTES
from topics import alarms
from topics.alarms import AlarmRecord
from topics.round_verdicts import EXAMPLE, Finding, Loss, RoundVerdict, Trust


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
    weak = Trust(grade="degraded", reasons=("a: CPU throttled",))
    task = Task()
    assert task.see(*(verdict(n, finding(), trust=weak) for n in (1, 2))) == [("AlarmOpened", 1, "instrument")]


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
    for n in range(1, 600, 4):
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
