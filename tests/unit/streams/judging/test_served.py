"""The join of receipts with the rows they belong to, by identity."""

from typing import Any

import pyarrow as pa

from producers.receipts import Growth
from producers.receipts import Receipts as Collector
from streams.judging import served
from streams.judging.served import COUNTS, Served
from topics.outcome import Layer, Outcome, Proto
from topics.probe_receipts import ReceiptHead, Receipts
from topics.probe_results import SCHEMA as ROWS
from topics.probe_results import Batch, BatchHead, BatchTarget


def asked(*targets: BatchTarget, rows: list[tuple[int, int]], agent: str = "a") -> Batch:
    """Rows as (seq, place of the target); all ok."""
    values = {"seq": [seq for seq, _ in rows], "target": [place for _, place in rows], "outcome": [1] * len(rows)}
    columns = [pa.array(values.get(f.name, [0] * len(rows)), type=f.type) for f in ROWS]
    head = BatchHead(
        round_id=7, round_number=1, start_us=0, task="t", task_uid="u", agent=agent, incarnation=1, batch_seq=0,
        node=agent, trace_id="0" * 32, targets=targets,
    )  # fmt: skip
    return Batch(head=head, rows=pa.RecordBatch.from_arrays(columns, schema=ROWS))


def place(layer: Layer, *, node: str = "b", proto: Proto = Proto.http) -> BatchTarget:
    return BatchTarget(name=layer.name, dst="b", dst_node=node, proto=proto, layer=layer)


def receipt(
    *seqs: int, target: int = 0, node: str = "b", proto: Proto = Proto.http, round_id: int = 7, **growth: int
) -> Receipts:
    collector = Collector()
    for seq in seqs:
        collector.received(round_id=round_id, src_agent="a", proto=proto, target=target, seq=seq, now_us=1)
    if growth:
        zero = dict.fromkeys(Growth._fields, 0)
        collector.segments((round_id, "a", int(proto), target), Growth(**zero | growth))
    rows = collector.take()
    assert rows is not None
    return Receipts(head=ReceiptHead(agent=node, incarnation=1, batch_seq=0, node=node), rows=rows)


def join(receipts: list[Receipts], *batches: Batch) -> dict[str, dict[str, int]]:
    """Counts by layer."""
    told: Served = served.from_batches(receipts=receipts, batches=batches, round_id=7)
    return {line[5]: dict(zip(COUNTS, counts, strict=True)) for line, counts in told.counts.items()}


def counts(**changes: int) -> dict[str, int]:
    return dict.fromkeys(COUNTS, 0) | changes


TWO = (place(Layer.pod), place(Layer.node_port))
ROWS_OF_TWO = [(0, 0), (1, 1), (2, 0), (3, 1)]


def test_each_target_gets_the_counters_of_its_own_connections() -> None:
    receipts = [receipt(0, 2, sent=4, lost=1), receipt(1, target=1, sent=2)]
    told = join(receipts, asked(*TWO, rows=ROWS_OF_TWO))
    assert told == {"pod": counts(received=2, sent=4, lost=1), "node_port": counts(received=1, sent=2)}


def test_delivered_twice_or_of_another_round_or_agent_counts_no_more() -> None:
    one = receipt(0, 2, sent=4)
    told = join([one, one, receipt(1, target=1, round_id=8)], asked(*TWO, rows=ROWS_OF_TWO))
    assert told == {"pod": counts(received=2, sent=4)}
    assert join([one], asked(*TWO, rows=ROWS_OF_TWO, agent="x")) == {}


def test_a_stranger_at_the_address_does_not_speak_for_the_node_asked() -> None:
    assert join([receipt(0, 2, node="stranger")], asked(*TWO, rows=ROWS_OF_TWO)) == {}


def test_behind_a_service_every_member_speaks() -> None:
    receipts = [receipt(0, node="b", sent=1), receipt(2, node="c", sent=1)]
    service = asked(place(Layer.cluster_ip, node=""), rows=[(0, 0), (2, 0)])
    assert join(receipts, service) == {"cluster_ip": counts(received=2, sent=2)}


def test_a_receipt_of_requests_that_have_no_row_is_left_out() -> None:
    assert join([receipt(99)], asked(*TWO, rows=ROWS_OF_TWO)) == {}


def test_an_answered_datagram_without_a_receipt_is_missing() -> None:
    udp: dict[str, Any] = {"proto": Proto.udp}
    batch = asked(place(Layer.pod, **udp), rows=[(0, 0), (1, 0), (2, 0)])
    told = join([receipt(0, 2, target=0xFFFF, **udp)], batch)
    assert told == {"pod": counts(received=2, missing=1)}
    assert batch.rows.column("outcome").to_pylist() == [Outcome.ok] * 3
