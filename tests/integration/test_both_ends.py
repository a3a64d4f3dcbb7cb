"""Both ends' account of every packet: real agents in namespaces, real losses with exact counters.

The longer statistics are in tests/soak/test_both_ends_statistics.py.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kpatrol.lab.leftovers import tear_down
from kpatrol.lab.netmode import detect_mode
from kpatrol.lab.netns import Network, build_network
from kpatrol.lab.netplan import NodeSpec
from kpatrol.lab.services import Service
from kpatrol.lab.state import LabState
from producers.receipts import Receipts as Collector
from streams.clickhouse import ClickHouse
from streams.expand import TargetTables, deliver, expand
from streams.judging import pair_table, served
from streams.judging.directions import Directions, directions
from streams.judging.pair_table import PairTable
from streams.judging.signatures import ClientSide, ServerSide, lost_packet
from streams.judging.summary import packet_loss
from streams.migrate import Migration, Values
from streams.rows import Located, tables_of
from streams.rows import _receipts as receipt_rows
from tests.integration.endpoint_fixture import running_endpoint
from tests.integration.test_schema import door
from tests.integration.two_ends import (
    PORTS,
    ROUND_ID,
    START_US,
    Asked,
    asked,
    asking,
    dropping,
    random_loss,
    round_of,
    serving,
    target,
    told,
)
from topics.outcome import Layer, Outcome, Proto
from topics.probe_receipts import ReceiptHead, Receipts
from topics.probe_results import SCHEMA as ROWS
from topics.probe_results import Batch, BatchHead, BatchTarget
from topics.task_rounds import Target

HTTP = PORTS[Proto.http]
pytestmark = pytest.mark.paced


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LabState]:
    state = LabState.create(tmp_path / "base")
    yield state
    assert tear_down(state).failures == []


@pytest.fixture
def network(lab: LabState) -> Network:
    assert detect_mode({}).mode == "root", detect_mode({}).reason
    return build_network(lab=lab, mode="root", specs=[NodeSpec(name=f"node-{i}") for i in (1, 2, 3)])


def joined(rows: Asked, receipts: list[Receipts]) -> PairTable:
    """The pair table of both accounts."""
    pairs = pair_table.from_batches(batches=rows.batches, round_id=ROUND_ID)
    both = served.from_batches(receipts=receipts, batches=rows.batches, round_id=ROUND_ID)
    return replace(pairs, served=both)


def ways(rows: Asked, receipts: list[Receipts]) -> Directions:
    return directions(joined(rows, receipts))


def total(receipts: list[Receipts], name: str) -> int:
    return sum(row[name] for batch in receipts for row in batch.rows.to_pylist())


def close_to(counted: int, dropped: int) -> bool:
    """Within 3 % or 2 packets."""
    return abs(counted - dropped) <= max(2, 0.03 * dropped)


@pytest.mark.parametrize("proto", [Proto.http, Proto.https])
@pytest.mark.parametrize("way", ["forward", "reverse"])
def test_random_loss_of_one_way_is_counted_there_and_not_the_other_way(
    network: Network, tmp_path: Path, way: str, proto: Proto
) -> None:
    """Kept connections: data and SYNs are counted. Bare ACKs and FINs are not: what they acknowledge is not lost."""
    node, side = ("node-2", "dport") if way == "forward" else ("node-1", "sport")
    round_ = round_of(rate=1500, seconds=2)
    loss = random_loss(0.02, port=PORTS[proto], side=side)
    with serving(network, "node-2", tmp_path) as server, dropping(network, node, loss) as drops:
        targets = [(target(network, "node-2", proto=proto), 3000)]
        rows = asked(network, "node-1", tmp_path, round_=round_, targets=targets)
        receipts, sent_again = server.take()
        dropped = drops.counts()
    both = ways(rows, receipts)
    assert both.known.tolist() == [True]
    there, back = int(both.forward_lost.sum()), int(both.reverse_lost.sum())
    here, other = (there, back) if way == "forward" else (back, there)
    assert close_to(here, dropped["data"] + dropped["syn"]), (there, back, dropped)
    # Sent again for nothing, and the report of it (a bare ACK) was lost: of the order of the loss squared.
    assert other <= max(2, 0.1 * here), (there, back, dropped)
    assert sum(rows.column("retrans")) == rows.retrans
    # Closed connections go on in the kernel, which sends their FINs again; nobody reads their counters.
    assert 0 <= sent_again - total(receipts, "retrans") <= total(receipts, "accepted")


@pytest.mark.parametrize("way", ["forward", "reverse"])
def test_datagrams_are_counted_exactly_each_way(network: Network, tmp_path: Path, way: str) -> None:
    node, side = ("node-2", "dport") if way == "forward" else ("node-1", "sport")
    round_ = round_of(rate=1000, seconds=1, timeout_ms=500)
    loss = random_loss(0.05, port=PORTS[Proto.udp], side=side)
    with serving(network, "node-2", tmp_path) as server, dropping(network, node, loss) as drops:
        targets = [(target(network, "node-2", proto=Proto.udp), 1000)]
        rows = asked(network, "node-1", tmp_path, round_=round_, targets=targets)
        receipts, _ = server.take()
        dropped = sum(drops.counts().values())
    both = ways(rows, receipts)
    assert both.known.tolist() == [True]
    there, back = int(both.forward_lost.sum()), int(both.reverse_lost.sum())
    assert (there, back) == ((dropped, 0) if way == "forward" else (0, dropped))
    assert dropped > 0


def test_one_packet_among_ten_thousand_is_found_and_its_request_named(network: Network, tmp_path: Path) -> None:
    one_packet(network, tmp_path, way="forward")


def one_packet(network: Network, folder: Path, *, way: str) -> None:
    """Drop one packet with data, and find its request in the database."""
    node, side = ("node-2", "dport") if way == "forward" else ("node-1", "sport")
    one = f"tcp {side} {HTTP} meta length > 120 numgen inc mod 10000000 == {NTH_OF_ALL}"
    round_ = round_of(rate=4000, seconds=2.5)
    with serving(network, "node-2", folder) as server, dropping(network, node, one) as drops:
        # Connecting sends nothing of that length.
        rows = asked(network, "node-1", folder, round_=round_, targets=[(target(network, "node-2"), 10_000)])
        receipts, _ = server.take()
        assert drops.counts()["data"] == 1
    both = ways(rows, receipts)
    assert (int(both.forward_lost.sum()), int(both.reverse_lost.sum())) == ((1, 0) if way == "forward" else (0, 1))
    with_database(folder, rows, receipts, check=lambda database: _named(database, way))


def _named(database: ClickHouse, way: str) -> None:
    (found,) = database.query_rows(f"SELECT seq, way, came, dur_us FROM v_lost_request WHERE {ROUND}")
    assert (found["way"], found["came"]) == (way, 1)
    # Each request is one packet each way, and they go in the order of their numbers but for those under way at once.
    assert abs(found["seq"] - NTH_OF_ALL) <= 256
    assert found["dur_us"] >= 200_000
    print(f"one packet among 10,000 requests: request {found['seq']}, {way}, {found['dur_us'] / 1000:.0f} ms")


NTH_OF_ALL = 4711
ROUND = f"round_id = {ROUND_ID} AND round_at = fromUnixTimestamp64Milli({START_US // 1000}, 'UTC')"


def with_database(folder: Path, rows: Asked, receipts: list[Receipts], *, check: Any) -> None:
    """Store both accounts as the sink does, and look."""
    (folder / "database").mkdir()
    with running_endpoint(folder / "database") as endpoint:
        database = door(endpoint)
        database.wait_ready(timeout_s=60)
        Migration(clickhouse=database, values=Values(raw_days=7300, minute_days=7300)).apply()
        tables = TargetTables()
        batches = [deliver(b, partition=0, offset=i, tables=tables) for i, b in enumerate(rows.batches)]
        database.insert_arrow(table="probe", rows=expand(batches), token="rows")
        shifted = [Located(record=at_round(r), partition=0, offset=i, timestamp_ms=0) for i, r in enumerate(receipts)]
        if shifted:
            database.insert_arrow(
                table="receipt", rows=tables_of(shifted, to_rows=receipt_rows)["receipt"], token="receipts"
            )
        check(database)
        database.close()


def at_round(batch: Receipts) -> Receipts:
    """Receipts as if they had come while the round was scheduled, which is not when the test runs."""
    rows = batch.rows.to_pylist()
    for row in rows:
        row |= {"first_us": START_US + 1, "last_us": START_US + 2}
    return Receipts(head=batch.head, rows=pa.RecordBatch.from_pylist(rows, schema=batch.rows.schema))


def test_datagrams_without_a_target_are_looked_up_bit_by_bit(tmp_path: Path) -> None:
    """Two sizes share one bitmap; the database and the pure join agree, and name every lost one."""
    there, back, count = {5, 6, 70, 199}, {9, 100}, 200
    targets = tuple(
        BatchTarget(name=f"t{size}", dst="node-2", dst_node="node-2", proto=Proto.udp, layer=Layer.pod, size=size)
        for size in (64, 1400)
    )
    head = BatchHead(
        round_id=ROUND_ID, round_number=1, start_us=START_US, task="t", task_uid="u", agent="node-1", incarnation=1,
        batch_seq=0, node="node-1", trace_id="0" * 32, targets=targets,
    )  # fmt: skip
    lost = there | back
    values = {
        "seq": list(range(count)),
        "target": [seq % 2 for seq in range(count)],
        "planned_us": [seq * 1000 for seq in range(count)],
        "outcome": [Outcome.timeout if seq in lost else Outcome.ok for seq in range(count)],
        "lost": [int(seq in lost) for seq in range(count)],
        "sent": [1] * count,
    }
    columns = [pa.array(values.get(f.name, [0] * count), type=f.type) for f in ROWS]
    batch = Batch(head=head, rows=pa.RecordBatch.from_arrays(columns, schema=ROWS))
    collector = Collector()
    for seq in sorted(set(range(count)) - there):
        collector.received(round_id=ROUND_ID, src_agent="node-1", proto=Proto.udp, seq=seq, now_us=START_US + 1)
    rows = collector.take()
    assert rows is not None
    receipts = [Receipts(head=ReceiptHead(agent="node-2", incarnation=1, batch_seq=0, node="node-2"), rows=rows)]
    asked_ = Asked(batches=[batch], retrans=0)
    pairs = joined(asked_, receipts)

    def check(database: ClickHouse) -> None:
        where = {"round_id": ROUND_ID, "round_at_ms": START_US // 1000, "until_ms": START_US // 1000 + 60_000}
        assert pairs.served is not None
        assert served.from_arrow(database.served(**where)).counts == pairs.served.counts
        seen = database.query_rows(f"SELECT * FROM v_loss_direction WHERE {ROUND} ORDER BY size")
        assert [(r["size"], r["both_ends"], r["forward_lost"], r["reverse_lost"]) for r in seen] == [
            (64, 1, 2, 1),
            (1400, 1, 2, 1),
        ]
        named = database.query_rows(f"SELECT seq, way FROM v_lost_request WHERE {ROUND}")
        assert {r["seq"] for r in named if r["way"] == "forward"} == there
        assert {r["seq"] for r in named if r["way"] == "reverse"} == back
        assert len(named) == len(lost)

    with_database(tmp_path, asked_, receipts, check=check)


NTH = "numgen inc mod 1000000 =="
SIGNATURES = {
    "syn": ("node-2", "prerouting", f"tcp dport {HTTP} tcp flags syn / syn,ack {NTH} 0"),
    "syn_ack": ("node-1", "prerouting", f"tcp sport {HTTP} tcp flags syn,ack / syn,ack {NTH} 0"),
    "request": ("node-2", "prerouting", f"tcp dport {HTTP} meta length > 120 {NTH} 0"),
    "response": ("node-1", "prerouting", f"tcp sport {HTTP} meta length > 120 {NTH} 0"),
    "part_of_response": ("node-1", "prerouting", f"tcp sport {HTTP} meta length > 120 {NTH} 0"),
    # The last ACK of the handshake: the first bare acknowledgement.
    "nothing": ("node-2", "prerouting", f"tcp dport {HTTP} meta length < 100 tcp flags ack / syn,ack {NTH} 0"),
    "server_output": ("node-2", "output", f"tcp sport {HTTP} meta length > 120 {NTH} 0"),
}


def test_each_lost_packet_has_its_signature(network: Network, tmp_path: Path) -> None:
    """SYN, SYN-ACK, request, response, first of four, last ACK, own host's output: one request each."""
    with serving(network, "node-2", tmp_path) as server:
        for name, (node, hook, pick) in SIGNATURES.items():
            # An answer that tells a long header back takes four segments.
            long = {"url_path": "/?task=t", "headers": ("x-long: " + "y" * 4500,)} if name == "part_of_response" else {}
            with dropping(network, node, pick, hook=hook) as drops:
                rows = asked(
                    network, "node-1", tmp_path, round_=round_of(rate=1, seconds=1, **long),
                    targets=[(target(network, "node-2"), 1)],
                )  # fmt: skip
                receipts, _ = server.take()
                assert sum(drops.counts().values()) == 1, name
            (row,) = rows.rows()
            assert row["outcome"] == Outcome.ok
            client = ClientSide(**{field: row[field] for field in ClientSide.__slots__})
            other = ServerSide(**{field: total(receipts, field) for field in ServerSide.__slots__})
            assert lost_packet(client, other) == name, (name, client, other)
            print(f"signature {name}: request took {row['dur_us'] / 1000:.0f} ms, {client}, {other}")
            assert lost_packet(client, None) == {"syn": "syn_or_syn_ack", "syn_ack": "syn_or_syn_ack"}.get(
                name, name if name == "request" else "nothing"
            )


def test_behind_services_and_a_masquerade_both_ends_meet_by_identity(network: Network, tmp_path: Path) -> None:
    """A cluster IP picks a member; a node port on node-3 forwards to node-2 under node-3's own address. The loss on the
    way back is injected on the node port's path only, and found in that layer only."""
    cluster = Service(
        name="c", kind="clusterip", port=80, target_port=HTTP, members=("node-2", "node-3"), address="10.203.0.1"
    )
    node = Service(name="n", kind="nodeport", port=30080, target_port=HTTP, members=("node-2",))
    network.install_services([cluster, node])
    unnamed = {"agent": "", "dst_node": ""}
    port_address = network.nodes["node-3"].address
    targets: list[tuple[Target, int]] = [
        (target(network, "node-2"), 600),
        (target(network, "node-2", layer=Layer.cluster_ip, name="c", address="10.203.0.1", port=80, **unnamed), 600),
        (target(network, "node-2", layer=Layer.node_port, name="n", address=port_address, port=30080, **unnamed), 600),
    ]
    with (
        serving(network, "node-2", tmp_path) as two,
        serving(network, "node-3", tmp_path) as three,
        dropping(network, "node-1", random_loss(0.03, port=30080, side="sport")) as drops,
    ):
        round_ = round_of(rate=300, seconds=2)
        rows = asked(network, "node-1", tmp_path, round_=round_, targets=targets)
        receipts = [*two.take()[0], *three.take()[0]]
        dropped = drops.counts()
    pairs = joined(rows, receipts)
    both = directions(pairs)
    assert both.known.tolist() == [True, True, True], pairs.served
    at = {layer: i for i, layer in enumerate(pairs.texts("layer"))}
    back = both.reverse_lost.tolist()
    # TCP is told to within two packets.
    assert max(back[at["pod"]], back[at["cluster_ip"]]) <= 2, back
    # The counter sees what comes from node-3's address: the masqueraded path, which no 5-tuple could have joined.
    assert dropped["data"] > 0
    assert close_to(back[at["node_port"]], dropped["data"] + dropped["syn"]), (back, dropped)

    def check(database: ClickHouse) -> None:
        where = {"round_id": ROUND_ID, "round_at_ms": START_US // 1000, "until_ms": START_US // 1000 + 60_000}
        by_sql = served.from_arrow(database.served(**where))
        assert pairs.served is not None
        assert by_sql.counts == pairs.served.counts
        seen = database.query_rows(f"SELECT * FROM v_loss_direction WHERE {ROUND} ORDER BY layer")
        assert {r["layer"]: (r["both_ends"], r["received"], r["reverse_lost"]) for r in seen} == {
            layer: (1, 600, back[i]) for layer, i in at.items()
        }
        assert sum(r["forward_sent"] for r in seen) == int(both.forward_sent.sum())
        assert sum(r["reverse_sent"] for r in seen) == int(both.reverse_sent.sum())

    with_database(tmp_path, rows, receipts, check=check)


def test_another_agent_at_the_address_is_no_loss(network: Network, tmp_path: Path) -> None:
    with (
        serving(network, "node-2", tmp_path, agent="node-9") as stranger,
        dropping(network, "node-2", random_loss(0.05, port=HTTP, side="dport")),
    ):
        rows = asked(
            network,
            "node-1",
            tmp_path,
            round_=round_of(rate=300, seconds=1),
            targets=[(target(network, "node-2"), 300)],
        )
        receipts, _ = stranger.take()
    pairs = joined(rows, receipts)
    assert pairs.by_outcome == {"wrong_peer": 300}
    loss = packet_loss(directions(pairs))
    assert (loss.total.sent, loss.total.lost, loss.reverse) == (0, 0, None)


def test_an_agent_replaced_in_the_middle_of_a_round_is_no_loss(network: Network, tmp_path: Path) -> None:
    round_ = round_of(rate=20, seconds=5, timeout_ms=500)
    with serving(network, "node-2", tmp_path, incarnation=1) as first:
        client = asking(network, "node-1", tmp_path, round_=round_, targets=[(target(network, "node-2"), 100)])
        receipts: list[Receipts] = []
        end = time.monotonic() + 60
        while total(receipts, "received") < 10:
            assert time.monotonic() < end, "nothing was asked"
            time.sleep(0.1)
            receipts += first.take()[0]
    with serving(network, "node-2", tmp_path, incarnation=2) as second:
        rows = told(client, "node-1", tmp_path)
        receipts += second.take()[0]
    pairs = joined(rows, receipts)
    ends = pairs.by_outcome
    # Between the two nobody listens: refused, at most one request under way is reset.
    assert set(ends) <= {"ok", "target_gone", "refused", "reset"}, ends
    assert ends["ok"] > 0
    assert ends["target_gone"] > 0
    assert packet_loss(directions(pairs)).total.lost == 0
