"""STAMP test packets (RFC 8762, unauthenticated) with our session TLV (RFC 8972), as pure functions over bytes.

Session-Sender, 44 bytes: sequence number, timestamp, error estimate, SSID, zeros. Session-Reflector, 44 bytes: its own
sequence number, timestamp, error estimate, SSID, receive timestamp, and the sender's number, timestamp, error estimate
and TTL. Then one TLV of the range for private use, and Extra Padding up to the size asked for. Both ways have the
same length (no amplification).

    type 252, sender     round id, number of the request in its agent's share, place of the target, name of the agent
    type 253, reflector  digest of its name, incarnation, newest number, which of the 64 up to it came, flags, name

A reflector answers type 252 only: two reflectors can never answer each other. Timestamps are in NTP's format.
"""

import hashlib
import struct
from functools import lru_cache
from typing import NamedTuple

BASE_BYTES = 44
# Room for both TLVs with a few letters of a name: a pod's name is seldom longer.
MIN_BYTES = 104
# The largest UDP payload of IPv4.
MAX_BYTES = 65_507

REORDERED, DUPLICATE, STATELESS = 1, 2, 4

_SENDER = struct.Struct("!IQHH28x")
_REFLECTOR = struct.Struct("!IQHHQIQH2xB3x")
_TLV = struct.Struct("!BBH")
_SESSION = struct.Struct("!QIHB")
_ANSWER = struct.Struct("!8sQIQBB")
_FIXED_BYTES = BASE_BYTES + _TLV.size
_PADDING, _SESSION_TYPE, _ANSWER_TYPE = 1, 252, 253
# RFC 8972, 4: the sender sets U (unrecognized), a reflector that knows the TLV clears it.
_UNRECOGNIZED = 0x80
# RFC 4656, 4.1.2: not synchronised to UTC by our knowledge, right to 1 * 2^(22-32) s, about 1 ms.
_ERROR_ESTIMATE = 22 << 8 | 1
_NTP_EPOCH_S = 2_208_988_800
_MASK32 = (1 << 32) - 1


class Request(NamedTuple):
    """A sender's packet: `number` counts in its session, `seq` in its agent's share; `stamp` is in NTP's format."""

    number: int
    stamp: int
    error: int
    ssid: int
    round_id: int
    seq: int
    target: int
    agent: str


class Reply(NamedTuple):
    """A reflector's packet. Bit k of `mask` says that number `highest - k` has come, where `highest` is the newest the
    reflector has seen; `order` is its own sequence number. `agent` may be cut, `digest` is of the whole name."""

    order: int
    sent: int
    ssid: int
    received: int
    number: int
    stamp: int
    ttl: int
    digest: bytes
    incarnation: int
    highest: int
    mask: int
    flags: int
    agent: str


class Seen(NamedTuple):
    """What a reflector knows of a session when it answers; meaning as in `Reply`."""

    order: int
    highest: int
    mask: int
    flags: int


@lru_cache(maxsize=4096)
def name_digest(name: str) -> bytes:
    """8 bytes that stand for an agent's name."""
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def ntp(epoch_us: int) -> int:
    """µs since 1970 as an NTP timestamp: seconds since 1900 and a 32-bit fraction, of era 0 or a later one."""
    seconds, micros = divmod(epoch_us, 1_000_000)
    return ((seconds + _NTP_EPOCH_S) & _MASK32) << 32 | -(-(micros << 32) // 1_000_000)


def between_us(later: int, earlier: int) -> int:
    """The time between two NTP timestamps less than 68 years apart, µs; negative when `later` is earlier."""
    difference = (later - earlier) & ((1 << 64) - 1)
    if difference >> 63:
        difference -= 1 << 64
    return difference * 1_000_000 + (1 << 31) >> 32


def packet_size(*, agent: str, size: int) -> int:
    """Length of a request: what is asked for, but at least what both TLVs need."""
    needed = _FIXED_BYTES + _SESSION.size + len(agent.encode()[:253])
    return min(MAX_BYTES, max(MIN_BYTES, size, needed))


class RequestForm:
    """The packets of one session: everything but what differs from one to the next is made once."""

    __slots__ = ("_rest", "_tlv", "_whose", "size", "ssid")

    def __init__(self, *, ssid: int, round_id: int, target: int, agent: str, size: int) -> None:
        self.ssid = ssid
        self.size = packet_size(agent=agent, size=size)
        name = agent.encode()[:253]
        filled, self._rest = _filled(name, room=self.size - _FIXED_BYTES - _SESSION.size, flags=_UNRECOGNIZED)
        self._tlv = _TLV.pack(_UNRECOGNIZED, _SESSION_TYPE, _SESSION.size + filled)
        self._whose = (round_id, target, len(name))

    def packet(self, *, number: int, seq: int, stamp: int) -> bytes:
        """The request `seq`, as packet `number` of the session, sent at `stamp`."""
        round_id, target, length = self._whose
        head = _SENDER.pack(number & _MASK32, stamp, _ERROR_ESTIMATE, self.ssid)
        return head + self._tlv + _SESSION.pack(round_id, seq, target, length) + self._rest


def reply(
    *, to: Request, size: int, agent: str, incarnation: int, seen: Seen, received: int, sent: int, ttl: int
) -> bytes:
    """The reflector's answer, `size` bytes long as the request was; as much of its name as fits."""
    head = _REFLECTOR.pack(
        seen.order & _MASK32, sent, _ERROR_ESTIMATE, to.ssid, received, to.number, to.stamp, to.error, ttl
    )
    room = size - _FIXED_BYTES - _ANSWER.size
    name = agent.encode()[: min(room, 253)]
    filled, rest = _filled(name, room=room, flags=0)
    value = _ANSWER.pack(name_digest(agent), incarnation, seen.highest, seen.mask, seen.flags, len(name))
    return head + _TLV.pack(0, _ANSWER_TYPE, _ANSWER.size + filled) + value + rest


def parse_request(data: bytes) -> Request | None:
    """A sender's packet of ours, or None."""
    value = _value(data, _SESSION_TYPE)
    if value is None or len(value) < _SESSION.size or len(data) < MIN_BYTES:
        return None
    number, stamp, error, ssid = _SENDER.unpack_from(data)
    round_id, seq, target, length = _SESSION.unpack_from(value)
    name = value[_SESSION.size : _SESSION.size + length]
    if not name or len(name) < length:
        return None
    return Request(number, stamp, error, ssid, round_id, seq, target, name.decode("utf-8", "replace"))


def parse_reply(data: bytes) -> Reply | None:
    """A reflector's packet of ours, or None."""
    value = _value(data, _ANSWER_TYPE)
    if value is None or len(value) < _ANSWER.size:
        return None
    order, sent, _, ssid, received, number, stamp, _, ttl = _REFLECTOR.unpack_from(data)
    digest, incarnation, highest, mask, flags, length = _ANSWER.unpack_from(value)
    name = value[_ANSWER.size : _ANSWER.size + length].decode("utf-8", "replace")
    return Reply(order, sent, ssid, received, number, stamp, ttl, digest, incarnation, highest, mask, flags, name)


def quoted(data: bytes) -> tuple[int, int] | None:
    """(SSID, number) of a sender's packet of which an ICMP error quotes the beginning; None where it is too little."""
    if len(data) < 16:
        return None
    number, _, _, ssid = _SENDER.unpack_from(data.ljust(BASE_BYTES, b"\0"))
    return ssid, number


def _filled(name: bytes, *, room: int, flags: int) -> tuple[int, bytes]:
    """`name` and what fills the rest of `room` bytes: a padding TLV, or zeros where none fits. First, how many of these
    bytes belong to the name's own TLV."""
    left = room - len(name) - _TLV.size
    if left < 0:
        return room, name.ljust(room, b"\0")
    return len(name), name + _TLV.pack(flags, _PADDING, left) + bytes(left)


def _value(data: bytes, kind: int) -> bytes | None:
    """The value of the TLV that follows the base packet, if it is of that type and whole."""
    if len(data) < _FIXED_BYTES:
        return None
    _, found, length = _TLV.unpack_from(data, BASE_BYTES)
    if found != kind or len(data) < _FIXED_BYTES + length:
        return None
    return data[_FIXED_BYTES : _FIXED_BYTES + length]
