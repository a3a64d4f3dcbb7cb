"""UDP requests to the reflector of another agent, as STAMP test packets: a request is a packet of its stream's session.

A reply tells which agent answers (another than the one asked is `wrong_peer`, one started anew since its first answer
`target_gone`) and which requests have come, so a request without a reply says where it was lost: its error is
`request_lost` on the way there, `reply_lost` on the way back, `timeout` where no later reply has told. Of an answered
request, `status` says what happened to it on the way (bits: 1 the request was overtaken, 2 the reply was overtaken, 4
the request came twice), `min_rtt_us` is the round trip without the reflector's time, `there_us` the way there, and
`segs_in` counts the datagrams that came since the last row of that port: more than one is copies, or replies after
their time.
"""

import itertools
import random
import time
from collections.abc import Iterator

from producers.probes import stamp
from producers.probes.base import Channel, Setup
from producers.probes.datagram import SOCKETS, Answer, DatagramChannel, Wire
from producers.probes.incarnation import AGENT_REPLACED, Incarnation
from producers.probes.stamp_session import SenderSession
from topics.outcome import Outcome


def channel(setup: Setup) -> Channel:
    """The channel to a reflector."""
    mesh = setup.round_.mesh
    wire = Wire(ports=mesh.source_ports if mesh else SOCKETS, dscp=mesh.dscp if mesh else 0, whole=True)
    return DatagramChannel(setup, UdpMessages(setup), wire)


class UdpMessages:
    """One session: all ports of the channel count in it."""

    def __init__(self, setup: Setup) -> None:
        self._expected = setup.target.agent
        self._digest = stamp.name_digest(setup.target.agent)
        self._ssid = random.randrange(1, 1 << 16)
        self._form = stamp.RequestForm(
            ssid=self._ssid,
            round_id=setup.round_.round_id,
            target=setup.index,
            agent=setup.agent,
            size=setup.target.size,
        )
        self.req_bytes = self._form.size
        self._session = SenderSession()
        self._known = Incarnation()
        self._numbers = itertools.count()
        # The load's clock never jumps: the wall clock is read once, and goes on with it.
        self._epoch_us = time.time_ns() // 1000 - setup.clock()
        self._reply: stamp.Reply | None = None

    def numbers(self) -> Iterator[int]:
        """The session's own, whatever the port."""
        return self._numbers

    def request(self, number: int, seq: int, sent_us: int) -> bytes:
        """The test packet."""
        return self._form.packet(number=number, seq=seq, stamp=stamp.ntp(sent_us + self._epoch_us))

    def number(self, data: bytes) -> int | None:
        """The packet that a reflector answers; another session's answers nobody."""
        self._reply = reply = stamp.parse_reply(data)
        return reply.number if reply is not None and reply.ssid == self._ssid else None

    def answer(self, data: bytes, number: int, sent_us: int, now_us: int) -> Answer:
        """Whose answer it is, by the reflector's digest where its name did not fit, and what it tells of the way."""
        reply = self._reply
        assert reply is not None
        if self._expected and reply.digest != self._digest:
            return Answer(Outcome.wrong_peer, "wrong_peer", 0, reply.agent)
        if reply.stamp != stamp.ntp(sent_us + self._epoch_us):
            return Answer(Outcome.bad_reply, "wrong_timestamp", 0, reply.agent)
        if self._expected and self._known.replaced(reply.incarnation):
            return Answer(Outcome.target_gone, AGENT_REPLACED, 0, self._expected or reply.agent)
        facts = self._session.answered(reply, now_us - sent_us)
        peer = self._expected or reply.agent
        return Answer(Outcome.ok, "", facts.flags, peer, min_rtt_us=facts.net_us, there_us=facts.there_us)

    def quoted(self, data: bytes) -> int | None:
        """The packet that an ICMP error is about."""
        quote = stamp.quoted(data)
        return quote[1] if quote is not None and quote[0] == self._ssid else None

    def silence(self, number: int) -> str:
        """Where the request was lost."""
        return self._session.fate(number) or "timeout"
