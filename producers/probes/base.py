"""What a probe is to the load, and what the load is to a probe; the one table from exceptions to outcomes.

A probe knows its protocol and nothing else. The load knows time, order, limits and the account. One attempt, one
address, no hidden retry: what is tried again is a row's `attempt`.
"""

import errno
import ipaddress
import logging
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from producers.probes.poller import Poller
from producers.rows import Row
from topics.outcome import Outcome
from topics.task_rounds import RoundScheduled, Target

log = logging.getLogger(__name__)


# What the numbers of a request's attempts differ by; so many attempts at most have a number.
ATTEMPT = 1 << 24
MAX_ATTEMPTS = 200


class Attempt(Protocol):
    """A request under way. Lives in `Setup.pending` until it ends, in the order of sending."""

    sent_us: int

    def end(self, outcome: Outcome, error: str) -> None:
        """End it now from outside (timeout, cancelled): it reports its row and gives its resources back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Everything a channel is made of. Times are µs of the load's monotonic clock.

    Each request ends in one `report(row)`, or in one `give_up(index, cause)` when our own machine could not send it.
    A probe that tries a request again asks for `another(index, seq)` before it reports the attempt that failed: the
    number of the new attempt's row, or None. The attempt is the number divided by ATTEMPT. `shared` is one for all
    channels of a share. A datagram socket tells `dropped` as it is closed how many datagrams the kernel had no room for
    in it.
    """

    round_: RoundScheduled
    target: Target
    index: int
    agent: str
    trace_id: bytes
    source_address: str
    start_us: int
    pending: "OrderedDict[Attempt, None]"
    report: Callable[[Row], None]
    give_up: Callable[[int, str], None]
    clock: Callable[[], int]
    poller: Poller
    dropped: Callable[[int], None] = lambda _: None
    another: Callable[[int, int], int | None] = lambda _, __: None
    shared: dict[object, Any] = field(default_factory=dict)


class Channel(Protocol):
    """The way to one target: sends requests, reports each, keeps connections between them."""

    def send(self, seq: int, planned_us: int, sent_us: int) -> None:
        """Start one request now. `planned_us` counts from the round's start, `sent_us` is the clock's reading."""

    def close(self) -> None:
        """Give back what is held; requests under way have been ended before."""


class BadReply(Exception):
    """A reply that breaks its protocol; the text is the row's error, of low cardinality."""


class Closed(ConnectionResetError):
    """The other side ended the connection in order, but instead of a reply."""


class LocalTrouble(Exception):
    """Our own machine could not send: no row, the request is counted unsent with this cause."""


# Our own limits, never the network's: such a request counts as unsent.
LOCAL_CAUSES = {
    errno.EMFILE: "no_file_descriptors",
    errno.ENFILE: "no_file_descriptors",
    errno.ENOBUFS: "no_buffers",
    errno.ENOMEM: "no_memory",
    errno.EADDRNOTAVAIL: "no_local_port_or_address",
    errno.EADDRINUSE: "no_local_port_or_address",
}

_UNREACHABLE = {
    errno.EHOSTUNREACH: "host_unreachable",
    errno.ENETUNREACH: "network_unreachable",
    errno.EHOSTDOWN: "host_down",
    errno.ENETDOWN: "network_down",
    errno.EACCES: "blocked_locally",
    errno.EPERM: "blocked_locally",
    errno.EMSGSIZE: "message_too_long",
}

# Most specific first; the first class that fits decides.
ERRORS: tuple[tuple[type[BaseException], Outcome, str], ...] = (
    (ssl.SSLCertVerificationError, Outcome.tls_error, "certificate_verify_failed"),
    (ssl.SSLError, Outcome.tls_error, "tls_failed"),
    (ConnectionRefusedError, Outcome.refused, "connection_refused"),
    (Closed, Outcome.reset, "connection_closed"),
    (ConnectionResetError, Outcome.reset, "connection_reset"),
    (BrokenPipeError, Outcome.reset, "connection_reset"),
    (ConnectionAbortedError, Outcome.reset, "connection_aborted"),
    (TimeoutError, Outcome.timeout, "timeout"),
    # A host name that cannot be written in IDNA does not resolve.
    (UnicodeError, Outcome.dns_error, "name_invalid"),
)

_LOOKUPS = {
    socket.EAI_NONAME: "name_not_found",
    socket.EAI_AGAIN: "name_lookup_failed",
    socket.EAI_FAIL: "name_lookup_failed",
}


def classify(error: BaseException) -> tuple[Outcome, str]:
    """(outcome, error type) of an exception. Raises LocalTrouble where our own machine was in the way."""
    if isinstance(error, BadReply):
        return Outcome.bad_reply, str(error)
    if isinstance(error, socket.gaierror):
        return Outcome.dns_error, _LOOKUPS.get(error.errno or 0, "name_not_found")
    for kind, outcome, text in ERRORS:
        if isinstance(error, kind):
            return outcome, text
    if isinstance(error, OSError):
        return _by_errno(error)
    # A bug of ours is an outcome, counted, and its traceback is told.
    log.error("probe failed", exc_info=error)
    return Outcome.bad_reply, "internal_error"


def _by_errno(error: OSError) -> tuple[Outcome, str]:
    number = error.errno or 0
    if number in LOCAL_CAUSES:
        raise LocalTrouble(LOCAL_CAUSES[number]) from error
    return Outcome.unreachable, _UNREACHABLE.get(number) or errno.errorcode.get(number, "os_error").lower()


def is_literal(address: str) -> bool:
    """Whether an address is an IP literal, so no name has to be looked up."""
    try:
        ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return True


def socket_family(target: Target) -> socket.AddressFamily:
    """The socket family by which a target is reached: its literal address decides, else its family."""
    if is_literal(target.address):
        return socket.AF_INET6 if ":" in target.address else socket.AF_INET
    return socket.AF_INET6 if target.family == 6 else socket.AF_INET


def bind_source(sock: socket.socket, source_address: str) -> None:
    """Bind to the data address where it is of the socket's family; the port is chosen on connect, not before."""
    if not source_address or (":" in source_address) != (sock.family == socket.AF_INET6):
        return
    # Without this every connection would reserve a port for all destinations, and 28,000 would be the end.
    sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
    sock.bind((source_address, 0))
