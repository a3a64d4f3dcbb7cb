"""Batches become rows of `probe`: every value where it belongs, bad batches refused one by one."""

import ipaddress
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from streams.expand import TargetTables, deliver, expand, ip_bytes
from tests.unit.streams.batches import START_US, batch, head, targets
from topics.columns import COLUMNS
from topics.probe_results import Batch
from topics.spec import InvalidMessage


def expected_rows(one: Batch, *, partition: int, offset: int) -> list[dict[str, Any]]:
    """The slow, obvious way: a row at a time."""
    rows = []
    for row in one.rows.to_pylist():
        target = one.head.targets[row["target"]]
        same = ("seq", "src_port", "status", "lateness_us", "dur_us", "dns_us", "connect_us", "tls_us", "ttfb_us")
        more = ("sent", "lost", "segs_out", "segs_in", "retrans", "min_rtt_us", "req_bytes", "resp_bytes", "attempt")
        more += ("there_us",)
        rows.append(
            {name: row[name] for name in (*same, *more, "outcome")}
            | {
                "round_id": one.head.round_id,
                "round_number": one.head.round_number,
                "round_at": one.head.start_us,
                "ts": one.head.start_us + row["planned_us"],
                "cluster": one.head.cluster,
                "task": one.head.task,
                "task_uid": one.head.task_uid,
                "src_node": one.head.node,
                "src_zone": one.head.zone,
                "src_rack": one.head.rack,
                "src_pod": one.head.pod,
                "agent": one.head.agent,
                "incarnation": one.head.incarnation,
                "batch_seq": one.head.batch_seq,
                "trace_id": bytes.fromhex(one.head.trace_id),
                "proto": target.proto,
                "layer": target.layer,
                "target": target.name,
                "dst": target.dst,
                "dst_node": target.dst_node,
                "dst_zone": target.dst_zone,
                "dst_rack": target.dst_rack,
                "src_ip": ip_bytes(target.src_ip),
                "dst_ip": ip_bytes(target.dst_ip),
                "dst_port": target.dst_port,
                "family": target.family,
                "size": target.size,
                "peer": one.head.peers[row["peer"]],
                "error_type": one.head.errors[row["error"]],
                "kpart": partition,
                "koff": offset,
            }
        )
    return rows


def as_plain(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    plain = rows.to_pylist()
    for row in plain:
        for name in ("ts", "round_at"):
            row[name] = (row[name].replace(tzinfo=None) - EPOCH) // timedelta(microseconds=1)
    return plain


EPOCH = pa.scalar(0, type=pa.timestamp("us")).as_py()


def test_every_column_of_every_row_has_its_value() -> None:
    tables = TargetTables()
    several = [
        batch(rows=7, seed=1),
        batch(rows=1, seed=2, of=head(agent="a1", batch_seq=4, errors=("", "x", "y"), task="netdns/d", round_id=2**63)),
        batch(rows=0, seed=3, of=head(agent="a2")),
        batch(rows=9, seed=4, of=head(agent="a3", targets=tuple(reversed(targets(5))), start_us=START_US + 2_000)),
    ]
    flush = [deliver(b, partition=i, offset=100 + i, tables=tables) for i, b in enumerate(several)]
    wanted = [row for i, b in enumerate(several) for row in expected_rows(b, partition=i, offset=100 + i)]
    got = expand(flush)
    got.validate(full=True)
    assert as_plain(got) == wanted


def test_columns_are_those_of_the_contract_and_where_the_record_stood() -> None:
    rows = expand([deliver(batch(), partition=0, offset=0, tables=TargetTables())])
    # ClickHouse computes total_us itself.
    assert set(rows.schema.names) == {c.name for c in COLUMNS} - {"total_us"} | {"kpart", "koff"}


def test_strings_are_dictionaries_without_repeats() -> None:
    flush = [deliver(batch(of=head(batch_seq=i)), partition=0, offset=i, tables=TargetTables()) for i in range(40)]
    rows = expand(flush)
    for name in ("agent", "task", "dst", "target", "peer", "error_type"):
        column = rows.column(name)
        assert pa.types.is_dictionary(column.type)
        assert len(column.dictionary) == len(set(column.dictionary.to_pylist()))


def test_many_different_names_get_wider_indexes() -> None:
    flush = [
        deliver(batch(rows=1, of=head(agent=f"agent-{i}")), partition=0, offset=i, tables=TargetTables())
        for i in range(200)
    ]
    agents = expand(flush).column("agent")
    assert agents.type.index_type == pa.int16()
    assert agents.to_pylist() == [f"agent-{i}" for i in range(200)]


@pytest.mark.parametrize("text", ["10.1.2.3", "fd00::1", "::"])
def test_addresses_are_sixteen_bytes(text: str) -> None:
    address = ipaddress.ip_address(text)
    mapped = ipaddress.IPv6Address(f"::ffff:{text}") if address.version == 4 else address
    assert ip_bytes(text) == mapped.packed


def test_an_unknown_address_is_all_zero() -> None:
    assert ip_bytes("") == bytes(16)


def test_batches_of_one_share_have_one_table_of_targets() -> None:
    tables = TargetTables()
    assert tables.of(head(batch_seq=0)) is tables.of(head(batch_seq=1))


def test_changed_targets_of_a_share_are_noticed() -> None:
    tables = TargetTables()
    first, second = tables.of(head()), tables.of(head(targets=targets(2)))
    assert (first.size, second.size) == (3, 2)


def test_tables_of_old_rounds_are_forgotten() -> None:
    tables = TargetTables(capacity=2)
    first = tables.of(head(round_id=1))
    tables.of(head(round_id=2))
    tables.of(head(round_id=3))
    assert tables.of(head(round_id=1)) is not first


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trace_id": "xyz"}, "trace_id"),
        ({"trace_id": "00ff"}, "trace_id: found 4 characters"),
        ({"round_id": -1}, "round_id: found -1"),
        ({"batch_seq": 2**32}, "batch_seq: found 4294967296"),
        ({"start_us": -5}, "start_us: found -5"),
        ({"targets": (targets()[0].__class__(name="t", dst="d", proto=1, layer=1, dst_ip="nowhere"),)}, "targets: "),
        ({"targets": (targets()[0].__class__(name="t", dst="d", proto=1, layer=1, dst_port=70_000),)}, "targets: "),
    ],
)
def test_a_head_that_no_column_can_hold_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidMessage, match=said):
        deliver(batch(rows=0, of=head(**changes)), partition=0, offset=0, tables=TargetTables())


@pytest.mark.parametrize("outcome", [0, 14])
def test_an_outcome_outside_the_enumeration_is_refused(outcome: int) -> None:
    wrong = np.array([1, 2, outcome, 3, 4], dtype=np.uint8)
    with pytest.raises(InvalidMessage, match="outcome: found"):
        deliver(batch(outcome=wrong), partition=0, offset=0, tables=TargetTables())
