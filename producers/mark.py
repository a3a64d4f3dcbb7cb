"""Whose request it is, as it says itself: `<agent>;<round id, hex>;<target>;<seq>`, in HTTP's `kpatrol-from` header and
in the line that a TCP connect probe sends. `target` is the place of the request's target in its agent's list.

The serving side joins by this alone: behind a service address or a masquerade the 5-tuple says nothing.
"""

import re
from typing import NamedTuple

HEADER = "kpatrol-from"
AGENT_HEADER = "kpatrol-agent"
# Groups: agent, round, target, seq.
PATTERN = rb"([^\x00-\x20;]{1,253});([0-9a-f]{1,16});([0-9]{1,5});([0-9]{1,10})"
# The whole line of a TCP connect probe, and the most it may take.
LINE = re.compile(rb"kpatrol-from: " + PATTERN + rb"\r\n")
MAX_LINE_BYTES = 320
_LINE_BEGINS = b"kpatrol-from: "
_WHOLE = re.compile(PATTERN)
_MAX_TARGET = (1 << 16) - 1
_MAX_SEQ = (1 << 32) - 1


class Mark(NamedTuple):
    """The source agent, round id, target and number of a request."""

    agent: str
    round_id: int
    target: int
    seq: int


def prefix(*, agent: str, round_id: int, target: int) -> str:
    """All of a mark but its number, which follows."""
    return f"{agent};{round_id:x};{target};"


def line(*, agent: str, round_id: int, target: int, seq: int) -> bytes:
    """What a TCP connect probe sends to another agent."""
    return f"{HEADER}: {prefix(agent=agent, round_id=round_id, target=target)}{seq}\r\n".encode()


def greeting(*, agent: str, incarnation: int) -> bytes:
    """What an agent answers to such a line: who it is."""
    return f"{AGENT_HEADER}: {agent}/{incarnation}\r\n".encode()


def parse(text: str) -> Mark | None:
    """A mark from a header's value; None where it is none of ours."""
    match = _WHOLE.fullmatch(text.encode("utf-8", "surrogateescape"))
    return of(match) if match is not None else None


def of(match: "re.Match[bytes]") -> Mark | None:
    """A mark from a match of a pattern that has PATTERN's groups first; None where a number is too great."""
    target, seq = int(match[3]), int(match[4])
    if target > _MAX_TARGET or seq > _MAX_SEQ:
        return None
    return Mark(match[1].decode("utf-8", "replace"), int(match[2], 16), target, seq)


def may_be_line(data: bytes) -> bool:
    """Whether bytes are the beginning of a probe's line that is not whole yet."""
    begins = data[: len(_LINE_BEGINS)] == _LINE_BEGINS[: len(data)]
    return begins and len(data) <= MAX_LINE_BYTES and b"\n" not in data
