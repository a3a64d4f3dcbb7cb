"""The datagram of the UDP probe and of its reflector, as pure functions over bytes.

Both ways have the same length (no amplification), 64 bytes or the size a task asks for:

    0  4s  magic           'KPU1'
    4  B   kind            1 request, 2 reply
    5  B   name length     bytes of the sender's name that follow the header
    6  H   number          16-bit id, echoed
    8  Q   round id        echoed
    16 I   seq             echoed
    20 I   received        reply: requests of this round and source the reflector has had, this one included
    24 8s  name digest     of the sender's whole name; its text may not fit
    32     name, then zeros
"""

import hashlib
import struct
from dataclasses import dataclass
from functools import lru_cache

MAGIC = b"KPU1"
REQUEST, REPLY = 1, 2
HEADER = struct.Struct("!4sBBHQII8s")
MIN_BYTES = 64
# The largest UDP payload of IPv4.
MAX_BYTES = 65_507


@dataclass(frozen=True, slots=True)
class Packet:
    """A parsed datagram; `name` may be cut, `digest` is of the whole name."""

    kind: int
    number: int
    round_id: int
    seq: int
    received: int
    digest: bytes
    name: str


@lru_cache(maxsize=4096)
def name_digest(name: str) -> bytes:
    """8 bytes that stand for an agent's name."""
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def packet_size(*, name: str, size: int) -> int:
    """Length of a request: what is asked for, but the header, the name and 64 bytes at least."""
    return min(MAX_BYTES, max(MIN_BYTES, size, HEADER.size + len(name.encode()[:255])))


def request(*, number: int, round_id: int, seq: int, name: str, size: int) -> bytes:
    """A probe of that length."""
    text = name.encode()[:255]
    head = HEADER.pack(MAGIC, REQUEST, len(text), number, round_id, seq, 0, name_digest(name))
    return (head + text).ljust(size, b"\0")


def reply(*, to: Packet, size: int, name: str, received: int) -> bytes:
    """The reflector's answer, as long as the request; as much of its name as fits."""
    text = name.encode()[: min(255, size - HEADER.size)]
    head = HEADER.pack(MAGIC, REPLY, len(text), to.number, to.round_id, to.seq, received, name_digest(name))
    return (head + text).ljust(size, b"\0")


def parse(data: bytes) -> Packet | None:
    """A datagram of ours, or None."""
    if len(data) < MIN_BYTES:
        return None
    magic, kind, length, number, round_id, seq, received, digest = HEADER.unpack_from(data)
    if magic != MAGIC or kind not in (REQUEST, REPLY):
        return None
    name = data[HEADER.size : HEADER.size + length].decode("utf-8", "replace")
    return Packet(kind, number, round_id, seq, received, digest, name)
