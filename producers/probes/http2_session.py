"""HTTP/2 (RFC 9113) of a client as a state machine over bytes: requests out, replies in, many at once. No socket.

The h2 library keeps streams, windows and HPACK. On top: frames are fed one by one, so what a server said in order
counts even where nonsense follows; a GOAWAY is handled here, since replies to earlier streams may still come after it
(RFC 9113, 6.8); limits on heads, bodies, and on frames that carry nothing.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import hpack
import hyperframe.exceptions

from producers.probes.base import BadReply
from producers.probes.http_reply import MAX_BODY_BYTES, MAX_HEAD_BYTES, Message

Header = tuple[bytes, bytes]

# As large a frame as every server may send (RFC 9113, 4.2); no more is allowed to ours.
_FRAME_BYTES = 16_384
_HEAD_BYTES = 9
_GOAWAY = 7
_GOAWAY_BYTES = 8
# Frames in a row that bring no reply forward: PING, SETTINGS, interim heads, DATA with next to nothing in it, …
MAX_IDLE_FRAMES = 1_000
_FRAME_WORTH_BYTES = 64
# What a reply may send before we say that we took it.
_WINDOW_BYTES = 1 << 20
_BROKEN = (
    h2.exceptions.H2Error,
    hpack.HPACKError,
    hyperframe.exceptions.HyperframeError,
    ValueError,
    LookupError,
)


class Listener(Protocol):
    """Who is told what came; streams by their numbers."""

    def began(self, stream: int) -> None:
        """The first of a reply is here."""

    def replied(self, stream: int, message: Message) -> None:
        """A whole reply."""

    def reset(self, stream: int, error: str, *, unseen: bool) -> None:
        """The server gave the stream up; `unseen`: it says that it has not begun with the request, without blame."""

    def spoiled(self, stream: int, error: str) -> None:
        """A reply that breaks the rules, alone; the connection may go on."""


class Nobody:
    """Listens to a session of which nothing is to come."""

    def began(self, stream: int) -> None:
        """Unheard."""

    def replied(self, stream: int, message: Message) -> None:
        """Unheard."""

    def reset(self, stream: int, error: str, *, unseen: bool) -> None:
        """Unheard."""

    def spoiled(self, stream: int, error: str) -> None:
        """Unheard."""


class Frame(NamedTuple):
    """One frame: its type, and all its bytes."""

    kind: int
    data: bytes


class Frames:
    """Cuts bytes into frames. Raises BadReply for one that is larger than allowed."""

    def __init__(self) -> None:
        self._left = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now."""
        data = self._left + data
        at = 0
        while len(data) - at >= _HEAD_BYTES:
            length = int.from_bytes(data[at : at + 3], "big")
            if length > _FRAME_BYTES:
                self._left = b""
                raise BadReply("frame_too_large")
            end = at + _HEAD_BYTES + length
            if len(data) < end:
                break
            yield Frame(data[at + 3], data[at:end])
            at = end
        self._left = data[at:]


@dataclass(slots=True)
class _Reply:
    """A reply on its way in."""

    body: bytes = b""
    status: int = 0
    agent: bytes = b""
    body_bytes: int = 0
    unsent: deque[bytes] = field(default_factory=deque)


class _Connection(h2.connection.H2Connection):
    # Streams that are over are kept in mind to tell late frames from wrong ones; 65,536 would take megabytes.
    MAX_CLOSED_STREAMS = 1024


class Session:
    """One connection's streams. `out` is what is to be written after every call; `settled` once the server has said
    what it takes, `last_allowed` the last stream of which it has not taken its leave (None: of all)."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._frames = Frames()
        self._idle = 0
        self._streams: dict[int, _Reply] = {}
        self.last_allowed: int | None = None
        self.settled = False
        config = h2.config.H2Configuration(client_side=True, header_encoding=False)
        self._h2 = _Connection(config=config)
        self._h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.MAX_FRAME_SIZE: _FRAME_BYTES,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD_BYTES,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW_BYTES,
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_WINDOW_BYTES)

    def out(self) -> bytes:
        """Bytes to write."""
        return self._h2.data_to_send()

    @property
    def room(self) -> int:
        """How many more requests the server takes at once."""
        if self.last_allowed is not None:
            return 0
        if not self.settled:
            # One before we know: what is too much for the server would be refused.
            return 1 - len(self._streams)
        return self._h2.remote_settings.max_concurrent_streams - len(self._streams)

    def begin(self, headers: Sequence[Header], body: bytes) -> int:
        """Send a request; its stream. Raises ValueError when the headers cannot be sent, BadReply when no stream is
        left."""
        try:
            stream = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream, headers, end_stream=not body)
        except h2.exceptions.NoAvailableStreamIDError:
            raise BadReply("streams_used_up") from None
        except h2.exceptions.ProtocolError as error:
            raise ValueError(f"request headers: {error}") from error
        self._streams[stream] = _Reply(body=body)
        self._push(stream)
        return stream

    def cancel(self, stream: int) -> None:
        """Nobody waits for this reply any more."""
        if self._streams.pop(stream, None) is not None:
            self._give_up(stream)

    def feed(self, data: bytes) -> None:
        """Take bytes. Raises BadReply when the connection can go on no longer."""
        for frame in self._frames.feed(data):
            self._idle += 1
            if self._idle > MAX_IDLE_FRAMES:
                raise BadReply("frame_flood")
            if frame.kind == _GOAWAY:
                self._goaway(frame.data[_HEAD_BYTES:])
                continue
            try:
                events = self._h2.receive_data(frame.data)
            except h2.exceptions.DenialOfServiceError:
                raise BadReply("head_too_large") from None
            except _BROKEN:
                raise BadReply("bad_http2") from None
            for event in events:
                self._take(event)

    def _take(self, event: Any) -> None:
        match event:
            case h2.events.ResponseReceived():
                self._head(event)
            case h2.events.DataReceived():
                self._data(event)
            case h2.events.StreamEnded():
                self._ended(event.stream_id)
            case h2.events.StreamReset():
                self._reset(event)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self.settled |= isinstance(event, h2.events.RemoteSettingsChanged)
                for stream, reply in list(self._streams.items()):
                    if reply.body:
                        self._push(stream)

    def _head(self, event: Any) -> None:
        reply = self._streams.get(event.stream_id)
        if reply is None:
            return
        self._idle = 0
        fields = dict(reversed(event.headers))
        status = fields.get(b":status", b"")
        if not status.isdigit() or len(status) != 3:
            self._streams.pop(event.stream_id)
            self._give_up(event.stream_id)
            self._listener.spoiled(event.stream_id, "bad_status")
            return
        reply.status, reply.agent = int(status), fields.get(b"kpatrol-agent", b"")
        self._listener.began(event.stream_id)

    def _data(self, event: Any) -> None:
        size = len(event.data)
        if event.flow_controlled_length:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        reply = self._streams.get(event.stream_id)
        if reply is None:
            return
        self._idle = max(0, self._idle - size // _FRAME_WORTH_BYTES)
        reply.body_bytes += size
        if reply.body_bytes > MAX_BODY_BYTES:
            self._streams.pop(event.stream_id)
            self._give_up(event.stream_id)
            self._listener.spoiled(event.stream_id, "body_too_large")

    def _ended(self, stream: int) -> None:
        reply = self._streams.pop(stream, None)
        if reply is None:
            return
        self._idle = 0
        if reply.body:
            # Answered before all of the request was read: the rest is not sent.
            self._give_up(stream)
        self._listener.replied(stream, Message(reply.status, reply.agent, reply.body_bytes, keep_alive=True))

    def _reset(self, event: Any) -> None:
        if self._streams.pop(event.stream_id, None) is not None:
            self._idle = 0
            unseen = event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM
            self._listener.reset(event.stream_id, f"stream_{_name(event.error_code)}", unseen=unseen)

    def _goaway(self, payload: bytes) -> None:
        if len(payload) < _GOAWAY_BYTES:
            raise BadReply("bad_http2")
        last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        code = int.from_bytes(payload[4:8], "big")
        self.last_allowed = last if self.last_allowed is None else min(last, self.last_allowed)
        for stream in [stream for stream in self._streams if stream > last]:
            self._streams.pop(stream)
            self._listener.reset(stream, f"goaway_{_name(code)}", unseen=code == h2.errors.ErrorCodes.NO_ERROR)

    def _push(self, stream: int) -> None:
        """Send of a request's body what the server takes now."""
        reply = self._streams[stream]
        while reply.body:
            room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if room <= 0:
                return
            piece, reply.body = reply.body[:room], reply.body[room:]
            self._h2.send_data(stream, piece, end_stream=not reply.body)

    def _give_up(self, stream: int) -> None:
        try:
            self._h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        except h2.exceptions.H2Error:
            # It is over already.
            return


def _name(code: int) -> str:
    try:
        return h2.errors.ErrorCodes(code).name.lower()
    except ValueError:
        return "unknown_error"
