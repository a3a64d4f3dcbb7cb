"""TCP connect: the handshake is the whole request, then the connection is closed.

`dur_us` and `connect_us` are the handshake's time; a SYN sent again is a retransmission, so `lost` says whether a
handshake packet was lost. Which of SYN and SYN-ACK it was, the serving side's own counters tell.
"""

from producers.probes.base import Channel, Setup
from producers.probes.stream import StreamChannel, Wire


def channel(setup: Setup) -> Channel:
    """The channel to a TCP port."""
    return StreamChannel(setup, Wire(codec=None, keep=False))
