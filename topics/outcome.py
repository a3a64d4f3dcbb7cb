"""Closed enumerations shared by every protocol, topic, table and panel.

The numbers are wire values and ClickHouse Enum8 values: never reuse one.
"""

from enum import IntEnum


class Proto(IntEnum):
    """Protocol of a request."""

    icmp = 1
    udp = 2
    tcp = 3
    http = 4
    https = 5
    dns = 6


class Layer(IntEnum):
    """The way by which a target is reached."""

    pod = 1
    host = 2
    cluster_ip = 3
    node_port = 4
    load_balancer = 5
    ingress = 6
    multus = 7
    dns = 8
    url = 9


class Outcome(IntEnum):
    """How one request ended. `ok` means a valid reply within Tmax; judging a status code is the verdict's job
    only where the task says so (then `http_error`)."""

    ok = 1
    timeout = 2
    refused = 3
    reset = 4
    unreachable = 5
    dns_error = 6
    tls_error = 7
    http_error = 8
    bad_reply = 9
    wrong_peer = 10
    target_gone = 11
    cancelled = 12
    unsent = 13


# Neither a loss nor a success: the address was reached, but somebody else lives there now.
NOT_LOSS = frozenset({Outcome.wrong_peer, Outcome.target_gone, Outcome.cancelled, Outcome.unsent})
