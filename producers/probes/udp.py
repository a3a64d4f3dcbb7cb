"""UDP requests to the reflector of another agent, which says who it is and how many it has received.

A reply from another agent than the one asked is `wrong_peer`. What is not of our form, or of another round, answers
nobody and is dropped.
"""

from producers.probes import udp_packet
from producers.probes.base import Channel, Setup
from producers.probes.datagram import Answer, DatagramChannel
from topics.outcome import Outcome


def channel(setup: Setup) -> Channel:
    """The channel to a reflector."""
    return DatagramChannel(setup, UdpMessages(setup))


class UdpMessages:
    """The probe's datagrams of one target."""

    def __init__(self, setup: Setup) -> None:
        self._agent = setup.agent
        self._expected = setup.target.agent
        self._digest = udp_packet.name_digest(setup.target.agent)
        self._round_id = setup.round_.round_id
        self.req_bytes = udp_packet.packet_size(name=setup.agent, size=setup.target.size)

    def request(self, number: int, seq: int) -> bytes:
        """The datagram of request `seq`."""
        return udp_packet.request(
            number=number, round_id=self._round_id, seq=seq, name=self._agent, size=self.req_bytes
        )

    def answer(self, data: bytes) -> Answer | None:
        """Whose answer it is, by the reflector's digest where its name did not fit."""
        packet = udp_packet.parse(data)
        if packet is None or packet.kind != udp_packet.REPLY or packet.round_id != self._round_id:
            return None
        if not self._expected:
            return Answer(packet.number, Outcome.ok, "", 0, packet.name)
        if packet.digest == self._digest:
            return Answer(packet.number, Outcome.ok, "", 0, self._expected)
        return Answer(packet.number, Outcome.wrong_peer, "wrong_peer", 0, packet.name)
