"""The journal: live and replayed it tells the same story, and every story's account adds up."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.journal import Account, Began, Ended, Event, Finished, Journal, Lost, Sealed, Story, account, replay

BEGAN = Began(
    round_id=7,
    number=1,
    task_uid="4b2f",
    task="netreach/t",
    incarnation=100,
    planned=1000,
    deadline_us=5_000,
    asked_rate=10.0,
    at_us=1,
)


@st.composite
def shares(draw: st.DrawFn) -> tuple[list[Event], bool]:
    """(events of a share as an agent may write them, whether the load ended): batches, losses, the end or none."""
    batches = draw(st.lists(st.integers(1, 500), max_size=8))
    unsent = draw(st.integers(0, 300))
    unwritten = draw(st.integers(0, 300))
    ended = draw(st.booleans())
    events: list[Event] = [Sealed(batch_seq=i, rows=rows) for i, rows in enumerate(batches)]
    for i, rows in enumerate(batches):
        if draw(st.booleans()):
            cause = draw(st.sampled_from(["spool evicted", "spool record torn"]))
            events.insert(draw(st.integers(0, len(events))), Lost(batch_seq=i, rows=rows, cause=cause))
    planned = sum(batches) + unsent + (0 if ended else unwritten)
    began = msgspec.structs.replace(BEGAN, planned=planned)
    tail: list[Event] = [Ended(unsent=unsent)] if ended else []
    return [began, *events, *tail], ended


@given(shares(), st.data())
def test_every_account_adds_up(share: tuple[list[Event], bool], data: st.DataObject) -> None:
    events, ended = share
    story = Story()
    for event in events:
        story.apply(event)
        if data.draw(st.booleans()):
            story.apply(event)
    told = account(story=story, agent="node-1", node="node-1", at_us=9)
    assert told.planned == told.sent + told.unsent + told.declared_missing
    assert told.sent == told.rows == sum(rows for seq, rows in story.sealed.items() if seq not in story.lost)
    assert told.batches == len([seq for seq in story.sealed if seq not in story.lost])
    assert bool(told.missing_cause) == bool(told.declared_missing)
    assert ended or told.unsent == 0


@given(shares(), st.integers(0, 400))
def test_a_journal_cut_anywhere_still_accounts_for_all_that_was_planned(
    share: tuple[list[Event], bool], cut: int
) -> None:
    lines = [msgspec.json.encode(event) for event in share[0]]
    data = b"\n".join(lines) + b"\n"
    kept = max(len(lines[0]) + 1, len(data) - cut)
    told = account(story=replay(data[:kept]), agent="node-1", node="node-1", at_us=9)
    assert told.planned == told.sent + told.unsent + told.declared_missing


def test_a_dead_agents_share_is_what_it_sealed_and_the_rest_missing() -> None:
    story = Story()
    for event in (BEGAN, Sealed(batch_seq=0, rows=500), Sealed(batch_seq=1, rows=20)):
        story.apply(event)
    told = account(story=story, agent="a", node="n", at_us=9)
    assert (told.sent, told.unsent, told.declared_missing) == (520, 0, 480)
    assert (told.missing_cause, told.incarnation, told.batches) == ("agent died", 100, 2)


def test_rows_that_an_ended_load_owes_are_not_declared_away() -> None:
    story = Story()
    for event in (BEGAN, Sealed(batch_seq=0, rows=500), Ended(unsent=400)):
        story.apply(event)
    told = account(story=story, agent="a", node="n", at_us=9)
    assert told.planned - told.sent - told.unsent - told.declared_missing == 100


@pytest.mark.parametrize(("ended", "further", "missing"), [(True, 40, 0), (False, 20, 0)])
def test_further_attempts_are_part_of_what_was_planned(ended: bool, further: int, missing: int) -> None:
    """One that died did not say how many there were: those beyond what was owed are known at least."""
    story = Story()
    tail = [Ended(unsent=20, further=40)] if ended else []
    for event in (BEGAN, Sealed(batch_seq=0, rows=500), Sealed(batch_seq=1, rows=520), *tail):
        story.apply(event)
    told = account(story=story, agent="a", node="n", at_us=9)
    assert (told.further, told.planned, told.declared_missing) == (further, 1000 + further, missing)
    assert told.planned == told.sent + told.unsent + told.declared_missing


def test_causes_are_told_together() -> None:
    story = Story()
    for event in (BEGAN, Sealed(batch_seq=0, rows=500), Lost(batch_seq=0, rows=500, cause="spool evicted")):
        story.apply(event)
    told = account(story=story, agent="a", node="n", at_us=9)
    assert told.declared_missing == 1000
    assert told.missing_cause == "agent died, spool evicted"
    assert told.batches == told.rows == 0


def test_a_torn_last_line_is_passed_over_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    journal = Journal(folder=tmp_path)
    kept = journal.begin(BEGAN)
    kept.write(Sealed(batch_seq=0, rows=500))
    kept.write(Sealed(batch_seq=1, rows=30))
    kept.close()
    path = next(tmp_path.glob("rounds/*.jsonl"))
    path.write_bytes(path.read_bytes()[:-9])
    again = Journal(folder=tmp_path)
    left = again.accounts[7, 100]
    assert left.story.sealed == {0: 500}
    assert left.story.torn_lines == 1
    left.write(Sealed(batch_seq=1, rows=30))
    left.write(Finished(at_us=3))
    left.close()
    last = Journal(folder=tmp_path).accounts[7, 100].story
    assert (last.sealed, last.finished) == ({0: 500, 1: 30}, True)


def test_a_round_once_begun_is_known_for_ever_until_forgotten(tmp_path: Path) -> None:
    journal = Journal(folder=tmp_path)
    kept = journal.begin(BEGAN)
    assert journal.known(7)
    again = Journal(folder=tmp_path)
    assert again.known(7)
    assert not again.known(8)
    assert again.forget(now_us=10**9, keep_us=0) == 0, "an unfinished share is never forgotten"
    kept.write(Finished(at_us=1))
    kept.close()
    last = Journal(folder=tmp_path)
    assert last.forget(now_us=BEGAN.deadline_us + 9, keep_us=10) == 0
    assert last.forget(now_us=BEGAN.deadline_us + 10, keep_us=10) == 1
    assert not last.known(7)
    assert not list(tmp_path.glob("rounds/*"))


def test_a_file_whose_beginning_is_lost_keeps_the_round_from_running_again(tmp_path: Path) -> None:
    (tmp_path / "rounds").mkdir()
    (tmp_path / "rounds" / "7-100.jsonl").write_bytes(b'{"event":"beg')
    journal = Journal(folder=tmp_path)
    assert journal.known(7)
    with pytest.raises(ValueError, match="without its beginning"):
        account(story=journal.accounts[7, 100].story, agent="a", node="n", at_us=0)


def test_incarnations_only_grow_even_when_the_clock_goes_back(tmp_path: Path) -> None:
    assert Journal(folder=tmp_path).next_incarnation(now_us=1000) == 1000
    assert Journal(folder=tmp_path).next_incarnation(now_us=900) == 1001
    journal = Journal(folder=tmp_path)
    journal.begin(msgspec.structs.replace(BEGAN, incarnation=5000)).close()
    (tmp_path / "incarnation").write_text("rubbish")
    assert Journal(folder=tmp_path).next_incarnation(now_us=2000) == 5001


def test_a_full_disk_stops_a_share_only_at_its_beginning(tmp_path: Path) -> None:
    nowhere = Account(path=tmp_path / "gone" / "7-100.jsonl", story=Story())
    with pytest.raises(OSError, match="No such file"):
        nowhere.write(BEGAN)
    nowhere.write(Sealed(batch_seq=0, rows=3))
    assert nowhere.story.sealed == {0: 3}
