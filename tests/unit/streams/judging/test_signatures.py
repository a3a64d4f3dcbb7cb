"""The seven signatures from figures as the kernel gave them; the integration test of both ends makes each anew."""

from typing import Any

import pytest

from streams.judging.signatures import ClientSide, Lost, ServerSide, lost_packet

CLIENT = ClientSide(connect_us=300, dur_us=900, sent=2, lost=0, retrans=0, req_bytes=0, resp_bytes=3)
SERVER = ServerSide(received=1, accepted=1, sent=2, lost=0, synack_lost=0, retrans=0)


def changed(side: Any, **changes: int) -> Any:
    return type(side)(**{name: getattr(side, name) for name in type(side).__slots__} | changes)


AGAIN = {"retrans": 1, "lost": 1, "sent": 3}
CASES: dict[str, tuple[dict[str, int], dict[str, int], Lost, Lost]] = {
    "SYN": (AGAIN | {"connect_us": 1_034_000}, {}, "syn", "syn_or_syn_ack"),
    "SYN-ACK": (
        AGAIN | {"connect_us": 1_023_000},
        {"retrans": 2, "synack_lost": 1, "lost": 1, "sent": 4},
        "syn_ack",
        "syn_or_syn_ack",
    ),
    "request": (AGAIN | {"dur_us": 205_000}, {}, "request", "request"),
    "response": ({"dur_us": 207_000}, {"retrans": 1, "lost": 1, "sent": 3}, "response", "nothing"),
    "first of four": (
        {"resp_bytes": 5026, "dur_us": 1046},
        {"retrans": 1, "lost": 1, "sent": 6},
        "part_of_response",
        "nothing",
    ),
    "last ACK": ({}, {}, "nothing", "nothing"),
    "server's own output": ({"dur_us": 208_000}, {"sent": 3}, "server_output", "nothing"),
    "client's own output": ({"dur_us": 1_045_000, "sent": 3}, {}, "client_output", "client_output"),
    "a slow server": ({"dur_us": 208_000}, {}, "nothing", "nothing"),
    "a long answer": ({"dur_us": 300_000, "resp_bytes": 5026}, {"sent": 5}, "nothing", "nothing"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_was_lost_is_told_from_both_ends_counters(case: str) -> None:
    client, server, from_both, from_client = CASES[case]
    assert lost_packet(changed(CLIENT, **client), changed(SERVER, **server)) == from_both
    assert lost_packet(changed(CLIENT, **client), None) == from_client
