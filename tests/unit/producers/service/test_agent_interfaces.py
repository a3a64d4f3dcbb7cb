"""Interfaces and their addresses out of the kernel's bytes."""

import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from producers.interfaces import address, interfaces
from producers.netlink import attributes, messages


def test_interfaces_of_this_machine_have_the_loopback_address() -> None:
    found = interfaces()
    assert set(found) == {name for _, name in socket.if_nameindex()}
    assert any("127.0.0.1/8" in cidrs for cidrs in found.values())


def test_on_a_point_to_point_link_our_own_end_is_told() -> None:
    def attribute(kind: int, raw: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(raw), kind) + raw

    body = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, 7)
    body += attribute(1, bytes([10, 0, 0, 2])) + attribute(2, bytes([10, 0, 0, 1]))
    assert address(body) == (7, "10.0.0.1/32")


def test_a_reply_is_cut_into_the_messages_that_were_asked_for() -> None:
    message = struct.pack("=IHHII", 16 + 5, 20, 2, 1, 0) + b"fives" + bytes(3)
    other = struct.pack("=IHHII", 16 + 4, 24, 2, 1, 0) + b"four"
    done = struct.pack("=IHHII", 20, 3, 2, 1, 0) + bytes(4)
    assert messages(message + other, told=20) == ([b"fives"], False)
    assert messages(message + done + message, told=20) == ([b"fives"], True)


@given(st.binary(max_size=200))
def test_any_bytes_end(reply: bytes) -> None:
    found, _ = messages(reply, told=20)
    assert sum(len(body) for body in found) <= len(reply)
    assert all(len(raw) <= len(reply) for raw in attributes(reply, after=8).values())


@given(st.binary(max_size=60))
def test_an_address_that_makes_no_sense_is_none(body: bytes) -> None:
    found = address(body)
    assert found is None or "/" in found[1]
