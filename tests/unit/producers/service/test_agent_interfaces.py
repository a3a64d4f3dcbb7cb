"""Interfaces and their addresses out of the kernel's bytes."""

import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from producers.interfaces import addresses, interfaces


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
