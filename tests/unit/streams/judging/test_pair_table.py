import pyarrow as pa
import pytest

from streams.judging import pair_table, stats
from streams.judging.pair_table import SCHEMA, PairTable
from topics.outcome import Layer, Outcome, Proto
from topics.probe_results import SCHEMA as ROWS
from topics.probe_results import Batch, BatchHead, BatchTarget


def target(name: str, proto: Proto = Proto.http) -> BatchTarget:
    return BatchTarget(name=f"to {name}", dst=name, dst_node=name, proto=proto, layer=Layer.pod)


def batch(
    rows: list[dict[str, int]], *, agent: str = "a", batch_seq: int = 0, round_id: int = 7, incarnation: int = 1
) -> Batch:
    """Each row: only what differs from an ok request of 2 ms, 1 ms late, one packet."""
    usual = {"outcome": 1, "dur_us": 2000, "lateness_us": 1000, "sent": 1}
    columns = [pa.array([{**usual, **r}.get(f.name, 0) for r in rows], type=f.type) for f in ROWS]
    head = BatchHead(
        round_id=round_id,
        round_number=1,
        start_us=0,
        task="t",
        task_uid="u",
        agent=agent,
        incarnation=incarnation,
        batch_seq=batch_seq,
        node=f"node of {agent}",
        trace_id="0" * 32,
        targets=(target("b"), target("c", Proto.udp)),
    )
    return Batch(head=head, rows=pa.RecordBatch.from_arrays(columns, schema=ROWS))


def lines(table: PairTable) -> dict[tuple[str, str], dict[str, object]]:
    return {(r["src_agent"], r["dst"]): r for r in (table.row(i) for i in range(len(table)))}


def test_counts_sums_and_histograms_by_pair() -> None:
    rows = [
        {"target": 0},
        {"target": 0, "dur_us": 4000, "lateness_us": 0, "sent": 3, "lost": 1},
        {"target": 0, "outcome": Outcome.timeout, "dur_us": 500_000, "lost": 1},
        {"target": 1, "outcome": Outcome.wrong_peer, "sent": 9, "lost": 9},
    ]
    table = pair_table.from_batches(batches=[batch(rows)], round_id=7)
    good, other = lines(table)["a", "b"], lines(table)["a", "c"]
    assert (good["n"], good["ok"], good["packets_sent"], good["packets_lost"]) == (3, 2, 5, 2)
    assert good["outcomes"] == {"ok": 2, "timeout": 1}
    assert (good["total_us_sum"], good["total_us_min"], good["total_us_max"]) == (7000, 3000, 4000)
    assert (good["sent_us_sum"], good["sent_us_min"], good["sent_us_max"]) == (6000, 2000, 4000)
    assert good["hist_sent"] == {stats.bucket(2000): 1, stats.bucket(4000): 1}
    assert good["hist_total"] == {stats.bucket(3000): 1, stats.bucket(4000): 1}
    assert (other["n"], other["ok"], other["packets_sent"], other["packets_lost"]) == (1, 0, 0, 0)
    assert (other["total_us_min"], other["total_us_max"]) == (0, 0)
    assert other["proto"] == "udp"


def test_a_batch_given_again_is_a_duplicate_and_counts_once() -> None:
    one, two = batch([{"target": 0}] * 5), batch([{"target": 0}] * 3, batch_seq=1)
    table = pair_table.from_batches(batches=[one, two, one], round_id=7)
    assert (table.stored, table.raw_rows, table.duplicates) == (8, 13, 5)


def test_an_incarnation_numbers_its_batches_anew() -> None:
    table = pair_table.from_batches(batches=[batch([{}]), batch([{}], incarnation=2)], round_id=7)
    assert (table.stored, table.duplicates) == (2, 0)


def test_other_rounds_are_left_out() -> None:
    assert len(pair_table.from_batches(batches=[batch([{}], round_id=8)], round_id=7)) == 0


def test_the_empty_table_has_all_the_columns() -> None:
    table = pair_table.empty()
    assert table.table.schema == SCHEMA
    assert (table.stored, table.duplicates, table.by_outcome, table.histogram("hist_sent")) == (0, 0, {}, {})


def test_outcomes_and_histograms_of_the_whole_round() -> None:
    batches = [batch([{}, {"outcome": Outcome.refused}]), batch([{}], agent="x")]
    table = pair_table.from_batches(batches=batches, round_id=7)
    assert table.by_outcome == {"ok": 2, "refused": 1}
    assert table.histogram("hist_sent") == {stats.bucket(2000): 2}
    assert table.outcome_counts([Outcome.refused]).sum() == 1


def test_slices_of_a_table_keep_their_own_maps() -> None:
    batches = [batch([{}] * (i + 1), agent=f"a{i}") for i in range(4)]
    whole = pair_table.from_batches(batches=batches, round_id=7)
    part = PairTable(table=whole.table.slice(1, 2), raw_rows=5)
    assert part.by_outcome == {"ok": 5}
    assert part.outcome_counts([Outcome.ok]).tolist() == [2, 3]


def test_buckets_are_those_of_the_single_delay() -> None:
    delays = [1, 2, 3, 7, 8, 9, 1023, 1024, 1025, 65_535, 65_536, 4_294_967_295]
    rows = [{"dur_us": us, "lateness_us": 0} for us in delays]
    table = pair_table.from_batches(batches=[batch(rows)], round_id=7)
    assert set(table.histogram("hist_sent")) == {stats.bucket(us) for us in delays}


def test_the_delay_from_the_planned_time_stays_within_32_bits_as_stored() -> None:
    row = {"dur_us": 4_294_967_295, "lateness_us": 4_294_967_295}
    table = pair_table.from_batches(batches=[batch([row])], round_id=7)
    assert table.counts("total_us_max").tolist() == [4_294_967_295]


def test_a_result_with_other_column_types_is_taken_in() -> None:
    made = pair_table.from_batches(batches=[batch([{}])], round_id=7).table
    other = made.set_column(0, "src_agent", made.column("src_agent").dictionary_encode())
    assert pair_table.from_arrow(table=other, raw_rows=1).table.equals(made)


def test_a_result_without_a_column_is_refused() -> None:
    made = pair_table.empty().table.drop_columns(["ok"])
    with pytest.raises(KeyError, match="ok"):
        pair_table.from_arrow(table=made, raw_rows=0)
