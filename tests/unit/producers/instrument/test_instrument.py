"""The instrument as a whole: differences, greatest values, own sockets, the node's counters, the clock."""

import os
import socket
import struct
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from producers import node_counters, own_sockets
from producers.cgroup import CpuShare
from producers.clock_sync import ClockState, clock_state, judged
from producers.instrument import Bounds, Gauges, Instrument, Reading, condition, socket_drops
from producers.qdiscs import dropped, qdisc_drops
from topics.round_progress import NodeCounters

SNMP = "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors\nUdp: 10 0 3 9 3 1\n"
NETSTAT = (
    "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPBacklogDrop\nTcpExt: 0 2 5 7\nIpExt: InNoRoutes\nIpExt: 1\n"
)
SNMP6 = "Udp6InDatagrams                 \t8\nUdp6RcvbufErrors                \t11\n"


def test_drops_are_those_of_sockets_only() -> None:
    assert socket_drops(snmp=SNMP, netstat=NETSTAT, snmp6=SNMP6) == 3 + 1 + 5 + 7 + 11
    assert socket_drops(snmp="", netstat="", snmp6="") == 0


def test_a_reading_counts_from_an_earlier_one() -> None:
    before = Reading(
        cpu_us=10,
        cpu_wait_us=4,
        cpu=CpuShare(throttled_us=5, periods=3),
        socket_drops=9,
        own_drops={7: 2, 8: 1},
        resident_bytes=100,
        node=NodeCounters(softnet_drops=5, qdisc_drops=9),
    )
    after = Reading(
        cpu_us=30,
        cpu_wait_us=6,
        cpu=CpuShare(throttled_us=6, periods=8, limit_cores=0.5),
        socket_drops=2,
        own_drops={7: 5, 9: 4},
        resident_bytes=300,
        node=NodeCounters(softnet_drops=8, qdisc_drops=1),
    )
    used = after.since(before)
    assert (used.cpu_us, used.cpu_wait_us, used.resident_bytes) == (20, 2, 300)
    assert used.cpu == CpuShare(throttled_us=1, periods=5, limit_cores=0.5)
    # Socket 7 dropped three more, socket 9 is new, socket 8 is gone; the namespace's counter began anew.
    assert used.socket_drops == 3 + 4
    assert used.node == NodeCounters(softnet_drops=3)


def test_the_condition_has_the_greatest_values_and_their_bounds() -> None:
    peak = Gauges(local_ports_used=5, conntrack_entries=90, resident_bytes=7).greatest(
        Gauges(local_ports_used=50, conntrack_entries=9, resident_bytes=8)
    )
    said = condition(
        used=Reading(cpu_us=0, resident_bytes=3, cpu=CpuShare(throttled_periods=2, limit_cores=0.04)),
        peak=peak,
        bounds=Bounds(local_ports=28232, conntrack_max=100, memory_limit_bytes=80),
        clock=ClockState(synchronised=True, offset_us=-3, error_us=400),
    )
    assert (said.local_ports_used, said.local_ports, said.conntrack_entries) == (50, 28232, 90)
    assert (said.resident_max_bytes, said.memory_limit_bytes, said.throttled_periods) == (8, 80, 2)
    assert said.clock_error_us == 400


def test_the_figures_of_this_process_are_plausible() -> None:
    instrument = Instrument()
    now = instrument.read()
    assert now.cpu_us > 0
    assert now.resident_bytes > 5 << 20
    assert now.node is None
    assert instrument.bounds().local_ports > 1000
    assert instrument.look().resident_bytes > 5 << 20


def test_on_the_host_the_nodes_counters_are_read_and_own_sockets_are_asked() -> None:
    instrument = Instrument(flavour="host")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as full, socket.socket() as listening:
        full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        full.bind(("127.0.0.1", 0))
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        before = instrument.read()
        for _ in range(50):
            full.sendto(bytes(200), full.getsockname())
        used = instrument.read().since(before)
        dropped_here = own_sockets.drops_of(full.fileno())
        assert os.fstat(listening.fileno()).st_ino in before.own_drops
    assert 30 < dropped_here < 50
    assert used.socket_drops == dropped_here
    assert used.node is not None
    assert used.node.udp_buffer_errors >= dropped_here
    assert before.node is not None
    assert before.node.tcp_segments_out > 0


def test_a_kernel_that_shows_nothing_counts_nothing(tmp_path: Path) -> None:
    instrument = Instrument(proc=tmp_path)
    assert instrument.read().socket_drops == 0
    assert instrument.look() == Gauges()
    assert instrument.bounds() == Bounds()
    assert node_counters.counters(net=tmp_path, dropped_by_qdiscs=0) == NodeCounters()


def _qdisc(*, parent: int, drops: int) -> bytes:
    stats = struct.pack("=QII", 1000, 10, drops) + bytes(20)
    kind = struct.pack("=HH", 4 + 5, 1) + b"fifo\0" + bytes(3)
    body = struct.pack("=BBHiIII", 0, 0, 0, 2, 0x10000, parent, 0) + kind
    body += struct.pack("=HH", 4 + len(stats), 3) + stats
    return body


def test_only_a_devices_root_discipline_counts_its_drops() -> None:
    assert dropped(_qdisc(parent=0xFFFFFFFF, drops=7)) == 7
    assert dropped(_qdisc(parent=0x10001, drops=5)) == 0
    assert qdisc_drops() >= 0


@given(st.binary(max_size=200))
def test_any_bytes_of_a_message_count_no_less_than_nothing(body: bytes) -> None:
    assert dropped(body) >= 0


def test_a_clock_nobody_disciplines_has_no_offset() -> None:
    unknown = ClockState(synchronised=False, offset_us=None, error_us=None)
    assert judged(state=5, status=0, offset=9, max_error_us=16_000_000) == unknown
    assert judged(state=0, status=0x40, offset=9, max_error_us=16_000_000) == unknown
    assert judged(state=0, status=0x2001, offset=-1_700, max_error_us=500).offset_us == -2
    assert judged(state=0, status=0x0001, offset=-1_700, max_error_us=500).offset_us == -1_700
    told = clock_state()
    assert told is not None
    assert told.synchronised is (told.error_us is not None)
