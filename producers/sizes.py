"""Payload sizes that only the agent itself can know: what fits into one packet on its own way to a target."""

import logging

import msgspec

from producers.probes.base import is_literal
from producers.probes.marking import full_payload_bytes
from topics.share import Stream
from topics.task_rounds import FULL_SIZE

log = logging.getLogger(__name__)

# What every IPv6 link must carry, less the headers (RFC 8200, 5): where there is no route to ask.
_LEAST_MTU_PAYLOAD_BYTES = 1232


def with_real_sizes(*, streams: tuple[Stream, ...], source_address: str) -> tuple[Stream, ...]:
    """The streams with FULL_SIZE replaced by the largest payload the kernel takes for sendable to their target."""
    known: dict[str, int] = {}
    return tuple(_real(stream, source_address, known) if _asks(stream) else stream for stream in streams)


def _asks(stream: Stream) -> bool:
    return stream.target.size == FULL_SIZE


def _real(stream: Stream, source_address: str, known: dict[str, int]) -> Stream:
    address = stream.target.address
    if address not in known:
        known[address] = _full_bytes(address, source_address)
    return Stream(target=msgspec.structs.replace(stream.target, size=known[address]), requests=stream.requests)


def _full_bytes(address: str, source_address: str) -> int:
    if not is_literal(address):
        return _LEAST_MTU_PAYLOAD_BYTES
    try:
        return full_payload_bytes(address=address, source_address=source_address)
    except OSError as error:
        log.warning("event=mtu_unknown address=%s why=%r", address, str(error))
        return _LEAST_MTU_PAYLOAD_BYTES
