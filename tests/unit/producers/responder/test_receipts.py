"""Receipts: what came is marked bit by bit, what a connection cost is summed, and a row is told when it is time."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from producers import mark
from producers.receipts import HANDFUL, LONG, OLD_HANDFUL_US, OLD_US, SPAN, Growth, Receipts
from topics.outcome import Proto
from topics.probe_receipts import UNKNOWN_TARGET

NOW_US = 1_790_000_000_000_000


def came(receipts: Receipts, *seqs: int, agent: str = "node-1", target: int = 0, now_us: int = NOW_US) -> None:
    for seq in seqs:
        receipts.received(round_id=7, src_agent=agent, proto=Proto.http, target=target, seq=seq, now_us=now_us)


def rows(receipts: Receipts) -> list[dict[str, Any]]:
    taken = receipts.take()
    return taken.to_pylist() if taken is not None else []


def marked(row: dict[str, Any]) -> set[int]:
    return {row["first_seq"] + i for i in range(len(row["bitmap"]) * 8) if row["bitmap"][i >> 3] >> (i & 7) & 1}


@given(st.lists(st.integers(min_value=0, max_value=SPAN * 3), max_size=60))
def test_every_number_that_came_is_marked_and_no_other(seqs: list[int]) -> None:
    receipts = Receipts()
    came(receipts, *seqs)
    told = rows(receipts)
    assert set().union(*map(marked, told)) == set(seqs)
    assert sum(row["received"] for row in told) == len(seqs)
    assert rows(receipts) == []


def test_the_same_twice_and_out_of_order() -> None:
    receipts = Receipts()
    came(receipts, 3, 9, 4, 9)
    (row,) = rows(receipts)
    assert (row["received"], row["duplicates"], row["reordered"], row["last_seq"]) == (4, 1, 1, 9)


def test_sources_are_told_apart_by_agent_and_target() -> None:
    receipts = Receipts()
    came(receipts, 0, 2)
    came(receipts, 1, target=1)
    came(receipts, 5, agent="node-2")
    receipts.received(round_id=7, src_agent="node-1", proto=Proto.udp, seq=8, now_us=NOW_US)
    told = {(r["src_agent"], r["proto"], r["target"]): marked(r) for r in rows(receipts)}
    assert told == {
        ("node-1", Proto.http, 0): {0, 2},
        ("node-1", Proto.http, 1): {1},
        ("node-2", Proto.http, 0): {5},
        ("node-1", Proto.udp, UNKNOWN_TARGET): {8},
    }


def test_a_report_that_comes_late_makes_a_row_of_its_own_that_still_names_a_request() -> None:
    receipts = Receipts()
    source = (7, "node-1", int(Proto.http), 0)
    came(receipts, 40, 41)
    receipts.segments(source, Growth(1, 4, 1, 0, 5, 6, 1))
    (first,) = rows(receipts)
    receipts.segments(source, Growth(0, 0, -1, 0, 1, 0, 0))
    (second,) = rows(receipts)
    assert (first["accepted"], first["sent"], first["lost"], first["retrans"]) == (1, 4, 1, 1)
    assert (second["received"], second["bitmap"], second["lost"], second["last_seq"]) == (0, b"", -1, 41)


def ripe(receipts: Receipts, *, after_us: int, silent_us: int = OLD_US) -> int:
    taken = receipts.take_ripe(now_us=NOW_US + after_us, silent_us=silent_us)
    return sum(row["received"] for row in taken.to_pylist()) if taken is not None else 0


def test_a_row_waits_until_it_is_long_old_or_its_source_is_silent() -> None:
    receipts = Receipts()
    came(receipts, *range(HANDFUL - 1))
    assert ripe(receipts, after_us=OLD_HANDFUL_US) == 0
    came(receipts, HANDFUL, now_us=NOW_US + OLD_HANDFUL_US)
    assert ripe(receipts, after_us=OLD_HANDFUL_US) == HANDFUL
    came(receipts, 100)
    assert ripe(receipts, after_us=OLD_US - 1) == 0
    assert ripe(receipts, after_us=OLD_US) == 1
    came(receipts, *range(LONG))
    assert ripe(receipts, after_us=0) == LONG
    came(receipts, 1)
    assert ripe(receipts, after_us=300_000, silent_us=200_000) == 1


def test_whose_request_it_is_is_read_back() -> None:
    told = mark.parse(mark.prefix(agent="node-1", round_id=0xAB, target=3) + "41")
    assert told == mark.Mark("node-1", 0xAB, 3, 41)
    line = mark.line(agent="node-1", round_id=0xAB, target=3, seq=41)
    match = mark.LINE.match(line)
    assert match is not None
    assert mark.of(match) == told
    for text in ("", "node-1;ab;41", "a b;ab;0;1", "n;ab;70000;1", "n;ab;0;4294967296", "n;xyz;0;1"):
        assert mark.parse(text) is None
    assert all(mark.may_be_line(line[:n]) for n in range(len(line)))
    assert not mark.may_be_line(line)
    assert not mark.may_be_line(b"hello")
    assert not mark.may_be_line(b"kpatrol-from: " + b"x" * mark.MAX_LINE_BYTES)
