"""The watchdog's decisions, from samples alone; and one turn of the thread against a consumer's private state."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import GroupAuthorizationFailedError

from streams.config import StreamsConfig
from streams.metrics import Metrics
from streams.parts import EXIT_RESTART, Hold, Parts
from streams.watchdog import MAX_UNPARKS, Progress, Sample, Verdict, Watchdog, judge_health
from topics.connection import KafkaConnection

NOW = 1000.0


def samples(seconds: int, *, position: Any = 5, committed: Any = 5, end: Any = 5, **fields: Any) -> list[Sample]:
    """One sample a second up to NOW; the numbers may be functions of the second."""

    def value(of: Any, at: int) -> Any:
        return of(at) if callable(of) else of

    return [
        Sample(
            at_s=NOW - seconds + at,
            beat_s=NOW - seconds + at,
            partitions={
                "t/0": Progress(position=value(position, at), committed=value(committed, at), end=value(end, at))
            },
            **{name: value(v, at) for name, v in fields.items()},
        )
        for at in range(seconds + 1)
    ]


def verdict(seen: list[Sample]) -> Verdict:
    return judge_health(seen, NOW)


def test_no_samples_are_no_fault() -> None:
    assert verdict([]).action == "ok"


def test_an_idle_consumer_is_well() -> None:
    assert verdict(samples(200)).action == "ok"


def test_a_working_consumer_is_well() -> None:
    assert (
        verdict(samples(200, position=lambda at: at + 3, committed=lambda at: at, end=lambda at: at + 9)).action == "ok"
    )


def test_an_error_that_nobody_asks_for_is_unparked() -> None:
    found = verdict([*samples(3), Sample(at_s=NOW, beat_s=NOW, error="UnknownError")])
    assert (found.action, found.reason) == ("unpark", "UnknownError")


def test_an_error_that_comes_again_and_again_ends_the_process() -> None:
    parked = samples(60, error=lambda at: "UnknownError" if at % 5 == 0 else "")
    assert sum(1 for s in parked if s.error) > MAX_UNPARKS
    assert verdict(parked).action == "exit"


def test_a_coordination_that_has_ended_ends_the_process() -> None:
    assert verdict(samples(2, coordination_ended=True)).action == "exit"


def test_a_hanging_loop_ends_the_process() -> None:
    found = verdict([Sample(at_s=NOW, beat_s=NOW - 61)])
    assert (found.action, found.reason) == ("exit", "the event loop has not answered for 61 s")
    assert verdict([Sample(at_s=NOW, beat_s=NOW - 59)]).action == "ok"


def test_a_recovery_that_does_not_get_on_ends_the_process() -> None:
    found = verdict(samples(50, busy=True, restored=7))
    assert (found.action, found.reason) == ("exit", "a table's recovery does not get on for more than 45 s")
    assert verdict(samples(40, busy=True, restored=7)).action == "ok", "not for so long yet"
    assert verdict(samples(170, busy=True, restored=lambda at: at // 30)).action == "ok", "slow, but it gets on"
    assert verdict(samples(170, busy=True)).action == "ok", "the group still agrees"


def test_offsets_that_are_not_committed_end_the_process() -> None:
    found = verdict(samples(70, position=9, end=9))
    assert found.action == "exit"
    assert "t/0: records up to 9 are fetched, but the committed offset stays at 5" in found.reason


def test_offsets_that_are_not_committed_yet_are_no_fault() -> None:
    assert verdict(samples(50, position=9, end=9)).action == "ok"


def test_the_first_commit_of_a_new_group_is_missed_too() -> None:
    growing = samples(100, position=lambda at: min(at, 20), committed=None, end=lambda at: min(at, 20))
    assert verdict(growing).action == "exit"
    assert verdict(samples(100, position=20, committed=None, end=20)).action == "ok"


def test_records_that_are_not_fetched_end_the_process() -> None:
    found = verdict(samples(70, end=50))
    assert found.action == "exit"
    assert "nothing is fetched at 5, though the partition ends at 50" in found.reason


@pytest.mark.parametrize("state", ["busy", "holding"])
def test_offsets_need_not_move_in_a_rebalance_or_while_the_service_waits(state: str) -> None:
    excused = samples(100, position=9, end=9, **{state: lambda at: at == 70})
    assert verdict(excused).action == "ok"


def test_waiting_for_clickhouse_for_ten_minutes_is_no_fault() -> None:
    assert verdict(samples(600, position=9, end=90, holding=True)).action == "ok"


def test_a_recovery_without_end_ends_the_process() -> None:
    assert verdict(samples(200, busy=True)).action == "exit"
    assert verdict(samples(150, busy=True)).action == "ok"


def test_a_partition_that_came_with_a_rebalance_starts_anew() -> None:
    before = [s.__class__(at_s=s.at_s, beat_s=s.beat_s) for s in samples(100)[:60]]
    assert verdict([*before, *samples(100, position=9, end=9)[60:]]).action == "ok"


class FakeLoop:
    """Runs at once what is given to it from another thread."""

    def call_soon_threadsafe(self, act: Any, *arguments: Any) -> None:
        act(*arguments)


class Coordinator(GroupCoordinator):  # type: ignore[misc]
    """aiokafka's coordinator, parked as `_push_error_to_user` leaves it; only what check_errors reads is there."""

    def __init__(self) -> None:
        self.consumed: list[None] = []
        self._pending_exception = GroupAuthorizationFailedError("kpatrol-sink")
        self._coordination_task = SimpleNamespace(done=lambda: False)
        self._error_consumed_fut = SimpleNamespace(set_result=self.consumed.append)


def watchdog(coordinator: Any, ended: list[int]) -> Watchdog:
    kafka = SimpleNamespace(
        _coordinator=coordinator, _subscription=SimpleNamespace(subscription=SimpleNamespace(assignment=None))
    )
    consumer = SimpleNamespace(_thread=SimpleNamespace(_consumer=kafka, thread_loop=FakeLoop()), _committed_offset={})
    tables = SimpleNamespace(changelog_topics=set(), actives_ready=False)
    app = SimpleNamespace(
        loop=FakeLoop(),
        _consumer=consumer,
        rebalancing=False,
        should_stop=False,
        tables=tables,
        consumer_generation_id=1,
    )
    config = StreamsConfig(kafka=KafkaConnection(bootstrap="b:1"), clickhouse_url="http://c:1/d")
    return Watchdog(app=app, parts=Parts(config=config, metrics=Metrics(), hold=Hold()), end=ended.append)


def test_a_parked_coordinator_is_set_going_by_aiokafkas_own_check() -> None:
    coordinator, ended = Coordinator(), []
    guard = watchdog(coordinator, ended)
    guard.look(guard._beat_s + 1)
    assert coordinator.consumed == [None]
    assert coordinator._pending_exception is None
    guard.look(guard._beat_s + 2)
    assert ended == []


def test_an_ended_coordination_exits_so_that_the_process_is_started_again() -> None:
    coordinator, ended = Coordinator(), []
    coordinator._pending_exception = None
    coordinator._coordination_task = SimpleNamespace(done=lambda: True)
    guard = watchdog(coordinator, ended)
    guard.look(guard._beat_s + 1)
    assert ended == [EXIT_RESTART]


def test_a_parked_consumer_whose_thread_has_crashed_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    guard = watchdog(Coordinator(), ended)

    def closed(*_: Any) -> None:
        raise RuntimeError("Event loop is closed")

    monkeypatch.setattr(guard._app._consumer._thread.thread_loop, "call_soon_threadsafe", closed)
    guard.look(guard._beat_s + 1)
    assert ended == [EXIT_RESTART]
