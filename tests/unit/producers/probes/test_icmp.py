"""ICMP echo on loopback, by ping socket and raw, and what the network says instead of the target."""

import errno
import os
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.probes import icmp, icmp_packet, marking, net_errors
from topics.outcome import Outcome, Proto
from topics.task_rounds import Mesh

ADDRESSES = pytest.mark.parametrize(
    ("address", "family"),
    [
        ("127.0.0.1", 4),
        pytest.param(
            "::1",
            6,
            marks=pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="a kernel without IPv6"),
        ),
    ],
)


def _refused(family: socket.AddressFamily, source_address: str) -> socket.socket:
    raise PermissionError(errno.EACCES, "no ping sockets here")


@ADDRESSES
@pytest.mark.parametrize("size", [0, 1, 56, 1400])
def test_the_kernel_answers(lab: Any, address: str, family: int, size: int) -> None:
    async def scene() -> None:
        target = lab.target(port=0, proto=Proto.icmp, address=address, family=family, size=size, agent="node-2")
        _, rows = await lab.load(target, requests=5, timeout_ms=2000)
        bytes_ = max(12, size)
        assert [(row.outcome, row.sent, row.lost, row.peer) for row in rows] == [(Outcome.ok, 1, 0, "")] * 5
        assert {(row.req_bytes, row.resp_bytes) for row in rows} == {(bytes_, bytes_)}
        assert all(row.src_port > 0 for row in rows)

    lab.run(scene)


@ADDRESSES
def test_a_raw_socket_does_where_ping_sockets_are_forbidden(
    lab: Any, monkeypatch: pytest.MonkeyPatch, address: str, family: int
) -> None:
    monkeypatch.setattr(icmp, "ping_socket", _refused)

    async def scene() -> None:
        here = [lab.target(port=0, proto=Proto.icmp, address=address, family=family, size=s) for s in (0, 1001)]
        account, rows = await lab.load(*here, requests=5, timeout_ms=2000)
        if os.geteuid():
            assert account.unsent_causes == (("icmp_not_permitted", 10),)
        else:
            assert [(row.outcome, row.resp_bytes) for row in rows] == [(Outcome.ok, 12), (Outcome.ok, 1001)] * 5

    lab.run(scene)


def test_without_any_permission_requests_are_unsent(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(icmp, "ping_socket", _refused)
    monkeypatch.setattr(icmp, "raw_socket", _refused)

    async def scene() -> None:
        account, rows = await lab.load(lab.target(port=0, proto=Proto.icmp), requests=3)
        assert (account.unsent_causes, rows) == ((("icmp_not_permitted", 3),), [])

    lab.run(scene)


def test_the_full_size_is_of_the_way_to_the_target() -> None:
    mtu = int(Path("/sys/class/net/lo/mtu").read_text())
    assert marking.full_payload_bytes(address="127.0.0.1", source_address="") == min(65_507, mtu - 28)


def test_packets_bear_the_mark_of_their_class() -> None:
    families = [socket.AF_INET] + [socket.AF_INET6] * Path("/proc/net/if_inet6").exists()
    for family in families:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            marking.set_dscp(sock, 46)
            level, option = (
                (socket.IPPROTO_IP, socket.IP_TOS)
                if family == socket.AF_INET
                else (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
            )
            assert sock.getsockopt(level, option) == 46 << 2


def test_a_marked_probe_works(lab: Any) -> None:
    async def scene() -> None:
        _, rows = await lab.load(lab.target(port=0, proto=Proto.icmp), requests=3, timeout_ms=2000, mesh=Mesh(dscp=46))
        assert {row.outcome for row in rows} == {Outcome.ok}

    lab.run(scene)


def test_a_changed_payload_is_a_bad_reply(lab: Any) -> None:
    async def scene() -> None:
        setup: Any = type("S", (), {"target": lab.target(port=0, proto=Proto.icmp, size=64)})
        messages = icmp.IcmpMessages(setup)
        sent = messages.request(3, 7, 0)
        back = bytearray(b"\0" + sent[1:])
        assert messages.number(bytes(back)) == 3
        assert messages.answer(bytes(back), 3, 0, 1).outcome is Outcome.ok
        back[-1] ^= 1
        assert messages.answer(bytes(back), 3, 0, 1).error == "payload_differs"
        assert messages.answer(bytes(back[:-4]), 3, 0, 1).error == "payload_differs"

    lab.run(scene)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=100), st.sampled_from([4, 6]))
def test_an_echo_survives_the_wire(ident: int, number: int, data: bytes, family: int) -> None:
    wire = icmp_packet.request(family=family, ident=ident, number=number, data=data, checksum=True)
    assert icmp_packet.checksum_of(wire) == 0
    assert icmp_packet.quoted(wire, family=family) == (ident, number, data)
    assert icmp_packet.reply(wire, family=family) is None
    back = bytes([0 if family == 4 else 129]) + wire[1:]
    assert icmp_packet.reply(back, family=family) == (ident, number, data)


@given(st.binary(max_size=60))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    icmp_packet.reply(icmp_packet.without_ip(data), family=4)
    icmp_packet.quoted(data, family=6)


@pytest.mark.parametrize(
    ("number", "origin", "kind", "code", "info", "mtu", "text"),
    [
        (errno.EMSGSIZE, net_errors.ICMP, 3, 4, 1450, 1450, ""),
        (errno.EHOSTUNREACH, net_errors.ICMP, 3, 13, 0, 0, "prohibited"),
        (errno.EHOSTUNREACH, net_errors.ICMP, 11, 0, 0, 0, "hop_limit_exceeded"),
        (errno.ECONNREFUSED, net_errors.ICMP, 3, 3, 7, 0, ""),
    ],
)
def test_an_error_of_the_kernel_is_read(
    number: int, origin: int, kind: int, code: int, info: int, mtu: int, text: str
) -> None:
    raw = struct.pack("=IBBBBII", number, origin, kind, code, 0, info, 0) + b"more"
    found = net_errors.parse(raw, b"quote")
    assert (found.error, found.origin, found.mtu, found.text, found.quote) == (number, origin, mtu, text, b"quote")
    assert found.offender == "", "cut short"


@pytest.mark.parametrize(
    ("origin", "address", "offender"),
    [
        (net_errors.ICMP, bytes(4) + bytes([10, 1, 0, 1]) + bytes(8), "10.1.0.1"),
        (net_errors.ICMP6, bytes(8) + bytes.fromhex("fd00" + 24 * "0" + "0001") + bytes(4), "fd00::1"),
        (net_errors.LOCAL, bytes(28), ""),
    ],
)
def test_who_told_an_error_is_read_from_behind_it(origin: int, address: bytes, offender: str) -> None:
    raw = struct.pack("=IBBBBII", errno.EHOSTUNREACH, origin, 11, 0, 0, 0, 0) + address
    assert net_errors.parse(raw, b"").offender == offender
