"""ICMP echo messages (RFC 792, 4443) as pure functions over bytes.

The payload is a cookie of eight random bytes, the request's number in its agent's share, and a pattern up to the size
asked for: a reply to somebody else's request, or one that was changed on the way, is known by it.
"""

import struct

HEADER_BYTES = 8
MIN_PAYLOAD_BYTES = 12
MAX_PAYLOAD_BYTES = 65_507
_HEADER = struct.Struct("!BBHHH")
_REQUEST, _REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
_COOKIE_BYTES = 8


def payload_size(size: int) -> int:
    """Bytes of payload: what is asked for, but the cookie and the number at least."""
    return min(MAX_PAYLOAD_BYTES, max(MIN_PAYLOAD_BYTES, size))


def payload(*, cookie: bytes, seq: int, size: int) -> bytes:
    """What a request carries and its reply must bring back."""
    head = cookie + struct.pack("!I", seq)
    return head + (bytes(range(256)) * (size // 256 + 1))[: size - len(head)]


def request(*, family: int, ident: int, number: int, data: bytes, checksum: bool) -> bytes:
    """An echo request; the checksum is the kernel's work except on a raw IPv4 socket."""
    kind = _REQUEST[family]
    value = checksum_of(_HEADER.pack(kind, 0, 0, ident, number) + data) if checksum else 0
    return _HEADER.pack(kind, 0, value, ident, number) + data


def reply(data: bytes, *, family: int) -> tuple[int, int, bytes] | None:
    """(identifier, number, payload) of an echo reply; None for any other message."""
    return _echo(data, _REPLY[family])


def quoted(data: bytes, *, family: int) -> tuple[int, int, bytes] | None:
    """The same of an echo request that an ICMP error quotes."""
    return _echo(data, _REQUEST[family])


def without_ip(data: bytes) -> bytes:
    """A message from a raw IPv4 socket without its IP header; empty where that is not whole."""
    length = (data[0] & 0xF) * 4 if data else 0
    return data[length:] if 20 <= length <= len(data) else b""


def checksum_of(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _echo(data: bytes, kind: int) -> tuple[int, int, bytes] | None:
    if len(data) < HEADER_BYTES:
        return None
    found, code, _, ident, number = _HEADER.unpack_from(data)
    return (ident, number, data[HEADER_BYTES:]) if (found, code) == (kind, 0) else None
