"""What is said on a stream connection: a codec's contract, a reply, and how a channel's connections are made."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from topics.outcome import Outcome


class Reply(NamedTuple):
    """A whole reply: its judgement, and whether the connection may serve again."""

    outcome: Outcome
    error: str
    status: int
    peer: str
    resp_bytes: int
    reusable: bool


class Codec(Protocol):
    """One connection's protocol: bytes of a request out, a reply in. Not a socket in sight."""

    def request(self, seq: int) -> bytes:
        """The bytes of request `seq`."""

    def feed(self, data: bytes) -> Reply | None:
        """Take bytes; the reply once it is whole. Raises BadReply."""

    def eof(self) -> Reply:
        """The other side ended the connection: the reply if that is how it ends. Raises BadReply or ConnectionError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """How a channel's connections are made. `codec` None means connecting is the whole probe.

    With `reset` a connection ends by RST, so that none is left waiting (TIME_WAIT). `dscp` marks its packets.
    """

    codec: Callable[[], Codec] | None
    req_bytes: int = 0
    tls: ssl.SSLContext | None = None
    server_name: str = ""
    keep: bool = True
    repeatable: bool = True
    reset: bool = False
    dscp: int = 0
