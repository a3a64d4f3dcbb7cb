"""The kernel's counters out of its texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers import proc_texts
from producers.node_counters import interface_drops

SOFTNET = "00001000 0000000a 00000003 0 0\n00002000 00000001 00000010 0 0\n"
CONNTRACK = (
    "entries  found insert_failed drop early_drop\n00000005 0 00000002 00000001 00000000\n00000005 0 0000000a 0 1\n"
)
DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo: 100 10 0 0 0 0 0 0 100 10 0 0 0 0 0 0
  eth0: 100 10 2 7 0 0 0 0 100 10 1 4 0 0 0 0
"""


def test_softnet_and_conntrack_count_over_all_cpus() -> None:
    assert proc_texts.softnet(SOFTNET) == (11, 19)
    assert proc_texts.conntrack(CONNTRACK)["insert_failed"] == 12
    assert proc_texts.conntrack(CONNTRACK)["early_drop"] == 1
    assert proc_texts.softnet("") == (0, 0)
    assert proc_texts.conntrack("") == {}


def test_interfaces_drop_in_both_directions() -> None:
    assert interface_drops(DEV) == (7, 4, 3)


def test_sockets_that_wait_for_their_end_hold_a_port_too() -> None:
    text = "sockets: used 300\nTCP: inuse 12 orphan 1 tw 30 alloc 20 mem 3\nUDP: inuse 4 mem 1\n"
    assert proc_texts.sockets_in_use(text) == 42


@pytest.mark.parametrize(
    ("port_range", "reserved", "ports"),
    [("32768\t60999\n", "\n", 28232), ("32768 60999", "40000-40009,50000", 28221), ("10 19", "1-12", 7), ("", "", 0)],
)
def test_reserved_ports_are_not_to_be_had(port_range: str, reserved: str, ports: int) -> None:
    assert proc_texts.local_ports(port_range=port_range, reserved=reserved) == ports


def test_pressure_and_waiting_for_a_cpu_are_in_microseconds() -> None:
    pressure = "some avg10=10.57 avg60=7.98 avg300=10.80 total=427833293\nfull avg10=0.00 avg60=0 avg300=0 total=9\n"
    assert proc_texts.pressure_us(pressure) == 427833293
    assert proc_texts.waited_for_cpu_us("171255 77416 2\n") == 77
    assert proc_texts.number("max\n") == 0


@given(st.text(max_size=200))
def test_any_other_text_ends_in_a_number_or_a_plain_error(text: str) -> None:
    assert proc_texts.pressure_us(text) >= 0
    assert proc_texts.waited_for_cpu_us(text.replace("²", "")) >= 0
    assert isinstance(proc_texts.listed_counters(text.replace("²", "")), dict)
