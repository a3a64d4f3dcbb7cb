"""TCP connect: a new connection for each request, from a new port, ended as soon as it has told.

Another agent is sent one line that says whose connection it is, and answers with one that says who it is (see mark):
another agent than the one asked is `wrong_peer`, one started anew since its first answer `target_gone`. Of anybody else
the handshake is the whole request. `connect_us` is the handshake's time in both; a SYN or a line sent again is a
retransmission, so `lost` says that a packet was lost.

To another agent the connection ends by RST: ports are not kept waiting for a minute after thousands of probes. Anybody
else might count that as an error, and gets an orderly end.
"""

from producers import mark
from producers.probes.base import BadReply, Channel, Closed, Setup
from producers.probes.codec import Reply, Wire
from producers.probes.incarnation import AGENT_REPLACED, Incarnation
from producers.probes.stream import StreamChannel
from topics.outcome import Outcome

_MAX_GREETING_BYTES = 320


def channel(setup: Setup) -> Channel:
    """The channel to a TCP port."""
    dscp = setup.round_.mesh.dscp if setup.round_.mesh else 0
    if not setup.target.agent:
        return StreamChannel(setup, Wire(codec=None, keep=False, dscp=dscp))
    size = len(_line(setup, 0))
    known = Incarnation()
    return StreamChannel(
        setup,
        Wire(codec=lambda: TcpCodec(setup, known), req_bytes=size, keep=False, repeatable=False, reset=True, dscp=dscp),
    )


class TcpCodec:
    """One connection to another agent: our line, its line."""

    __slots__ = ("_buffer", "_known", "_setup")

    def __init__(self, setup: Setup, known: Incarnation) -> None:
        self._setup = setup
        self._known = known
        self._buffer = b""

    def request(self, seq: int) -> bytes:
        """The line of request `seq`."""
        return _line(self._setup, seq)

    def feed(self, data: bytes) -> Reply | None:
        """Take bytes; the judgement once the line is whole."""
        self._buffer += data
        line, end, _ = self._buffer.partition(b"\r\n")
        if not end:
            if len(self._buffer) > _MAX_GREETING_BYTES:
                raise BadReply("no_greeting")
            return None
        name, colon, value = line.partition(b": ")
        if not colon or name != mark.AGENT_HEADER.encode():
            raise BadReply("no_greeting")
        answering, _, incarnation = value.partition(b"/")
        peer = answering.decode("utf-8", "replace")
        size = len(self._buffer)
        if peer != self._setup.target.agent:
            return Reply(Outcome.wrong_peer, "wrong_peer", 0, peer, size, False)
        if self._known.replaced(incarnation):
            return Reply(Outcome.target_gone, AGENT_REPLACED, 0, peer, size, False)
        return Reply(Outcome.ok, "", 0, peer, size, False)

    def eof(self) -> Reply:
        """An end is never a reply."""
        if self._buffer:
            raise BadReply("truncated_greeting")
        raise Closed


def _line(setup: Setup, seq: int) -> bytes:
    return mark.line(agent=setup.agent, round_id=setup.round_.round_id, target=setup.index, seq=seq)
