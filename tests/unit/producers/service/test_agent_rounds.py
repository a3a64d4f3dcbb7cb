"""A round's life on one agent, with a load engine that does as it is told and a Kafka that comes and goes."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from producers.journal import Journal
from producers.load.engine import LoadAccount
from producers.rounds import KEEP_US
from producers.rows import Rows
from producers.schedule import Clock
from tests.unit.producers.service.agent_stage import (
    CHUNK,
    Stage,
    a_round,
    a_row,
    column,
    cut_file,
    ended,
    send_until_cancelled,
    staged,
    stop_everything,
    until,
)
from topics.mesh_members import Member, chunks
from topics.round_progress import AGENT_DIED, UNSENT_HEARD_LATE, AgentFinished
from topics.task_rounds import MembersRef, RoundCancelled


def balanced(told: AgentFinished) -> bool:
    return told.planned == told.sent + told.unsent + told.declared_missing


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scene()

    asyncio.run(bounded())


def test_a_round_leaves_its_rows_and_then_its_account(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path) as stage:
            round_ = a_round()
            stage.hear(round_)
            (told,) = await stage.accounts(1)
            (batch,) = stage.kafka.batches()
            assert [r.topic for r in stage.kafka.records] == ["probe-results-v1", "round-progress-v1"]
            assert stage.kafka.records[0].key == b"node-1"
            assert stage.kafka.records[0].headers["batch_seq"] == b"0"
            assert stage.kafka.records[1].key == round_.task_uid.encode()
            assert (told.planned, told.sent, told.rows, told.batches, told.unsent) == (20, 20, 20, 1, 0)
            assert balanced(told)
            assert told.lateness_p99_us == 2
            assert batch.head.targets[0].dst_ip == "127.0.0.2"
            assert batch.head.targets[0].src_ip == "127.0.0.1"
            assert batch.head.start_us == round_.start_us
            assert batch.head.trace_id == bytes(range(16)).hex()
            assert list(column(batch, "seq")) == list(range(20))
            assert len(stage.spool) == 0
            assert stage.journal.accounts[round_.round_id, 1000].story.finished

    play(scene)


def test_a_round_is_run_once_however_often_it_is_heard(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path) as stage:
            round_ = a_round()
            stage.hear(round_, round_)
            await stage.accounts(1)
            stage.hear(round_, a_round(number=2))
            assert sorted(told.round_id for told in await stage.accounts(2)) == [101, 102]
        async with staged(tmp_path, incarnation=2000) as later:
            later.hear(round_, a_round(number=3))
            assert [told.round_id for told in await later.accounts(1)] == [103]

    play(scene)


def test_rounds_of_others_are_left_alone(tmp_path: Path) -> None:
    async def scene() -> None:
        others = tuple(Member(slot=i, agent=f"other-{i}", node="x", ipv4="127.0.0.9") for i in (1, 2))
        chunk = chunks(group="default", epoch=2, at_us=0, members=others)[0]
        ref = MembersRef(group="default", epoch=2, digest=chunk.digest, count=2)
        async with staged(tmp_path) as stage:
            stage.members.add(chunk)
            stage.hear(
                replace(a_round(number=1), members=ref),
                replace(a_round(number=3), members=replace(ref, group="elsewhere")),
                replace(a_round(number=5, deadline_in_s=-1.0), members=ref),
                a_round(number=4),
            )
            assert [told.round_id for told in await stage.accounts(1)] == [104]
            assert not stage.journal.known(101)

    play(scene)


def test_a_round_published_after_its_deadline_is_accounted_for_and_not_run(tmp_path: Path) -> None:
    """Kafka was away: the round, and perhaps its membership, came too late for everybody."""

    async def scene() -> None:
        newer = chunks(group="default", epoch=5, at_us=0, members=CHUNK.members[:2])[0]
        ref = MembersRef(group="default", epoch=5, digest=newer.digest, count=2)
        async with staged(tmp_path) as stage:
            stage.hear(None, late := a_round(starts_in_s=-9.0, deadline_in_s=-1.0), late)
            (told,) = await stage.accounts(1)
            assert (told.planned, told.unsent, told.sent, told.batches) == (20, 20, 0, 0)
            assert told.unsent_causes == {UNSENT_HEARD_LATE: 20}
            assert "deadline" in told.note
            stage.hear(replace(a_round(number=2, deadline_in_s=0.02), members=ref))
            await asyncio.sleep(0.04)
            stage.members.add(newer)
            later = (await stage.accounts(2))[1]
            assert (later.planned, later.unsent_causes) == (10, {UNSENT_HEARD_LATE: 10})
            assert stage.starts_us == []

    play(scene)


def test_a_round_of_the_time_when_the_agent_was_away_is_declared_by_whose_journal_would_know_it(tmp_path: Path) -> None:
    async def scene() -> None:
        now_us = Clock().wall_us()
        past = a_round(number=1, starts_in_s=-9.0, deadline_in_s=-1.0)
        before = a_round(number=2, starts_in_s=-30.0, deadline_in_s=-21.0)
        forgotten = replace(a_round(number=3), start_us=now_us - 2 * KEEP_US, deadline_us=now_us - KEEP_US - 1)
        Journal(folder=tmp_path).next_incarnation(now_us=now_us - 20_000_000)
        async with staged(tmp_path, incarnation=now_us) as stage:
            assert stage.journal.next_incarnation(now_us=now_us) == now_us
            for round_ in (past, before, forgotten):
                stage.hear_behind(round_)
            stage.hear(a_round(number=4))
            told = {account.round_id: account for account in await stage.accounts(2)}
            assert told.keys() == {101, 104}
            assert (told[101].declared_missing, told[101].missing_cause, told[101].unsent) == (20, AGENT_DIED, 0)
        async with staged(tmp_path / "new", incarnation=now_us) as another:
            another.journal.next_incarnation(now_us=now_us)
            another.hear_behind(past)
            another.hear(a_round(number=4))
            assert [account.round_id for account in await another.accounts(1)] == [104]

    play(scene)


@pytest.mark.parametrize("before", [{"pod": "agent-abcde"}, {"ipv4": "127.0.0.99"}, {"ipv6": "fd00::1"}])
def test_who_is_not_where_the_membership_says_tells_so(tmp_path: Path, before: dict[str, str]) -> None:
    async def scene() -> None:
        former = (replace(CHUNK.members[0], **before), *CHUNK.members[1:])
        chunk = chunks(group="default", epoch=2, at_us=0, members=former)[0]
        async with staged(tmp_path) as stage:
            stage.members.add(chunk)
            ref = MembersRef(group="default", epoch=2, digest=chunk.digest, count=3)
            stage.hear(a_round(number=1), replace(a_round(number=2), members=ref))
            told = {account.round_id: account.replaced for account in await stage.accounts(2)}
            assert told == {101: False, 102: True}

    play(scene)


def test_a_round_waits_for_its_membership(tmp_path: Path) -> None:
    async def scene() -> None:
        newer = chunks(group="default", epoch=5, at_us=0, members=CHUNK.members[:2])[0]
        ref = MembersRef(group="default", epoch=5, digest=newer.digest, count=2)
        async with staged(tmp_path) as stage:
            stage.hear(replace(a_round(), members=ref))
            await asyncio.sleep(0.01)
            assert stage.starts_us == []
            stage.members.add(newer)
            assert (await stage.accounts(1))[0].planned == 10

    play(scene)


def test_the_load_gets_the_start_the_round_should_have_even_when_late(tmp_path: Path) -> None:
    async def scene() -> None:
        clock = Clock()
        async with staged(tmp_path) as stage:
            heard_us = clock.monotonic_us()
            stage.hear(a_round(number=1, starts_in_s=0.05), a_round(number=2, starts_in_s=-4.0))
            await stage.accounts(2)
            offsets_s = sorted((start - heard_us) / 1e6 for start in stage.starts_us)
            assert offsets_s[0] == pytest.approx(-4.0, abs=0.5)
            assert offsets_s[1] == pytest.approx(0.05, abs=0.5)

    play(scene)


def test_nothing_runs_before_the_end_of_the_topic_is_heard(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path) as stage:
            cancelled, kept = a_round(number=1), a_round(number=2)
            stage.hear_behind(cancelled)
            stage.hear_behind(stop_everything())
            stage.hear_behind(kept)
            await asyncio.sleep(0.01)
            assert stage.starts_us == []
            stage.hear(None)
            told = {t.round_id: t for t in await stage.accounts(2)}
            assert (told[101].sent, told[101].unsent, told[101].note) == (0, 20, "cancelled: global stop")
            assert (told[102].sent, told[102].unsent) == (20, 0)

    play(scene)


def test_a_cancelled_round_stops_and_says_so(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path, send_until_cancelled) as stage:
            round_ = a_round()
            stage.hear(round_)
            await until(lambda: stage.starts_us)
            stage.hear(RoundCancelled(round_id=999, task_uid="4b2f", reason="another", at_us=0))
            stage.hear(RoundCancelled(round_id=round_.round_id, task_uid="4b2f", reason="task deleted", at_us=0))
            (told,) = await stage.accounts(1)
            assert (told.sent, told.unsent, told.note) == (10, 10, "cancelled: task deleted")
            assert balanced(told)

    play(scene)


def test_a_round_stops_at_its_deadline(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path, send_until_cancelled) as stage:
            stage.hear(a_round(deadline_in_s=0.3))
            (told,) = await stage.accounts(1)
            assert (told.sent, told.unsent, told.note) == (10, 10, "deadline passed")

    play(scene)


def test_a_failing_engine_is_declared_not_hidden(tmp_path: Path) -> None:
    async def broken(planned: int, rows: Rows, cancel: asyncio.Event) -> LoadAccount:
        rows.add(a_row(0))
        raise RuntimeError("a bug")

    async def scene() -> None:
        async with staged(tmp_path, broken) as stage:
            stage.hear(a_round())
            (told,) = await stage.accounts(1)
            assert (told.sent, told.declared_missing) == (1, 19)
            assert told.missing_cause == "load engine failed: RuntimeError('a bug')"

    play(scene)


def test_an_exclusive_round_waits_and_its_rows_keep_their_true_time(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def one_by_one(planned: int, rows: Rows, cancel: asyncio.Event) -> LoadAccount:
        await gate.wait()
        rows.add(a_row(0, planned_us=5))
        return ended(planned=planned, sent=1)

    async def scene() -> None:
        async with staged(tmp_path, one_by_one) as stage:
            stage.hear(a_round(number=1))
            await until(lambda: stage.starts_us)
            stage.hear(a_round(number=2, load_class="exclusive"))
            await asyncio.sleep(0.05)
            assert stage.rounds.turns.running == 1
            gate.set()
            told = await stage.accounts(2)
            assert told[1].note.startswith("waited ")
            later = next(b for b in stage.kafka.batches() if b.head.round_number == 2)
            assert column(later, "planned_us")[0] >= 5 + 40_000

    play(scene)


def test_a_round_that_does_not_get_its_turn_is_not_run_and_says_so(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path, send_until_cancelled) as stage:
            stage.hear(a_round(number=1))
            await until(lambda: stage.starts_us)
            # What the deadline leaves after duration and timeout is nothing: no time to wait in.
            stage.hear(a_round(number=2, load_class="exclusive", deadline_in_s=2.0))
            (told,) = await stage.accounts(1)
            assert len(stage.starts_us) == 1
            assert (told.round_id, told.unsent, told.rows) == (102, told.planned, 0)
            assert told.unsent_causes == {"no_turn": told.planned}
            assert told.note.endswith("did not get it")

    play(scene)


def test_the_account_says_why_requests_were_not_sent_and_how_the_agent_fared(tmp_path: Path) -> None:
    async def half(planned: int, rows: Rows, cancel: asyncio.Event) -> LoadAccount:
        told = await send_until_cancelled(planned, rows, cancel)
        return dataclasses.replace(told, unsent_causes=(("cancelled", planned - told.sent - 3), ("over_the_cap", 3)))

    async def scene() -> None:
        async with staged(tmp_path, half) as stage:
            stage.hear(a_round())
            await until(lambda: stage.starts_us)
            stage.hear(stop_everything())
            (told,) = await stage.accounts(1)
            assert told.unsent_causes == {"cancelled": told.unsent - 3, "over_the_cap": 3}
            assert told.condition.resident_max_bytes >= told.resident_bytes > 5 << 20
            assert told.condition.local_ports > 1000
            assert told.node_counters is None

    play(scene)


def test_the_account_comes_after_the_last_acknowledgement(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path, kafka_up=False) as stage:
            stage.hear(a_round())
            await until(lambda: len(stage.spool))
            await asyncio.sleep(0.02)
            assert stage.kafka.records == []
            stage.kafka.up.set()
            await stage.accounts(1)
            assert [r.topic for r in stage.kafka.records] == ["probe-results-v1", "round-progress-v1"]

    play(scene)


def test_a_spool_past_its_bound_declares_what_it_let_go(tmp_path: Path) -> None:
    async def many(planned: int, rows: Rows, cancel: asyncio.Event) -> LoadAccount:
        for seq in range(20):
            rows.add(a_row(seq))
            rows.seal()
            await asyncio.sleep(0)
        return ended(planned=planned, sent=20)

    async def scene() -> None:
        async with staged(tmp_path, many, max_bytes=40_000, kafka_up=False) as stage:
            stage.hear(a_round())
            await until(lambda: [a for a in stage.journal.accounts.values() if a.story.ended])
            assert stage.spool.size_bytes <= 40_000
            stage.kafka.up.set()
            (told,) = await stage.accounts(1)
            assert balanced(told)
            assert told.missing_cause == "spool evicted"
            assert 0 < told.declared_missing < 20
            seqs = [b.head.batch_seq for b in stage.kafka.batches()]
            assert len(seqs) == told.batches == told.rows == 20 - told.declared_missing
            assert seqs[:2] == [0, 1], "what may be on its way is not let go"
            assert seqs[-1] == 19

    play(scene)


def test_a_record_that_kafka_will_never_take_is_declared(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path) as stage:
            stage.kafka.refuse = True
            stage.hear(a_round())
            (told,) = await stage.accounts(1)
            assert (told.sent, told.declared_missing, told.missing_cause) == (0, 20, "record refused by Kafka")

    play(scene)


async def killed_in_mid_round(folder: Path, *, rows_sealed: int) -> int:
    """An agent that dies after sealing some rows, with Kafka away; the round's id."""

    async def dies(planned: int, rows: Rows, cancel: asyncio.Event) -> LoadAccount:
        for seq in range(rows_sealed):
            rows.add(a_row(seq))
        rows.seal()
        await asyncio.Event().wait()
        raise AssertionError

    round_ = a_round()
    async with staged(folder, dies, kafka_up=False) as stage:
        stage.hear(round_)
        await until(lambda: len(stage.spool))
    return round_.round_id


async def resumed(folder: Path, do: Callable[[Stage], Awaitable[None]]) -> None:
    async with staged(folder, incarnation=2000) as stage:
        await do(stage)


def test_the_next_incarnation_sends_the_old_batches_and_declares_the_rest(tmp_path: Path) -> None:
    async def scene() -> None:
        round_id = await killed_in_mid_round(tmp_path, rows_sealed=12)

        async def look(stage: Stage) -> None:
            stage.hear(a_round(number=round_id - 100))
            (told,) = await stage.accounts(1)
            assert (told.incarnation, told.round_id, told.planned) == (1000, round_id, 20)
            assert (told.sent, told.unsent, told.declared_missing) == (12, 0, 8)
            assert told.missing_cause == "agent died"
            (batch,) = stage.kafka.batches()
            assert (batch.head.incarnation, batch.head.batch_seq) == (1000, 0)
            assert stage.starts_us == [], "the round is not run again"

        await resumed(tmp_path, look)

    play(scene)


def test_a_torn_batch_of_the_last_incarnation_is_missing(tmp_path: Path) -> None:
    async def scene() -> None:
        await killed_in_mid_round(tmp_path, rows_sealed=12)
        cut_file(tmp_path, "batches/*.batch", lambda data: data[:-3])

        async def look(stage: Stage) -> None:
            (told,) = await stage.accounts(1)
            assert (told.sent, told.declared_missing) == (0, 20)
            assert told.missing_cause == "agent died, spool record torn"
            assert stage.kafka.batches() == []

        await resumed(tmp_path, look)

    play(scene)


def test_a_batch_in_the_spool_without_its_line_is_counted(tmp_path: Path) -> None:
    async def scene() -> None:
        await killed_in_mid_round(tmp_path, rows_sealed=12)
        cut_file(tmp_path, "rounds/*.jsonl", lambda data: data.partition(b"\n")[0] + b"\n")

        async def look(stage: Stage) -> None:
            (told,) = await stage.accounts(1)
            assert (told.sent, told.batches, told.declared_missing) == (12, 1, 8)

        await resumed(tmp_path, look)

    play(scene)


def test_an_orderly_stop_accounts_for_what_ran_and_leaves_what_had_not_begun(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path, send_until_cancelled) as stage:
            stage.hear(a_round(number=1), a_round(number=2, starts_in_s=20.0))
            await until(lambda: stage.starts_us)
            await stage.rounds.stop(patience_s=2.0)
            (told,) = stage.kafka.accounts()
            assert (told.round_id, told.sent, told.unsent, told.note) == (101, 10, 10, "agent stopped")
            assert not stage.journal.known(102)

    play(scene)
