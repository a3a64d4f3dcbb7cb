"""A small HTTP/2 server for tests, and raw frames for those that are no servers."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
SETTINGS_ACK = b"\0\0\0\x04\x01\0\0\0\0"
# :status 200, indexed.
STATUS_200 = b"\x88"


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """One frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


@dataclass
class Seen:
    """A request as the server got it."""

    headers: dict[str, str]
    body: bytes = b""


@dataclass
class H2Server:
    """Answers each request by `answer(connection, stream, request)`, else with 200 and `body`."""

    body: bytes = b"hi"
    status: str = "200"
    settings: dict[Any, int] = field(default_factory=dict)
    agent: str = ""
    hold: int = 0
    answer: Any = None
    goaway_after: int = 0
    requests: list[Seen] = field(default_factory=list)
    connections: int = 0
    most: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection's script."""
        self.connections += 1
        server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        server.local_settings = h2.settings.Settings(client=False, initial_values=self.settings)
        server.initiate_connection()
        writer.write(server.data_to_send())
        open_: dict[int, Seen] = {}
        waiting: list[int] = []
        unsent: dict[int, bytes] = {}
        done = 0
        while data := await reader.read(65_536):
            for event in server.receive_data(data):
                self._take(server, event, open_, waiting)
            self.most = max(self.most, len(waiting))
            if len(waiting) > self.hold or done:
                for stream in reversed(waiting):
                    done += 1
                    if self.answer is not None:
                        self.answer(server, stream, open_[stream])
                    else:
                        self._send(server, stream, open_[stream], unsent)
                waiting.clear()
            for stream, body in list(unsent.items()):
                unsent[stream] = _pushed(server, stream, body)
                if not unsent[stream]:
                    del unsent[stream]
            if self.goaway_after and done >= self.goaway_after:
                server.close_connection(last_stream_id=max(open_))
                writer.write(server.data_to_send())
                await writer.drain()
                return
            writer.write(server.data_to_send())

    def _take(self, server: Any, event: Any, open_: dict[int, Seen], waiting: list[int]) -> None:
        if isinstance(event, h2.events.RequestReceived):
            open_[event.stream_id] = Seen(dict(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            open_[event.stream_id].body += event.data
            server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.requests.append(open_[event.stream_id])
            waiting.append(event.stream_id)
        elif isinstance(event, h2.events.StreamReset) and event.stream_id in waiting:
            waiting.remove(event.stream_id)

    def _send(self, server: Any, stream: int, request: Seen, unsent: dict[int, bytes]) -> None:
        headers = [(":status", self.status), ("content-length", str(len(self.body)))]
        if self.agent:
            headers.append(("kpatrol-agent", self.agent))
        bodyless = request.headers[":method"] == "HEAD" or not self.body
        server.send_headers(stream, headers, end_stream=bodyless)
        if not bodyless:
            unsent[stream] = self.body


def _pushed(server: Any, stream: int, body: bytes) -> bytes:
    with contextlib.suppress(h2.exceptions.H2Error):
        while body:
            room = min(server.local_flow_control_window(stream), server.max_outbound_frame_size)
            if room <= 0:
                return body
            server.send_data(stream, body[:room], end_stream=len(body) <= room)
            body = body[room:]
    return b""
