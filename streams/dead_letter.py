"""What cannot be decoded goes to `<topic>-dlq` with the reason in its headers; too many in a row stop the service.

A few bad records are somebody's bug and must not hold up the rest; nothing but bad records is our own bug (or a
wrong version of ours), and going on would only move the topic to its dead-letter topic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from topics.spec import Topic

LIMIT_IN_A_ROW = 100


class TooManyInvalid(RuntimeError):
    """The service must stop: it could not read a long run of records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A record on its way to a topic, as aiokafka takes it."""

    topic: str
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A record as it came: where it stood and what it was."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes


def dead_letter(*, topic: Topic[Any], source: Source, error: str) -> Outgoing:
    """The record, unchanged, for the topic's dead-letter topic."""
    headers = {
        "error": error,
        "source_topic": topic.name,
        "source_partition": str(source.partition),
        "source_offset": str(source.offset),
    }
    return Outgoing(
        topic=topic.dlq,
        key=source.key,
        value=source.value,
        headers=tuple((name, value.encode()) for name, value in headers.items()),
    )


@dataclass(slots=True)
class Run:
    """Counts invalid records without a valid one between them."""

    limit: int = LIMIT_IN_A_ROW
    length: int = 0

    def see(self, valid: Sequence[bool], error: str = "") -> None:
        """Count a flush's records in order. Raises TooManyInvalid when the limit is reached."""
        for is_valid in valid:
            self.length = 0 if is_valid else self.length + 1
            if self.length >= self.limit:
                raise TooManyInvalid(f"{self.length} records in a row cannot be decoded; the last: {error}")
