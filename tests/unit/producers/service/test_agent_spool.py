"""The spool: what is put in comes out whole, or is told to be torn; its bound; what it holds after a restart."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.spool import Entry, Envelope, Kind, Spool, SpoolInUse, TornRecord, entry_of, pack, unpack

BIG = 1 << 30


def envelope(value: bytes = b"rows") -> Envelope:
    return Envelope(topic="probe-results-v1", key=b"node-1", headers=(("rows", b"3"),), value=value)


def put(spool: Spool, batch_seq: int, *, size: int = 100, kind: Kind = "results") -> Entry:
    return spool.append(
        kind=kind, incarnation=9, round_id=7, batch_seq=batch_seq, rows=3, envelope=envelope(bytes(size))
    )


@given(topic=st.text(), key=st.binary(), headers=st.lists(st.tuples(st.text(), st.binary())), value=st.binary())
def test_a_record_survives_its_file(topic: str, key: bytes, headers: list[tuple[str, bytes]], value: bytes) -> None:
    record = Envelope(topic=topic, key=key, headers=tuple(headers), value=value)
    assert unpack(pack(record)) == record


@given(cut=st.integers(0, 60), value=st.binary(min_size=1, max_size=40))
def test_a_record_cut_short_is_torn(cut: int, value: bytes) -> None:
    data = pack(envelope(value))
    with pytest.raises(TornRecord):
        unpack(data[: min(cut, len(data) - 1)])


@given(at=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_a_record_with_a_changed_byte_is_torn(at: int, flip: int) -> None:
    data = bytearray(pack(envelope()))
    data[at % len(data)] ^= flip
    with pytest.raises(TornRecord):
        unpack(bytes(data))


@given(
    order=st.integers(0, 2**60),
    kind=st.sampled_from(["results", "receipts"]),
    numbers=st.tuples(*[st.integers(0, 2**64 - 1)] * 4),
)
def test_the_file_name_says_which_batch_it_is(order: int, kind: Kind, numbers: tuple[int, int, int, int]) -> None:
    incarnation, round_id, batch_seq, rows = numbers
    entry = Entry(
        order=order,
        kind=kind,
        incarnation=incarnation,
        round_id=round_id,
        batch_seq=batch_seq,
        rows=rows,
        size_bytes=5,
    )
    assert entry_of(entry.name, 5) == entry


@pytest.mark.parametrize(
    "name", ["lock", "1-r-2-3-4-5.part", "1-x-2-3-4-5.batch", "1-r-2-3-4.batch", "a-r-2-3-4-5.batch"]
)
def test_other_files_are_not_ours(name: str) -> None:
    assert entry_of(name, 1) is None


def test_a_new_run_finds_what_the_last_one_left_in_order(tmp_path: Path) -> None:
    first = Spool(folder=tmp_path, max_bytes=BIG)
    entries = [put(first, seq) for seq in range(12)]
    first.remove(entries[0])
    first.close()
    (tmp_path / "batches" / "0000000000000099-r-1-1-1-1.batch.part").write_bytes(b"half")
    second = Spool(folder=tmp_path, max_bytes=BIG)
    assert second.entries() == entries[1:]
    assert second.size_bytes == sum(e.size_bytes for e in entries[1:])
    assert second.read(entries[3]) == envelope(bytes(100))
    assert put(second, 50).order > entries[-1].order
    assert not list((tmp_path / "batches").glob("*.part"))
    second.close()


def test_a_torn_file_is_told_by_name_and_rows(tmp_path: Path) -> None:
    spool = Spool(folder=tmp_path, max_bytes=BIG)
    entry = put(spool, 4)
    path = tmp_path / "batches" / entry.name
    path.write_bytes(path.read_bytes()[:50])
    spool.close()
    again = Spool(folder=tmp_path, max_bytes=BIG)
    found = again.entries()[0]
    assert (found.batch_seq, found.rows) == (4, 3)
    with pytest.raises(TornRecord):
        again.read(found)
    path.unlink()
    with pytest.raises(TornRecord):
        again.read(found)
    again.close()


def test_past_the_bound_the_oldest_go_but_none_that_may_be_on_its_way(tmp_path: Path) -> None:
    spool = Spool(folder=tmp_path, max_bytes=1000)
    entries = [put(spool, seq, size=250) for seq in range(4)]
    spool.hold(entries[0])
    chosen = spool.excess()
    assert [e.batch_seq for e in chosen] == [1]
    for entry in chosen:
        spool.remove(entry)
    assert spool.excess() == []
    for entry in entries:
        spool.hold(entry)
    held = put(spool, 9, size=250)
    assert spool.excess() == [held]
    spool.close()


def test_what_the_last_run_may_have_sent_is_held(tmp_path: Path) -> None:
    first = Spool(folder=tmp_path, max_bytes=BIG)
    for seq in range(5):
        put(first, seq)
    first.close()
    second = Spool(folder=tmp_path, max_bytes=1, window=2)
    assert [e.batch_seq for e in second.excess()] == [2, 3, 4]
    second.close()


def test_a_folder_has_one_agent(tmp_path: Path) -> None:
    first = Spool(folder=tmp_path, max_bytes=BIG)
    with pytest.raises(SpoolInUse, match="another agent runs on this spool folder"):
        Spool(folder=tmp_path, max_bytes=BIG)
    first.close()
    Spool(folder=tmp_path, max_bytes=BIG).close()
