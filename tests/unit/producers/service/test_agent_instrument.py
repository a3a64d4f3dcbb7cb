"""The instrument's figures out of the kernel's texts, and interfaces out of its bytes."""

import socket
import struct
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from producers.instrument import Instrument, Reading, cpu_stat_paths, socket_drops, throttled_us
from producers.interfaces import addresses, interfaces

SNMP = "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors\nUdp: 10 0 3 9 3 1\n"
NETSTAT = (
    "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPBacklogDrop\nTcpExt: 0 2 5 7\nIpExt: InNoRoutes\nIpExt: 1\n"
)
SNMP6 = "Udp6InDatagrams                 \t8\nUdp6RcvbufErrors                \t11\n"


def test_drops_are_those_of_sockets_only() -> None:
    assert socket_drops(snmp=SNMP, netstat=NETSTAT, snmp6=SNMP6) == 3 + 1 + 5 + 7 + 11
    assert socket_drops(snmp="", netstat="", snmp6="") == 0


def test_both_cgroup_versions_tell_the_throttled_time() -> None:
    assert throttled_us("nr_periods 3\nnr_throttled 1\nthrottled_usec 250\n") == 250
    assert throttled_us("nr_periods 3\nnr_throttled 1\nthrottled_time 250000\n") == 250
    assert throttled_us("") == 0


def test_the_cgroup_of_the_process_is_looked_for_first() -> None:
    root = Path("/cg")
    assert cpu_stat_paths("0::/kubepods/pod1\n", root=root)[0] == Path("/cg/kubepods/pod1/cpu.stat")
    old = cpu_stat_paths("4:memory:/x\n3:cpu,cpuacct:/x\n0::/x\n", root=root)
    assert old[0] == Path("/cg/cpu,cpuacct/x/cpu.stat")
    assert Path("/cg/cpu/cpu.stat") in old


def test_a_reading_counts_from_an_earlier_one() -> None:
    before = Reading(cpu_us=10, throttled_us=5, socket_drops=9, resident_bytes=100)
    after = Reading(cpu_us=30, throttled_us=6, socket_drops=2, resident_bytes=300)
    assert after.since(before) == Reading(cpu_us=20, throttled_us=1, socket_drops=0, resident_bytes=300)


def test_the_figures_of_this_process_are_plausible() -> None:
    now = Instrument().read()
    assert now.cpu_us > 0
    assert now.resident_bytes > 5 << 20


def test_interfaces_of_this_machine_have_the_loopback_address() -> None:
    found = interfaces()
    assert set(found) == {name for _, name in socket.if_nameindex()}
    assert any("127.0.0.1/8" in cidrs for cidrs in found.values())


def test_on_a_point_to_point_link_our_own_end_is_told() -> None:
    def attribute(kind: int, raw: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(raw), kind) + raw

    body = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, 7)
    body += attribute(1, bytes([10, 0, 0, 2])) + attribute(2, bytes([10, 0, 0, 1]))
    message = struct.pack("=IHHII", 16 + len(body), 20, 2, 1, 0) + body
    done = struct.pack("=IHHII", 20, 3, 2, 1, 0) + bytes(4)
    assert addresses(message) == ([(7, "10.0.0.1/32")], False)
    assert addresses(message + done) == ([(7, "10.0.0.1/32")], True)


@given(st.binary(max_size=200))
def test_any_bytes_end(reply: bytes) -> None:
    try:
        addresses(reply)
    except (struct.error, ValueError):
        return
