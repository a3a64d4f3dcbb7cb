import asyncio
import importlib
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from streams.app import GROUPS, build
from streams.clickhouse import ClickHouseAway
from streams.config import StreamsConfig
from streams.judge_rounds import GRACE_US, KEEP_COMPLETE_US, KEEP_US, RECEIPT_LOOKS_S, Judge
from streams.judging.pair_table import PairTable
from streams.judging.served import Served
from streams.metrics import Metrics
from streams.parts import Hold, Parts
from streams.round_store import (
    BUCKETS,
    MAX_VALUE_BYTES,
    RoundStore,
    ValueTooLarge,
    bucket_of,
    partition_of,
)
from streams.rounds import begin, fold
from tests.unit.streams.judging.mesh import START_US, full_mesh, line, scheduled, served_line, served_mesh, table
from topics import apply
from topics.connection import KafkaConnection
from topics.ids import round_id
from topics.mesh_members import Member
from topics.round_progress import (
    AgentFinished,
    AgentGone,
    BatchesStored,
    RoundDeadline,
    RoundProgress,
    StoredBatch,
)
from topics.round_verdicts import RoundVerdict
from topics.task_rounds import RoundCancelled, RoundScheduled

MEMBERS = tuple(Member(slot=i, agent=f"node-{i}", node=f"node-{i}", ipv4=f"10.0.0.{i}") for i in (1, 2, 3))
ROUND = scheduled()
KEY = ("uid", 7)
DEADLINE_US = ROUND.deadline_us


class MemoryTable(dict[bytes, bytes]):
    """A table that knows what is safe: values written before the last `written`."""

    def __init__(self) -> None:
        super().__init__()
        self.safe: dict[bytes, bytes] = {}

    def rows(self) -> MutableMapping[bytes, bytes]:
        return self

    async def written(self) -> None:
        self.safe = dict(self)


@dataclass(kw_only=True)
class Court:
    """A judge with everything around it scripted."""

    table: MemoryTable = field(default_factory=MemoryTable)
    pairs: list[Any] = field(default_factory=lambda: [full_mesh(3)])
    served: list[Served | Exception] = field(default_factory=lambda: [served_mesh(3)])
    members: tuple[Member, ...] | None = MEMBERS
    now_us: int = START_US + 10_200_000
    verdicts: list[RoundVerdict] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    asked: int = 0
    before_publish: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.judge = self.restarted()

    def restarted(self) -> Judge:
        """A new process over the same table."""
        self.judge = Judge(
            store=RoundStore(self.table),
            read_pairs=self._read,
            read_served=self._read_served,
            publish=self._publish,
            find_members=lambda ref: self.members,
            now_us=lambda: self.now_us,
            sleep=self._sleep,
        )
        return self.judge

    async def _read(self, round_: RoundScheduled) -> PairTable:
        self.asked += 1
        answer = self.pairs.pop(0) if len(self.pairs) > 1 else self.pairs[0]
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, PairTable)
        return answer

    async def _read_served(self, round_: RoundScheduled) -> Served:
        answer = self.served.pop(0) if len(self.served) > 1 else self.served[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _publish(self, verdict: RoundVerdict) -> None:
        self.before_publish()
        self.verdicts.append(verdict)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def take(self, *events: RoundProgress, partition: int = 0) -> None:
        asyncio.run(self.judge.take([(e, partition) for e in events]))

    @property
    def told(self) -> list[tuple[int, bool, str]]:
        return [(v.revision, v.final, v.verdict) for v in self.verdicts]


def stored(*agents: str, rows: int = 200, next_offset: int = 5, batch_seq: int = 0) -> BatchesStored:
    batches = tuple(StoredBatch(7, a, 1, batch_seq, rows) for a in agents)
    return BatchesStored(task_uid="uid", partition=0, next_offset=next_offset, at_us=START_US, batches=batches)


def finished(agent: str, **changes: Any) -> AgentFinished:
    values: dict[str, Any] = {
        **{"task_uid": "uid", "round_id": 7, "agent": agent, "node": agent, "incarnation": 1},
        **{"at_us": START_US + 10_000_000, "planned": 200, "sent": 200, "unsent": 0, "batches": 1, "rows": 200},
    }
    return AgentFinished(**values | changes)


def deadline(at_us: int = DEADLINE_US + GRACE_US, **ends: int) -> RoundDeadline:
    offsets = {int(k[1:]): v for k, v in ends.items()}
    return RoundDeadline(task_uid="uid", round_id=7, at_us=at_us, end_offsets=offsets)


NODES = ("node-1", "node-2", "node-3")
ALL: tuple[RoundProgress, ...] = (ROUND, stored(*NODES), *(finished(n) for n in NODES))


def test_the_verdict_comes_with_the_last_event_and_only_then() -> None:
    court = Court()
    court.take(*ALL[:-1])
    assert court.verdicts == []
    court.take(ALL[-1])
    assert court.told == [(1, True, "succeed")]
    assert court.verdicts[0].verdict_delay_s == 0.2
    assert court.slept == []


def test_repeated_events_tell_nothing_new() -> None:
    court = Court()
    court.take(*ALL)
    court.take(*ALL)
    court.take(*reversed(ALL))
    assert court.told == [(1, True, "succeed")]


def test_events_that_come_before_their_round_count() -> None:
    court = Court()
    court.take(*ALL[1:])
    court.take(ROUND)
    assert court.told == [(1, True, "succeed")]


def test_a_replica_that_lags_is_asked_again() -> None:
    court = Court(pairs=[full_mesh(3, n=50), full_mesh(3, n=90), full_mesh(3)])
    court.take(*ALL)
    assert court.told == [(1, True, "succeed")]
    assert (court.asked, court.slept) == (3, [0.02, 0.05])


def test_a_replica_that_stays_behind_leaves_the_round_open_until_a_nudge() -> None:
    court = Court(pairs=[full_mesh(3, n=50)])
    court.take(*ALL)
    assert court.told == []
    assert 4.5 < sum(court.slept) < 6
    court.take(deadline(court.now_us))
    assert (court.told, court.asked) == ([], 10)
    court.pairs = [full_mesh(3)]
    court.take(deadline(court.now_us))
    assert court.told == [(1, True, "succeed")]


def test_while_clickhouse_is_away_rounds_stay_open_and_are_tried_later() -> None:
    court = Court(pairs=[ClickHouseAway("no answer")])
    court.take(*ALL)
    assert (court.told, court.asked) == ([], 1)
    assert court.judge.due([0]) == []
    court.now_us += 3_000_000
    assert court.judge.due([0]) == [(KEY, False)]
    assert court.judge.due([0]) == []
    court.pairs = [full_mesh(3)]
    court.take(deadline(court.now_us))
    assert court.told == [(1, True, "succeed")]


def test_another_event_does_not_hurry_a_round_that_waits() -> None:
    court = Court(pairs=[ClickHouseAway("no answer")])
    court.take(*ALL)
    court.take(finished("node-1", at_us=1))
    assert court.asked == 1


def test_at_the_deadline_the_missing_answer_of_clickhouse_is_said() -> None:
    court = Court(pairs=[ClickHouseAway("no answer")])
    court.take(*ALL[:-1])
    court.take(deadline())
    assert court.told == [(1, False, "fail")]
    assert "cannot be read: ClickHouse does not answer" in court.verdicts[0].why
    court.take(deadline())
    assert len(court.told) == 1
    court.pairs = [full_mesh(3)]
    court.take(ALL[-1])
    court.take(deadline())
    assert court.told == [(1, False, "fail"), (2, True, "succeed")]


def test_a_late_agent_makes_a_second_final_revision() -> None:
    court = Court(pairs=[table([line(a, b) for a in NODES[:2] for b in NODES if a != b])])
    court.take(ROUND, stored(*NODES[:2]), finished("node-1"), finished("node-2"))
    court.take(deadline())
    assert court.told == [(1, False, "fail")]
    gone = AgentGone(task_uid="uid", round_id=7, agent="node-3", node="node-3", at_us=DEADLINE_US + 1, cause="crashed")
    court.take(gone)
    assert court.told == [(1, False, "fail"), (2, True, "fail")]
    assert court.verdicts[1].declared_missing == 200
    court.pairs = [full_mesh(3)]
    court.take(stored("node-3"), finished("node-3"))
    assert court.told[2] == (3, True, "succeed")
    assert court.verdicts[2].declared_missing == 0


def test_the_deadline_is_told_by_the_timer_after_a_grace() -> None:
    court = Court()
    court.take(*ALL[:-1])
    court.now_us = DEADLINE_US + GRACE_US - 1
    assert court.judge.due([0]) == []
    court.now_us += 1
    assert court.judge.due([1, 2]) == []
    assert court.judge.due([0]) == [(KEY, True)]
    court.take(deadline(court.now_us))
    court.now_us += 60_000_000
    assert court.judge.due([0]) == []


def test_a_flush_of_another_round_can_show_that_the_sink_has_passed_the_deadline() -> None:
    court = Court(pairs=[full_mesh(3, n=100)])
    court.take(ROUND, stored("node-1", "node-2"), *ALL[2:], deadline(p0=40))
    assert court.told == [(1, False, "unknown")]
    court.pairs = [table([line(a, b) for a in NODES[:2] for b in NODES if a != b])]
    other = BatchesStored(
        task_uid="uid", partition=0, next_offset=41, at_us=1, batches=(StoredBatch(8, "node-1", 1, 0, 5),)
    )
    court.take(other)
    assert court.told == [(1, False, "unknown"), (2, True, "unknown")]
    assert court.verdicts[1].unexplained == 200


def test_after_a_crash_before_publishing_the_same_revision_is_told() -> None:
    court = Court()

    def crash() -> None:
        raise ConnectionError("killed")

    court.before_publish = crash
    with pytest.raises(ConnectionError):
        court.take(*ALL)
    court.before_publish = lambda: None
    told_at_us = court.now_us
    court.now_us += 5_000_000
    court.restarted()
    court.take(*ALL)
    assert court.told == [(1, True, "succeed")]
    assert court.verdicts[0].at_us == told_at_us


def test_after_a_crash_a_revision_number_never_stands_for_another_verdict() -> None:
    court = Court()
    court.take(*ALL[:-1], deadline())
    first = court.verdicts[0]
    # Killed: what was not known to be in the changelog is gone, all events come again, now in one flush.
    court.table.clear()
    court.table.update(court.table.safe)
    court.restarted()
    court.take(*ALL[:-1], deadline(), ALL[-1])
    assert [(v.revision, v.final) for v in court.verdicts] == [(1, False), (2, True)]
    assert first.revision == 1


def test_the_same_verdict_may_be_told_again_after_a_crash_and_is_equal() -> None:
    court = Court()
    court.take(*ALL)
    court.table.clear()
    court.table.update(court.table.safe)
    court.now_us += 7_000_000
    court.restarted()
    court.take(*ALL)
    assert court.verdicts[0] == court.verdicts[1]


def test_what_was_left_untold_by_an_earlier_process_is_looked_at_after_the_start() -> None:
    court = Court(pairs=[ClickHouseAway("no answer")])
    court.take(*ALL)
    court.pairs = [full_mesh(3)]
    court.restarted()
    assert court.judge.due([0]) == [(KEY, False)]
    court.take(deadline(court.now_us))
    assert court.told == [(1, True, "succeed")]
    court.restarted()
    assert court.judge.due([0]) == []


def test_a_membership_that_has_not_arrived_is_waited_for() -> None:
    court = Court(members=None)
    court.take(*ALL)
    assert court.told == []
    court.members = MEMBERS
    court.now_us += 3_000_000
    assert court.judge.due([0]) == [(KEY, False)]
    court.take(deadline(court.now_us))
    assert court.told == [(1, True, "succeed")]


def test_a_membership_that_never_arrives_is_said_at_the_deadline() -> None:
    court = Court(members=None)
    court.take(*ALL[:-1], deadline())
    assert court.told[0][:2] == (1, False)
    assert "membership default/1 is not known" in court.verdicts[0].why
    assert court.verdicts[0].planned == 600
    assert court.verdicts[0].verdict == "unknown"


def test_the_global_stop_concerns_every_open_round() -> None:
    court = Court(pairs=[table([])])
    court.take(ROUND)
    court.take(RoundCancelled(round_id=0, task_uid="", reason="stop all", at_us=START_US + 1))
    court.take(deadline())
    assert court.told == [(1, True, "unknown")]
    assert court.verdicts[0].why.startswith("cancelled: stop all")


def test_a_round_that_is_over_leaves_a_marker_that_late_repeats_do_not_move() -> None:
    court = Court()
    court.take(*ALL)
    court.now_us += KEEP_COMPLETE_US + 1
    court.take(scheduled(round_id=8, number=2))
    assert [k for k in court.table if b"0000000000000007" in k] == [b"0/uid/0000000000000007/c"]
    court.take(*ALL)
    assert court.told == [(1, True, "succeed")]


def test_an_incomplete_round_is_kept_for_a_late_spool() -> None:
    court = Court()
    court.take(*ALL[:-1], deadline())
    court.now_us += KEEP_COMPLETE_US + 60_000_000
    court.take(scheduled(round_id=8, number=2))
    court.take(ALL[-1])
    assert court.told[-1] == (2, True, "succeed")
    court.now_us += KEEP_US + KEEP_COMPLETE_US
    court.take(scheduled(round_id=9, number=3))
    assert b"0/uid/0000000000000007/c" in court.table


def test_rounds_of_other_partitions_are_left_alone() -> None:
    court = Court()
    court.take(ROUND, partition=2)
    assert {partition_of(key) for key in court.table} == {2}
    court.now_us = DEADLINE_US + 10_000_000
    assert court.judge.due([0, 1, 3]) == []
    assert court.judge.due([2]) == [(KEY, True)]


def test_a_state_survives_the_table() -> None:
    rows = MemoryTable()
    store, state = RoundStore(rows), begin(task_uid="a/b", round_id=2**64 - 1, partition=3)
    event = msgspec.structs.replace(stored(*(f"agent-{i}" for i in range(300))), task_uid="a/b")
    batches = tuple(StoredBatch(2**64 - 1, b.agent, 1, 0, 9) for b in event.batches)
    new = fold(state, msgspec.structs.replace(event, batches=batches))
    store.save(old=state, new=new)
    again = RoundStore(rows).load(("a/b", 2**64 - 1), 3)
    assert again.head == new.head
    assert again.shares == new.shares
    assert list(RoundStore(rows).open({3})) == [(("a/b", 2**64 - 1), 3)]
    assert store.load(("a/b", 2**64 - 1), 3) is new


def test_five_thousand_agents_keep_every_value_small_and_an_event_rewrites_one_bucket() -> None:
    rows = MemoryTable()
    store, state = RoundStore(rows), begin(task_uid="uid", round_id=7)
    agents = [f"a-rather-long-node-name-of-a-cluster-{i:05}" for i in range(5000)]
    new = state
    for start in range(0, 5000, 500):
        new = fold(new, stored(*agents[start : start + 500]))
    for agent in agents[::10]:
        new = fold(new, finished(agent, missing_cause="agent died", declared_missing=3))
    store.save(old=state, new=new)
    assert len(rows) == BUCKETS + 1
    assert max(map(len, rows.values())) < MAX_VALUE_BYTES / 2
    before = dict(rows)
    later = fold(new, finished(agents[3]))
    store.save(old=new, new=later)
    changed = {k for k, v in rows.items() if before.get(k) is not v}
    assert changed == {b"0/uid/0000000000000007/h", b"0/uid/0000000000000007/%02x" % bucket_of(agents[3])}


def test_a_value_that_would_be_too_large_is_refused_before_anything_is_written() -> None:
    rows = MemoryTable()
    state = begin(task_uid="uid", round_id=7)
    new = fold(state, scheduled(unresolved=tuple("x" * 1000 for _ in range(120))))
    with pytest.raises(ValueTooLarge, match="at most 100000"):
        RoundStore(rows).save(old=state, new=new)
    assert rows == {}


def test_events_of_several_partitions_in_one_flush_keep_to_their_own() -> None:
    court = Court()
    other = msgspec.structs.replace(ROUND, task_uid="other", round_id=9)
    events: Sequence[tuple[RoundProgress, int]] = [(ROUND, 1), (other, 3)]
    asyncio.run(court.judge.take(events))
    assert sorted(court.table) == [b"1/uid/0000000000000007/h", b"3/other/0000000000000009/h"]


@pytest.mark.parametrize("service", ["judge", "alarms"])
def test_the_service_attaches_to_an_app_with_its_table_and_agent(service: str) -> None:
    kafka = KafkaConnection(bootstrap="127.0.0.1:1")
    config = StreamsConfig(kafka=kafka, clickhouse_url="http://writer@127.0.0.1:1/kpatrol")
    app = build(app_id=GROUPS[service], kafka=kafka)
    importlib.import_module(f"streams.{service}").attach(app, Parts(config=config, metrics=Metrics(), hold=Hold()))
    (made,) = app.tables.values()
    assert f"{app.conf.id}-{made.name}-changelog" in {wanted.name for wanted in apply.wanted()}
    assert made.partition_for_key(b"3/uid/0000000000000007/h") == 3
    assert (made.key_serializer, made.value_serializer) == ("raw", "raw")
    assert list(app.agents) == [service]


def test_receipts_that_are_a_moment_late_are_waited_for() -> None:
    nothing = Served.of({})
    court = Court(served=[nothing, nothing, served_mesh(3, lambda src, dst: 0.01)])
    court.take(*ALL)
    (verdict,) = court.verdicts
    assert court.slept == list(RECEIPT_LOOKS_S[:2])
    assert (verdict.loss_ends, verdict.loss.sent) == ("both", 6 * (200 + 200))
    assert verdict.forward_loss is not None
    assert verdict.reverse_loss is not None
    assert (verdict.forward_loss.lost, verdict.reverse_loss.lost) == (0, 12)


@pytest.mark.parametrize(
    "served",
    [Served.of({}), ClickHouseAway("gone"), served_mesh(3, received=99)],
    ids=["none", "unreadable", "one request short"],
)
def test_a_round_without_its_receipts_is_judged_by_the_client_alone(served: Served | Exception) -> None:
    court = Court(served=[served])
    court.take(*ALL)
    (verdict,) = court.verdicts
    assert (verdict.verdict, verdict.final, verdict.unexplained) == ("succeed", True, 0)
    assert (verdict.loss_ends, verdict.loss.sent) == ("client", 6 * 200)
    assert (verdict.forward_loss, verdict.reverse_loss) == (None, None)
    assert sum(court.slept) <= 0.5


def test_a_pair_without_receipts_has_no_direction_and_the_others_have() -> None:
    counts = dict(served_mesh(3).counts)
    counts |= served_line("node-1", "node-2", received=12)
    court = Court(served=[Served.of(counts)])
    court.take(*ALL)
    (verdict,) = court.verdicts
    assert verdict.loss_ends == "some"
    assert verdict.reverse_loss is not None
    assert verdict.reverse_loss.sent == 5 * 200


def test_after_waiting_in_vain_the_next_round_is_not_kept_waiting() -> None:
    court = Court(served=[Served.of({})])
    court.take(*ALL)
    assert court.slept == list(RECEIPT_LOOKS_S)
    court.slept.clear()
    court.take(finished("node-1", declared_missing=1, planned=201, at_us=START_US + 10_000_001))
    assert court.slept == []


def rare(lost: int) -> PairTable:
    """node-3 loses a few of the 800 packets that it receives."""
    return full_mesh(3, lambda src, dst: lost / 400 if dst == "node-3" else 0.0, packets_sent=400)


def of_round(number: int) -> tuple[RoundProgress, ...]:
    """All the events of a round of the same task."""
    number_id = round_id(task_uid="uid", number=number)
    start_us = START_US + number * 60_000_000
    scheduled_ = scheduled(number=number, round_id=number_id, start_us=start_us, deadline_us=start_us + 60_000_000)
    batches = tuple(StoredBatch(number_id, a, 1, 0, 200) for a in NODES)
    done = BatchesStored(task_uid="uid", partition=0, next_offset=5 * number, at_us=start_us, batches=batches)
    return (scheduled_, done, *(finished(n, round_id=number_id) for n in NODES))


def test_a_rare_loss_is_pooled_over_rounds_also_by_who_takes_over() -> None:
    court = Court(pairs=[rare(1)], served=[Served.of({})])
    for number in (1, 2, 3):
        court.take(*of_round(number))
        court.restarted()
    first, second, third = court.verdicts
    assert first.findings == second.findings == ()
    assert [(f.element, f.direction, f.rounds) for f in third.findings] == [("node-3", "ingress", 3)]
    assert third.findings[0].loss.lost == 6


def test_what_is_remembered_is_little_and_goes_with_the_rounds() -> None:
    court = Court(pairs=[rare(3)], served=[Served.of({})])
    for number in range(1, 7):
        court.take(*of_round(number))
    kept = [key for key in court.table if key.endswith(b"/m")]
    assert len(kept) == 3
    assert max(len(court.table[key]) for key in kept) < 1000
    court.now_us += KEEP_US * 4
    court.take(scheduled(number=9, round_id=9))
    assert not [key for key in court.table if key.endswith(b"/m")]
