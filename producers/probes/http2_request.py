"""One HTTP/2 request under way: where it waits, and the one row it ends in."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from producers.probes import tcp_info
from producers.probes.base import LocalTrouble, classify
from producers.probes.codec import Reply
from producers.probes.http2_session import Header
from producers.probes.http_reply import Judge
from topics.outcome import Outcome

if TYPE_CHECKING:
    from producers.probes.http2 import Http2Channel
    from producers.probes.http2_connection import Http2Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a channel's connections and requests are made of. With `single` each request has a connection of its own."""

    headers: Callable[[int], list[Header]]
    body: bytes
    judge: Judge
    tls: ssl.SSLContext | None
    server_name: str
    single: bool
    repeatable: bool
    dscp: int


class Http2Request:
    """A request under way."""

    __slots__ = (
        "attempt", "channel", "connect_us", "connection", "dns_us", "first_us", "planned_us", "sent_us", "seq",
        "stream", "tls_us", "written_us",
    )  # fmt: skip

    def __init__(self, channel: "Http2Channel", seq: int, planned_us: int, sent_us: int) -> None:
        self.channel = channel
        self.seq = seq
        self.planned_us = planned_us
        self.sent_us = sent_us
        self.connection: Http2Connection | None = None
        self.stream = 0
        self.attempt = 0
        self.first_us = self.written_us = 0
        self.dns_us = self.connect_us = self.tls_us = 0

    def end(self, outcome: Outcome, error: str) -> None:
        """End it from outside."""
        now_us = self.channel.setup.clock()
        connection = self.connection
        if connection is not None:
            connection.ended(self, Reply(outcome, error, 0, "", 0, False), now_us)
            return
        for opening in self.channel.connections:
            if self in opening.queue:
                opening.queue.remove(self)
                self._end_waiting(opening, outcome, error, now_us)
                return
        if self in self.channel.waiting:
            self.channel.waiting.remove(self)
            error = "no_stream_free" if outcome is Outcome.timeout else error
        self.report(Reply(outcome, error, 0, "", 0, False), now_us)

    def _end_waiting(self, opening: "Http2Connection", outcome: Outcome, error: str, now_us: int) -> None:
        if outcome is Outcome.timeout and opening.sock is None:
            outcome, error = Outcome.dns_error, "name_lookup_timeout"
            self.dns_us = now_us - self.sent_us
        opening.charged(self, Reply(outcome, error, 0, "", 0, False), now_us)
        if outcome is Outcome.timeout and now_us - opening.begun_us >= self.channel.setup.round_.timeout_ms * 1000:
            # As long as one request may wait, and no longer: the next ones try anew.
            opening.shut()

    def failed(self, error: BaseException) -> None:
        """It cannot be sent, or not be answered any more: end it by that error."""
        try:
            outcome, text = classify(error)
        except LocalTrouble as trouble:
            setup = self.channel.setup
            setup.pending.pop(self, None)
            setup.give_up(setup.index, str(trouble))
            return
        reply = Reply(outcome, text, 0, "", 0, False)
        now_us = self.channel.setup.clock()
        if self.connection is not None:
            self.connection.charged(self, reply, now_us)
        else:
            self.report(reply, now_us)

    def again(self) -> None:
        """Send it once more, on another connection."""
        self.attempt += 1
        self.connection = None
        self.first_us = self.written_us = 0
        self.channel.place(self)

    def report(self, reply: Reply, done_us: int, packets: tcp_info.Packets | None = None, port: int = 0) -> None:
        """Its row."""
        setup = self.channel.setup
        setup.pending.pop(self, None)
        packets = packets or tcp_info.Packets(0, 0, 0, 0, 0, 0)
        setup.report(
            (
                self.seq,
                setup.index,
                self.planned_us,
                self.sent_us - setup.start_us - self.planned_us,
                done_us - self.sent_us,
                self.dns_us,
                self.connect_us,
                self.tls_us,
                self.first_us - self.written_us if self.first_us else 0,
                reply.outcome,
                reply.error,
                reply.status,
                reply.peer,
                port,
                packets.sent,
                packets.lost,
                packets.segs_out,
                packets.segs_in,
                packets.retrans,
                packets.min_rtt_us,
                len(self.channel.plan.body),
                reply.resp_bytes,
                self.attempt,
                0,
            )
        )
