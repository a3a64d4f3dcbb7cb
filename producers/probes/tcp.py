"""TCP connect: the handshake is the whole request, then the connection is closed.

`dur_us` and `connect_us` are the handshake's time; a SYN sent again is a retransmission, so `lost` says whether a
handshake packet was lost. Which of SYN and SYN-ACK it was, the serving side's own counters tell: another agent is left
a line that says whose connection it was (see mark), nobody else is.
"""

from producers import mark
from producers.probes.base import Channel, Setup
from producers.probes.stream import StreamChannel, Wire


def channel(setup: Setup) -> Channel:
    """The channel to a TCP port."""
    agent, round_id, index = setup.agent, setup.round_.round_id, setup.index

    def farewell(seq: int) -> bytes:
        return mark.line(agent=agent, round_id=round_id, target=index, seq=seq)

    return StreamChannel(setup, Wire(codec=None, keep=False, farewell=farewell if setup.target.agent else None))
