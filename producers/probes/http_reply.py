"""An HTTP/1.1 reply out of bytes: what came, whether it is whole, and whether the connection may go on.

llhttp (through httptools) parses. On top: limits on head and body, replies without a length that end with the
connection, HEAD, interim replies, and a memory of replies seen. A kept connection to one target mostly brings the very
same bytes again; what was parsed once as exactly one whole reply needs no second parsing, since a parser that stands
at the start of a message has no other memory. For the same reason there is a parser only while a reply is parsed: it
and its reader refer to each other, and would wait for the garbage collector with every connection that ends.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import httptools

from producers.probes.base import BadReply, Closed
from producers.probes.codec import Reply

MAX_HEAD_BYTES = 64 << 10
MAX_BODY_BYTES = 16 << 20
_MEMORY_ENTRIES = 64
_MEMORY_BYTES = 2048


@dataclass(slots=True)
class Message:
    """What the parser said about one reply."""

    status: int
    agent: bytes
    body_bytes: int
    keep_alive: bool
    extra: bool = False


Judge = Callable[[Message], Reply]


@dataclass(frozen=True, slots=True)
class Memory:
    """Replies of one channel by their bytes; bounded, forgotten all at once when full."""

    known: dict[bytes, Reply] = field(default_factory=dict)

    def keep(self, data: bytes, reply: Reply) -> None:
        """Remember a reply that was whole in one piece."""
        if len(data) > _MEMORY_BYTES:
            return
        if len(self.known) >= _MEMORY_ENTRIES:
            self.known.clear()
        self.known[data] = reply


class ReplyReader:
    """Reads the replies of one connection, one after another. Raises BadReply on what is not HTTP/1."""

    def __init__(self, *, judge: Judge, memory: Memory, head_only: bool) -> None:
        self._judge = judge
        self._memory = memory
        self._known = memory.known
        self._head_only = head_only
        self._clear()

    def _clear(self) -> None:
        self._parser: httptools.HttpResponseParser | None = None
        self._taken = 0
        self._begun = 0
        self._head_bytes = 0
        self._body_bytes = 0
        self._agent = b""
        self._sized = False
        self._head_done = False
        self._whole: Message | None = None
        self._extra = False

    def feed(self, data: bytes) -> Reply | None:
        """Take bytes; the judged reply once it is whole."""
        if not self._taken:
            reply = self._known.get(data)
            if reply is not None:
                return reply
        first = not self._taken
        self._taken += len(data)
        self._parse(data)
        if not self._head_done:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                raise BadReply("head_too_large")
        if self._whole is None:
            return None
        return self._done(data if first else b"")

    def eof(self) -> Reply:
        """The connection ended: that ends a reply without a length; anything else is cut off."""
        if not self._taken:
            raise Closed
        if not self._head_done:
            raise BadReply("truncated_head")
        if self._sized:
            raise BadReply("truncated_body")
        assert self._parser is not None
        message = Message(self._parser.get_status_code(), self._agent, self._body_bytes, keep_alive=False)
        return self._judge(message)

    def _parse(self, data: bytes) -> None:
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise BadReply("unexpected_upgrade") from None
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, BadReply):
                raise cause from None
            if self._whole is None:
                raise BadReply("bad_http") from None
            # The reply was whole before the nonsense began: it counts, the connection does not.
            self._extra = True

    def _done(self, data: bytes) -> Reply:
        message = self._whole
        assert message is not None
        message.extra = self._extra
        message.keep_alive = message.keep_alive and not self._extra
        reply = self._judge(message)
        if data and not message.extra and not self._head_only:
            self._memory.keep(data, reply)
        self._clear()
        return reply

    # --- called by the parser ---

    def on_message_begin(self) -> None:
        """A further message where one was asked for."""
        self._begun += 1
        if self._whole is not None:
            self._extra = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field."""
        self._head_bytes += len(name) + len(value) + 4
        if self._whole is not None:
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            raise BadReply("head_too_large")
        lowered = name.lower()
        if lowered == b"kpatrol-agent":
            self._agent = value
        elif lowered in (b"content-length", b"transfer-encoding"):
            self._sized = True

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self._whole is not None:
            return
        assert self._parser is not None
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            return
        self._head_done = True
        if self._head_only:
            self._whole = Message(status, self._agent, 0, keep_alive=self._parser.should_keep_alive())

    def on_body(self, body: bytes) -> None:
        """A piece of the body: counted and dropped."""
        if self._whole is not None:
            self._extra = True
            return
        self._body_bytes += len(body)
        if self._body_bytes > MAX_BODY_BYTES:
            raise BadReply("body_too_large")

    def on_message_complete(self) -> None:
        """A message is whole; an interim one is not the reply."""
        if self._whole is not None or not self._head_done:
            return
        assert self._parser is not None
        keep_alive = self._parser.should_keep_alive()
        self._whole = Message(self._parser.get_status_code(), self._agent, self._body_bytes, keep_alive=keep_alive)
