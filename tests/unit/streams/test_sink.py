"""The sink: what a flush stores, what it recognises, what it says, and what it does when something fails."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

from streams.clickhouse import ClickHouseAway, ClickHouseRefused
from streams.dead_letter import Outgoing, Run, TooManyInvalid
from streams.flush import StoredRounds, announcements, identity, plan_flush, token
from streams.metrics import Metrics
from streams.parts import Hold
from streams.patience import GaveUp, Patience, delay_s
from streams.rows import ROWS
from streams.sink import ProbeKeeper, RowKeeper, decode_all, flush_events, positions
from tests.unit.streams.batches import START_US, delivered, encoded, head
from topics import agent_reports, probe_results, round_progress
from topics.round_progress import BatchesStored, StoredBatch

DAY_US = 86_400_000_000


@dataclass
class FakeDatabase:
    """Keeps rows by token as ClickHouse does; fails as told: before the insert, or after it (outcome unknown)."""

    inserted: list[tuple[str, str, pa.Table]] = field(default_factory=list)
    asked: list[dict[int, int]] = field(default_factory=list)
    fail_before: int = 0
    fail_after: int = 0

    def ping(self) -> None:
        return None

    def insert(self, *, table: str, rows: pa.Table, token: str) -> None:
        if self.fail_before:
            self.fail_before -= 1
            raise ClickHouseAway("connection refused")
        if all(token != known for _, known, _ in self.inserted):
            self.inserted.append((table, token, rows))
        if self.fail_after:
            self.fail_after -= 1
            raise ClickHouseAway("connection reset")

    def stored_batches(self, rounds: Mapping[int, int]) -> Sequence[tuple[int, str, int, int]]:
        self.asked.append(dict(rounds))
        return sorted({key for key in self._identities() if key[0] in rounds})

    def _identities(self) -> list[tuple[int, str, int, int]]:
        names = ("round_id", "agent", "incarnation", "batch_seq")
        return [
            key
            for _, _, rows in self.inserted
            for key in zip(*(rows.column(n).to_pylist() for n in names), strict=True)
        ]

    def rows(self) -> int:
        return sum(rows.num_rows for _, _, rows in self.inserted)


@dataclass
class FakePublisher:
    sent: list[Outgoing] = field(default_factory=list)
    fails: bool = False

    async def send(self, records: Sequence[Outgoing]) -> None:
        if self.fails:
            raise ConnectionError("no broker")
        self.sent += records


@dataclass(frozen=True)
class Message:
    """As much of Kafka's message as the sink reads."""

    partition: int
    offset: int
    value: bytes | None
    key: bytes | None = b"a0"
    timestamp: float = 1.5


async def no_sleep(_: float) -> None:
    return None


def patience(leaving: str = "") -> Patience:
    return Patience(hold=Hold(), metrics=Metrics(), leaving=lambda: leaving, sleep=no_sleep)


def probe_keeper(database: FakeDatabase, *, generation: list[int] | None = None, leaving: str = "") -> ProbeKeeper:
    count = generation or [1]
    return ProbeKeeper(
        database=database,
        patience=patience(leaving),
        metrics=Metrics(),
        generation=lambda: count[0],
        now_us=lambda: 5,
    )


def run_flush(keeper: Any, messages: list[Message], *, publisher: Any = None, run: Run | None = None) -> list[Any]:
    """One flush; what was announced, decoded."""
    to = publisher or FakePublisher()
    asyncio.run(flush_events(messages, keeper=keeper, run=run or Run(), publisher=to, metrics=Metrics()))
    return [round_progress.TOPIC.decode(o.value) for o in to.sent if o.topic == round_progress.TOPIC.name]


def message(offset: int, *, partition: int = 0, rows: int = 5, **head_changes: Any) -> Message:
    return Message(partition=partition, offset=offset, value=encoded(rows=rows, of=head(**head_changes)))


def test_a_flush_is_one_insert_and_names_every_batch() -> None:
    database = FakeDatabase()
    said = run_flush(probe_keeper(database), [message(3, batch_seq=0), message(4, batch_seq=1, rows=2)])
    assert [(t, r.num_rows) for t, _, r in database.inserted] == [("probe", 7)]
    assert said == [
        BatchesStored(
            task_uid="uid",
            partition=0,
            next_offset=5,
            at_us=5,
            batches=(StoredBatch(7, "a0", 1, 0, 5), StoredBatch(7, "a0", 1, 1, 2)),
        )
    ]


def test_a_delivery_again_is_not_inserted_but_named() -> None:
    database = FakeDatabase()
    keeper = probe_keeper(database)
    run_flush(keeper, [message(3)])
    (said,) = run_flush(keeper, [message(3), message(4, batch_seq=1)])
    assert database.rows() == 10
    assert [b.batch_seq for b in said.batches] == [0, 1]
    assert said.duplicate_batches == 1


def test_a_spool_published_again_under_new_offsets_is_recognised() -> None:
    database = FakeDatabase()
    keeper = probe_keeper(database)
    run_flush(keeper, [message(3)])
    run_flush(keeper, [message(90)])
    assert database.rows() == 5


def test_the_same_batch_twice_in_one_flush_is_one() -> None:
    database = FakeDatabase()
    (said,) = run_flush(probe_keeper(database), [message(3), message(4)])
    assert database.rows() == 5
    assert (len(said.batches), said.duplicate_batches, said.next_offset) == (1, 1, 5)


def test_another_incarnation_is_another_batch() -> None:
    database = FakeDatabase()
    run_flush(probe_keeper(database), [message(3, incarnation=1), message(4, incarnation=2)])
    assert database.rows() == 10


def test_a_new_process_asks_what_is_stored_and_heals_a_lost_announcement() -> None:
    database = FakeDatabase()
    with pytest.raises(ConnectionError):
        run_flush(probe_keeper(database), [message(3)], publisher=FakePublisher(fails=True))
    (said,) = run_flush(probe_keeper(database), [message(3), message(4, batch_seq=1)])
    assert database.rows() == 10
    assert [b.batch_seq for b in said.batches] == [0, 1]
    assert database.asked[-1] == {7: START_US}


def test_a_round_is_asked_for_once_until_the_group_is_rebalanced() -> None:
    database, generation = FakeDatabase(), [1]
    keeper = probe_keeper(database, generation=generation)
    run_flush(keeper, [message(3)])
    run_flush(keeper, [message(4, batch_seq=1)])
    assert len(database.asked) == 1
    generation[0] = 2
    run_flush(keeper, [message(5, batch_seq=2)])
    assert len(database.asked) == 2


def test_what_another_member_stored_meanwhile_is_recognised_after_a_rebalance() -> None:
    database, generation = FakeDatabase(), [1]
    mine, other = probe_keeper(database, generation=generation), probe_keeper(database)
    run_flush(mine, [message(3)])
    run_flush(other, [message(4, batch_seq=1)])
    generation[0] = 3
    run_flush(mine, [message(4, batch_seq=1)])
    assert database.rows() == 10


@pytest.mark.parametrize("failures", [{"fail_before": 5}, {"fail_after": 1}, {"fail_before": 2, "fail_after": 2}])
def test_a_failing_insert_is_tried_again_with_the_same_token(failures: dict[str, int]) -> None:
    database = FakeDatabase(**failures)
    (said,) = run_flush(probe_keeper(database), [message(3), message(4, batch_seq=1)])
    assert database.rows() == 10
    assert len(said.batches) == 2


def test_a_rebalance_ends_the_waiting_and_nothing_is_said() -> None:
    database, publisher = FakeDatabase(fail_before=1), FakePublisher()
    with pytest.raises(GaveUp, match="a rebalance has begun"):
        run_flush(probe_keeper(database, leaving="a rebalance has begun"), [message(3)], publisher=publisher)
    assert publisher.sent == []


def test_a_refused_insert_is_not_tried_again() -> None:
    class Refusing(FakeDatabase):
        def insert(self, *, table: str, rows: pa.Table, token: str) -> None:
            self.fail_before += 1
            raise ClickHouseRefused("no such column", code=16)

    database = Refusing()
    with pytest.raises(ClickHouseRefused):
        run_flush(probe_keeper(database), [message(3)])
    assert database.fail_before == 1


def test_rows_of_two_round_days_go_in_two_inserts() -> None:
    database = FakeDatabase()
    second_day = [
        message(4, round_id=8, start_us=START_US + DAY_US),
        message(5, round_id=8, start_us=START_US + DAY_US),
    ]
    run_flush(probe_keeper(database), [message(3), *second_day])
    assert [r.num_rows for _, _, r in database.inserted] == [5, 5]
    assert [len(set(r.column("round_at").to_pylist())) for _, _, r in database.inserted] == [1, 1]


def test_an_insert_holds_whole_batches_up_to_its_bound() -> None:
    items = [delivered(offset=i, rows=4, batch_seq=i) for i in range(5)]
    flush = plan_flush(items, stored={7: set()}, max_rows=8)
    assert [[d.offset for d in insert.batches] for insert in flush.inserts] == [[0, 1], [2, 3], [4]]


def test_an_empty_batch_is_named_and_inserts_nothing() -> None:
    database = FakeDatabase()
    (said,) = run_flush(probe_keeper(database), [message(3, rows=0)])
    assert database.inserted == []
    assert said.batches == (StoredBatch(7, "a0", 1, 0, 0),)


def test_tasks_and_partitions_are_told_apart() -> None:
    items = [delivered(partition=p, offset=1, agent=f"a{p}", task_uid=uid) for p in (0, 1) for uid in ("u", "v")]
    said = announcements(items, repeats=(), positions={0: 2, 1: 9}, at_us=0)
    assert {(s.task_uid, s.partition, s.next_offset) for s in said} == {
        ("u", 0, 2),
        ("v", 0, 2),
        ("u", 1, 9),
        ("v", 1, 9),
    }


def test_the_token_is_of_the_batches_not_of_their_order() -> None:
    one, two = delivered(batch_seq=1), delivered(batch_seq=2)
    assert token([one, two]) == token([two, one])
    assert token([one]) != token([one, two])


def test_known_rounds_are_bounded_and_the_oldest_goes_first() -> None:
    known = StoredRounds(capacity=3)
    known.begin(1)
    for round_id in (1, 2, 3):
        items = [delivered(round_id=round_id, batch_seq=seq) for seq in range(2)]
        known.learn(known.unknown(items), [])
        known.add(items)
    assert list(known.rounds) == [3]
    assert known.rounds[3] == {identity(delivered(batch_seq=0)), identity(delivered(batch_seq=1))}


def test_a_bad_record_goes_to_the_dead_letter_topic_and_the_rest_goes_on() -> None:
    database, publisher = FakeDatabase(), FakePublisher()
    bad = Message(partition=2, offset=8, value=b"garbage", key=b"k")
    run_flush(probe_keeper(database), [message(3), bad, message(4, batch_seq=1)], publisher=publisher)
    assert database.rows() == 10
    (dead,) = [o for o in publisher.sent if o.topic == "probe-results-v1-dlq"]
    assert (dead.key, dead.value) == (b"k", b"garbage")
    headers = dict(dead.headers)
    assert headers["error"].startswith(b"not an Arrow IPC stream")
    assert (headers["source_partition"], headers["source_offset"]) == (b"2", b"8")


def test_too_many_bad_records_in_a_row_stop_the_service_over_flushes() -> None:
    keeper, publisher, run = probe_keeper(FakeDatabase()), FakePublisher(), Run(limit=5)
    bad = [Message(partition=0, offset=i, value=b"garbage") for i in range(4)]
    run_flush(keeper, [*bad, message(9), *bad], publisher=publisher, run=run)
    sent = len(publisher.sent)
    with pytest.raises(TooManyInvalid, match="5 records in a row"):
        run_flush(keeper, bad, publisher=publisher, run=run)
    assert len(publisher.sent) == sent


def test_tombstones_say_nothing() -> None:
    came = decode_all(probe_keeper(FakeDatabase()), [Message(partition=0, offset=0, value=None)])
    assert (came.good, came.dead, came.valid) == ((), (), ())


def test_positions_are_behind_the_last_record_of_each_partition() -> None:
    messages = [message(3, partition=1), message(9, partition=0), message(4, partition=1)]
    assert positions(messages) == {0: 10, 1: 5}


def test_small_topics_are_inserted_with_a_token_of_their_records() -> None:
    database = FakeDatabase()
    topic, to_rows = ROWS["agent-reports-v1"]
    keeper = RowKeeper(topic=topic, to_rows=to_rows, database=database, patience=patience(), metrics=Metrics())
    report = Message(partition=0, offset=1, value=agent_reports.TOPIC.encode(agent_reports.EXAMPLE))
    assert run_flush(keeper, [report, Message(partition=0, offset=2, value=report.value)]) == []
    run_flush(keeper, [report])
    assert [(t, r.num_rows) for t, _, r in database.inserted] == [("agent", 2), ("agent", 1)]


def test_a_record_whose_number_fits_no_column_is_dead() -> None:
    topic, to_rows = ROWS["agent-reports-v1"]
    keeper = RowKeeper(topic=topic, to_rows=to_rows, database=FakeDatabase(), patience=patience(), metrics=Metrics())
    value = agent_reports.TOPIC.encode(agent_reports.EXAMPLE).replace(
        b'"interval_s"', b'"running_rounds":70000,"interval_s"'
    )
    came = decode_all(keeper, [Message(partition=0, offset=1, value=value)])
    assert came.valid == (False,)
    assert "does not fit its table" in came.error


def test_waiting_is_told_to_the_watchdog_and_ends() -> None:
    hold, seen = Hold(), []
    answers: list[Exception | None] = [ClickHouseAway("1"), ClickHouseAway("2"), None]

    def work() -> str:
        seen.append(hold.reason)
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return "done"

    waiting = Patience(hold=hold, metrics=Metrics(), leaving=lambda: "", sleep=no_sleep)
    assert asyncio.run(waiting("insert", work)) == "done"
    assert seen == ["", "insert", "insert"]
    assert hold.reason == ""


def test_pauses_double_up_to_a_bound() -> None:
    assert [delay_s(n) for n in (0, 1, 2, 10, 10_000)] == [0.1, 0.2, 0.4, 2.0, 2.0]


def test_the_example_of_the_contract_is_stored() -> None:
    database = FakeDatabase()
    run_flush(
        probe_keeper(database), [Message(partition=0, offset=0, value=probe_results.encode(probe_results.EXAMPLE))]
    )
    assert database.rows() == 1
