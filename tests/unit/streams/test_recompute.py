from dataclasses import replace

import msgspec
import pytest

from streams.recompute import Recomputed, Results, recompute, states
from tests.unit.streams.judging.mesh import full_mesh, served_mesh
from tests.unit.streams.test_judge import ALL, KEY, MEMBERS, Court
from topics.round_progress import RoundProgress
from topics.round_verdicts import RoundVerdict

ROWS = Results(pairs=full_mesh(3), served=served_mesh(3))


def told() -> RoundVerdict:
    court = Court()
    court.take(*ALL)
    return court.verdicts[-1]


def again(
    *verdicts: RoundVerdict, events: tuple[RoundProgress, ...] = ALL, results: Results = ROWS, known: bool = True
) -> list[Recomputed]:
    return recompute(
        events=events, told=verdicts, find_members=lambda ref: MEMBERS if known else None, read=lambda round_: results
    )


def test_what_was_told_is_what_the_rows_say() -> None:
    (found,) = again(told())
    assert (found.differs, found.receipts) == ((), "all")
    assert found.row()["equal"] is True


def test_events_in_another_order_and_twice_say_the_same() -> None:
    (found,) = again(told(), events=(*reversed(ALL), *ALL))
    assert found.differs == ()


@pytest.mark.parametrize(
    ("changes", "differs"), [({"stored": 599}, ("stored",)), ({"verdict": "fail", "why": "x"}, ("verdict", "why"))]
)
def test_another_statement_is_found(changes: dict[str, object], differs: tuple[str, ...]) -> None:
    (found,) = again(msgspec.structs.replace(told(), **changes))
    assert found.differs == differs


def test_rows_that_are_missing_or_twice_are_found() -> None:
    (fewer,) = again(told(), results=replace(ROWS, pairs=full_mesh(3, n=50)))
    assert "requests" in fewer.differs
    pairs = full_mesh(3)
    (twice,) = again(told(), results=replace(ROWS, pairs=replace(pairs, raw_rows=pairs.raw_rows + 1)))
    assert twice.differs == ("duplicates",)


def test_a_verdict_told_before_its_receipts_is_held_against_the_results_alone() -> None:
    verdict = told()
    assert verdict.loss_ends == "both"
    bare = Court(served=[replace(served_mesh(3), table=served_mesh(3).table.slice(0, 0))])
    bare.take(*ALL)
    (found,) = again(bare.verdicts[-1])
    assert (found.differs, found.receipts) == ((), "none")


def test_the_newest_revision_counts_and_provisional_ones_do_not() -> None:
    final = told()
    earlier = msgspec.structs.replace(final, revision=0, final=False, stored=0)
    assert [r.revision for r in again(earlier, final)] == [1]
    assert again(earlier) == []


def test_what_is_not_there_any_more_is_said() -> None:
    (no_events,) = again(told(), events=())
    assert no_events.differs == ("round: none of its events is there",)
    (no_members,) = again(told(), known=False)
    assert no_members.differs == ("members: the round's membership is not there",)


def test_states_are_by_round() -> None:
    assert set(states(ALL)) == {KEY}
    assert states(ALL)[KEY].stored == 600
