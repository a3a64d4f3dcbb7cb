"""What one request's counters at both ends say was lost: seven signatures of a single TCP loss, as measured. Pure.

| lost                              | client's kernel              | server's kernel                  | costs        |
|-----------------------------------|------------------------------|----------------------------------|--------------|
| SYN                               | SYN sent again               | nothing                          | 1 s          |
| SYN-ACK                           | SYN sent again               | SYN-ACK sent again, twice        | 1 s          |
| request                           | segment sent again           | nothing                          | 0.2 s        |
| response                          | nothing                      | segment sent again               | 0.2 s        |
| first segment of several          | nothing                      | segment sent again at once       | a round trip |
| last ACK of the handshake         | nothing                      | nothing                          | nothing      |
| own host's output, never on wire  | or: one segment sent twice   | one segment sent twice, no retry | 0.2 to 1 s   |
"""

from dataclasses import dataclass
from typing import Literal

Lost = Literal[
    "nothing",
    "syn",
    "syn_ack",
    "syn_or_syn_ack",
    "request",
    "response",
    "part_of_response",
    "client_output",
    "server_output",
]
# Linux waits 1 s before a SYN is sent again, and 0.2 s at least before anything else is (but for fast retransmission).
SYN_TIMEOUT_US = 900_000
LEAST_TIMEOUT_US = 190_000
# What surely fits one segment on any path.
ONE_SEGMENT_BYTES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSide:
    """A row of probe-results-v1: `connect_us` 0 where the connection was there before; bytes are of the bodies."""

    connect_us: int
    dur_us: int
    sent: int
    lost: int
    retrans: int
    req_bytes: int
    resp_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSide:
    """The receipts of the same requests (topics.probe_receipts), summed; of one request alone they are exact."""

    received: int
    accepted: int
    sent: int
    lost: int
    synack_lost: int
    retrans: int


def lost_packet(client: ClientSide, server: ServerSide | None) -> Lost:
    """Which packet of a request was lost; `server` is None where the other end tells nothing."""
    if client.retrans and client.connect_us >= SYN_TIMEOUT_US:
        return "syn_or_syn_ack" if server is None else "syn_ack" if server.synack_lost else "syn"
    if client.lost:
        return "request"
    if server is not None and server.lost > 0:
        several = client.resp_bytes > ONE_SEGMENT_BYTES
        return "part_of_response" if several and client.dur_us < LEAST_TIMEOUT_US else "response"
    return _never_on_the_wire(client, server) if client.dur_us >= LEAST_TIMEOUT_US else "nothing"


def _never_on_the_wire(client: ClientSide, server: ServerSide | None) -> Lost:
    """What a host dropped on its own way out: handed down twice, and to TCP sent once."""
    if _sent_twice(client.sent - (client.connect_us > 0), client.retrans, 1, client.req_bytes):
        return "client_output"
    if server is not None and _sent_twice(
        server.sent - server.accepted, server.retrans, server.received, client.resp_bytes
    ):
        return "server_output"
    return "nothing"


def _sent_twice(segments: int, retrans: int, messages: int, body_bytes: int) -> bool:
    """Whether more segments with data were handed down than messages of one segment each and what was sent again."""
    return body_bytes <= ONE_SEGMENT_BYTES and segments - retrans > messages
