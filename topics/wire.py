"""A topic's record as one line of text, for where there is no Kafka: over a stream of `kubectl exec`.

A line is JSON: a number, the topic, key, value and headers in base64. An acknowledgement is a line with the number and
no topic.
"""

import msgspec


class Frame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record on its way. `number` counts what the agent sends; empty `topic`: an acknowledgement of that number."""

    number: int = 0
    topic: str = ""
    key: bytes = b""
    value: bytes = b""
    headers: tuple[tuple[str, bytes], ...] = ()


_DECODER = msgspec.json.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    """The line, with its end."""
    return msgspec.json.encode(frame) + b"\n"


def decode(line: bytes) -> Frame:
    """The frame of a line. Raises ValueError."""
    try:
        return _DECODER.decode(line)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a frame: {error}") from error
