"""The kernel's counters, and what a request's share of them is."""

import socket

import pytest

from producers.probes import tcp_info
from producers.probes.tcp_info import NOTHING, Info, dsack_wait_s, packets, parse, read


def info(**fields: int) -> Info:
    order = ("unacked", "rtt", "retrans", "segs_out", "segs_in", "min_rtt", "data_segs_out", "dsack_dups")
    return tuple(fields.get(name, 0) for name in order)  # type: ignore[return-value]


def test_the_counters_are_those_of_the_kernel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            before = read(client)
            for _ in range(3):
                client.send(b"x")
                accepted.recv(1)
                accepted.send(b"y")
                client.recv(1)
            after = read(client)
    share = packets(before, after, opened=False)
    assert (share.sent, share.lost, share.retrans) == (3, 0, 0)
    assert 3 <= share.segs_in <= 6
    assert share.segs_out >= 3
    assert 0 < share.min_rtt_us < 1_000_000
    assert after[tcp_info.RTT] > 0


def test_a_closed_socket_has_no_counters() -> None:
    sock = socket.socket()
    sock.close()
    assert read(sock) is NOTHING


@pytest.mark.parametrize("length", [0, 8, 104, 192, 219])
def test_an_older_kernel_gives_fewer_bytes(length: int) -> None:
    assert len(parse(b"\0" * length)) == len(NOTHING)


@pytest.mark.parametrize(
    ("case", "before", "after", "how", "sent", "lost"),
    [
        ("nothing lost", info(data_segs_out=4), info(data_segs_out=5), {}, 1, 0),
        ("request lost", info(), info(data_segs_out=2, retrans=1), {}, 2, 1),
        ("reply lost", info(), info(data_segs_out=2, retrans=1, dsack_dups=1), {}, 2, 0),
        ("both lost once", info(), info(data_segs_out=3, retrans=2, dsack_dups=1), {}, 3, 1),
        ("new connection", NOTHING, info(data_segs_out=1), {"opened": True}, 2, 0),
        ("SYN lost", NOTHING, info(data_segs_out=1, retrans=1), {"opened": True, "opening_retrans": 1}, 3, 1),
        (
            "never connected",
            NOTHING,
            info(unacked=1, retrans=2),
            {"opened": True, "opening_retrans": 2, "timed_out": True},
            3,
            3,
        ),
        ("request lost to the end", info(), info(unacked=1, data_segs_out=3, retrans=2), {"timed_out": True}, 3, 3),
        ("server silent", info(), info(data_segs_out=1), {"timed_out": True}, 1, 0),
        ("dsack of earlier", info(retrans=1), info(retrans=1, data_segs_out=1, dsack_dups=1), {}, 1, 0),
    ],
)
def test_what_was_lost(case: str, before: Info, after: Info, how: dict[str, object], sent: int, lost: int) -> None:
    share = packets(before, after, **{"opened": False, **how})  # type: ignore[arg-type]
    assert (share.sent, share.lost) == (sent, lost), case


def test_the_wait_for_a_dsack_is_two_round_trips_and_bounded() -> None:
    assert dsack_wait_s(info(min_rtt=1000)) == pytest.approx(0.005)
    assert dsack_wait_s(info(min_rtt=10_000_000)) == 0.2
    assert dsack_wait_s(info(min_rtt=0xFFFFFFFF)) == pytest.approx(0.003)


def test_no_sample_of_the_round_trip_is_none() -> None:
    assert packets(NOTHING, info(min_rtt=0xFFFFFFFF), opened=True).min_rtt_us == 0
