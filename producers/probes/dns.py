"""DNS queries over UDP, TCP and TLS (RFC 1035, 7766, 7858). Messages are made by dnspython, once, off the hot path.

Any whole reply to our question in time is `ok`, whatever its rcode, as kdoctor has it: NXDOMAIN is an answer. `status`
is the rcode, `error` its name where it is not NOERROR, or `truncated`. A task that names an rcode gets `dns_error` for
any other. A reply to another question is `bad_reply`; a datagram with an unknown id answers nobody and is dropped.

Each attempt is a row (see dns_attempts); two queries of one moment from one port are dns_race's.
"""

import ssl
import struct
from dataclasses import replace
from functools import lru_cache

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from producers.probes.base import BadReply, Channel, Closed, Setup, is_literal
from producers.probes.codec import Reply, Wire
from producers.probes.datagram import Answer, DatagramChannel, Numbered
from producers.probes.dns_attempts import AttemptsChannel, as_attempts
from producers.probes.dns_race import RaceChannel
from producers.probes.stream import StreamChannel
from producers.probes.tls import unverified
from topics.outcome import Outcome

HEADER_BYTES = 12
_QR, _TC = 0x8000, 0x0200
# Replies of one channel that are remembered with their judgement.
_MEMORY_ENTRIES, _MEMORY_BYTES = 64, 2048


def channel(setup: Setup) -> Channel:
    """The channel to a DNS server. Raises ValueError when the round has no question or a bad one."""
    request = setup.round_.dns
    if request is None:
        raise ValueError("a DNS target in a round without a DNS question")
    query = question(domain=request.domain, record_type=setup.target.record_type or request.record_type)
    expected = setup.round_.expect.rcode
    if request.race:
        if not is_literal(setup.target.address):
            raise ValueError(f"a race needs a server's address, found the name {setup.target.address!r}")
        return RaceChannel(setup, UdpMessages(query, expected))
    if request.protocol == "udp" and (request.attempts > 1 or request.tcp_fallback):
        over_tcp = replace(setup, report=as_attempts(setup.report)) if request.tcp_fallback else None
        tcp = StreamChannel(over_tcp, _wire(query, expected, None)) if over_tcp is not None else None
        return AttemptsChannel(setup, UdpMessages(query, expected), attempts=request.attempts, tcp=tcp)
    if request.protocol == "udp":
        return DatagramChannel(setup, UdpMessages(query, expected))
    if request.protocol not in ("tcp", "tcp-tls"):
        raise ValueError(f"DNS protocol {request.protocol!r}, expected udp, tcp or tcp-tls")
    # kdoctor does not verify a DNS server's certificate, and a task has no field for its authority.
    tls = unverified() if request.protocol == "tcp-tls" else None
    return StreamChannel(setup, _wire(query, expected, tls))


def _wire(query: bytes, expected: int | None, tls: ssl.SSLContext | None) -> Wire:
    return Wire(codec=lambda: DnsCodec(query, expected), req_bytes=len(query), tls=tls)


def question(*, domain: str, record_type: str) -> bytes:
    """A query for that name and type, recursion desired, with id 0. Raises ValueError on a bad name or type."""
    try:
        name = dns.name.from_text(domain)
        kind = dns.rdatatype.from_text(record_type)
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ValueError(f"DNS question {domain!r} {record_type!r}: {error}") from error
    return dns.message.make_query(name, kind, id=0).to_wire()


def numbered(query: bytes, number: int) -> bytes:
    """The query with that id."""
    return struct.pack("!H", number) + query[2:]


def judged(query: bytes, reply: bytes, expected: int | None = None) -> tuple[Outcome, str, int]:
    """(outcome, error, rcode) of a message that bears our id; `expected` is the rcode that the task wants."""
    if len(reply) < HEADER_BYTES:
        return Outcome.bad_reply, "short_message", 0
    _, flags, questions = struct.unpack_from("!HHH", reply)
    rcode = flags & 0xF
    if not flags & _QR:
        return Outcome.bad_reply, "not_a_reply", rcode
    # Servers that cannot parse a query (FORMERR, NOTIMP) may leave the question out.
    if questions or not rcode:
        end = len(query)
        # Names are compared without case: a server may mix it (0x20) or not keep it.
        if questions != 1 or reply[HEADER_BYTES:end].lower() != query[HEADER_BYTES:end].lower():
            return Outcome.bad_reply, "question_mismatch", rcode
    if expected is not None and rcode != expected:
        return Outcome.dns_error, _rcode_name(rcode), rcode
    if rcode:
        return Outcome.ok, _rcode_name(rcode), rcode
    return Outcome.ok, "truncated" if flags & _TC else "", 0


@lru_cache(maxsize=16)
def _rcode_name(rcode: int) -> str:
    return dns.rcode.to_text(dns.rcode.Rcode(rcode))


class UdpMessages(Numbered):
    """DNS as datagrams."""

    def __init__(self, query: bytes, expected: int | None = None) -> None:
        self.req_bytes = len(query)
        self._query = query
        self._expected = expected
        self._rest = query[2:]
        self._known: dict[bytes, Answer] = {}

    def request(self, number: int, seq: int, sent_us: int) -> bytes:
        """The query under that id."""
        return number.to_bytes(2, "big") + self._rest

    def number(self, data: bytes) -> int | None:
        """The id; None for what is too short to bear one."""
        return data[0] << 8 | data[1] if len(data) >= 2 else None

    def answer(self, data: bytes, number: int, sent_us: int, now_us: int) -> Answer:
        """The judged reply. Most are the same but for the id, and are judged once."""
        rest = data[2:]
        known = self._known.get(rest)
        if known is None:
            if len(self._known) >= _MEMORY_ENTRIES:
                self._known.clear()
            outcome, error, rcode = judged(self._query, data, self._expected)
            known = Answer(outcome, error, rcode)
            if len(rest) <= _MEMORY_BYTES:
                self._known[rest] = known
        return known

    quoted = number


class DnsCodec:
    """DNS on a stream: each message behind its length; one query under way."""

    def __init__(self, query: bytes, expected: int | None = None) -> None:
        self._query = query
        self._expected = expected
        self._number = 0
        self._buffer = b""

    def request(self, seq: int) -> bytes:
        """The query, its id taken from the sequence number."""
        self._number = seq & 0xFFFF
        return struct.pack("!H", len(self._query)) + numbered(self._query, self._number)

    def feed(self, data: bytes) -> Reply | None:
        """Take bytes; the reply once it is whole."""
        self._buffer += data
        if len(self._buffer) < 2:
            return None
        end = 2 + int.from_bytes(self._buffer[:2], "big")
        if len(self._buffer) < end:
            return None
        message, extra = self._buffer[2:end], len(self._buffer) > end
        self._buffer = b""
        if len(message) < HEADER_BYTES:
            raise BadReply("short_message")
        if int.from_bytes(message[:2], "big") != self._number:
            raise BadReply("wrong_id")
        outcome, error, rcode = judged(self._query, message, self._expected)
        return Reply(outcome, error, rcode, "", len(message), outcome is Outcome.ok and not extra)

    def eof(self) -> Reply:
        """An end is never a reply."""
        if self._buffer:
            raise BadReply("truncated_message")
        raise Closed
