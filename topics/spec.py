"""What a topic is: name, record, key, partitions, retention, and the way over the wire."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import msgspec

R = TypeVar("R")
Cleanup = Literal["delete", "compact", "compact,delete"]

DAY_S = 86_400


class InvalidMessage(ValueError):
    """A record that cannot be decoded: goes to the dead-letter topic with this text in a header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic(Generic[R]):
    """One topic and its contract.

    `partitions` and `retention_s` are defaults for a new topic; `may_grow` is true only where no Faust
    table depends on the partition count. `encode` and `decode` are inverse; `decode` raises InvalidMessage.
    """

    name: str
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    key: Callable[[R], bytes]
    encode: Callable[[R], bytes]
    decode: Callable[[bytes], R]
    example: R
    partitions: int = 1
    may_grow: bool = False
    retention_s: int = DAY_S
    cleanup: Cleanup = "delete"
    max_message_bytes: int = 4 << 20
    dead_letters: bool = True

    @property
    def dlq(self) -> str:
        """Name of the derived dead-letter topic."""
        return f"{self.name}-dlq"

    def config(self) -> dict[str, str]:
        """Kafka topic settings that `kpatrol topics apply` aligns."""
        settings = {
            "cleanup.policy": self.cleanup,
            "max.message.bytes": str(self.max_message_bytes),
        }
        if "delete" in self.cleanup:
            settings["retention.ms"] = str(self.retention_s * 1000)
        return settings


def json_codec(record: Any) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """(encode, decode) of a msgspec Struct or a tagged union of them; unknown fields are dropped."""
    encoder = msgspec.json.Encoder()
    decoder = msgspec.json.Decoder(record)

    def decode(data: bytes) -> Any:
        try:
            return decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidMessage(str(error)) from error

    return encoder.encode, decode
