"""Rows become columns of the contract's types, in batches, losing nothing."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from producers.rows import Row, Rows, SealedBatch
from topics.outcome import Layer, Proto
from topics.probe_results import SCHEMA, TYPECODES, BatchHead, BatchTarget, decode, encode_columns


def row(seq: int, *, error: str = "", peer: str = "", dur_us: int = 5) -> Row:
    return (seq, 0, 10, 1, dur_us, 0, 0, 0, 4, 1, error, 200, peer, 40000, 1, 0, 2, 2, 0, 30, 0, 3, 0, 0)


@given(count=st.integers(0, 40), size=st.integers(1, 10))
def test_batches_hold_every_row_once_in_order(count: int, size: int) -> None:
    batches: list[SealedBatch] = []
    rows = Rows(on_seal=batches.append, max_rows=size)
    for seq in range(count):
        rows.add(row(seq))
    rows.seal()
    assert rows.count == count
    assert [seq for batch in batches for seq in batch.columns["seq"]] == list(range(count))
    assert all(0 < batch.rows <= size for batch in batches)


def test_a_batch_survives_the_wire_with_its_lists() -> None:
    batches: list[SealedBatch] = []
    rows = Rows(on_seal=batches.append)
    for seq, (error, peer) in enumerate([("", "node-2"), ("timeout", ""), ("", "node-2"), ("reset", "node-3")]):
        rows.add(row(seq, error=error, peer=peer))
    rows.seal()
    (batch,) = batches
    assert batch.peers == ("", "node-2", "node-3")
    assert batch.errors == ("", "timeout", "reset")
    target = BatchTarget(name="t", dst="t", proto=Proto.http, layer=Layer.pod)
    common: dict[str, Any] = {"task": "t", "task_uid": "u", "agent": "a", "node": "n", "trace_id": "0" * 32}
    head = BatchHead(
        round_id=1,
        round_number=1,
        start_us=1,
        incarnation=1,
        batch_seq=0,
        targets=(target,),
        peers=batch.peers,
        errors=batch.errors,
        **common,
    )
    read = decode(encode_columns(head=head, columns=batch.columns, rows=batch.rows))
    assert read.rows.schema.names == SCHEMA.names == list(TYPECODES)
    assert read.rows.column("error").to_pylist() == [0, 1, 0, 2]
    assert read.rows.column("peer").to_pylist() == [1, 0, 1, 2]


def test_a_value_beyond_its_column_is_held_at_the_greatest() -> None:
    batches: list[SealedBatch] = []
    rows = Rows(on_seal=batches.append)
    rows.add(row(0, dur_us=1 << 40))
    rows.add(row(1, dur_us=-1))
    rows.add(row(2, dur_us=7))
    rows.seal()
    assert list(batches[0].columns["dur_us"]) == [(1 << 32) - 1, 0, 7]
