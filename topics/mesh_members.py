"""mesh-members-v1: who takes part, in numbered epochs.

Written by the controller, read by agents and the judge (both without a group). Key: group, epoch, chunk. At most one
epoch in ten seconds after the first, in a large mesh one a minute; a node keeps its slot for life; chunks stay under
500 KB. Kept longer than any round that refers to it.
"""

import hashlib

import msgspec

from topics.spec import DAY_S, Topic, json_codec
from topics.task_rounds import Record

CHUNK_MEMBERS = 1000


class Member(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One agent as its peers see it. Addresses are on the data path; a port of 0 means not served."""

    slot: int
    agent: str
    node: str
    zone: str = ""
    rack: str = ""
    pod: str = ""
    ipv4: str = ""
    ipv6: str = ""
    node_ipv4: str = ""
    node_ipv6: str = ""
    http_port: int = 80
    https_port: int = 0
    tcp_port: int = 0
    udp_port: int = 0

    def address(self, family: int) -> str:
        """The member's address of that family (4 or 6), or an empty string."""
        return self.ipv6 if family == 6 else self.ipv4


class MembersChunk(Record, frozen=True, kw_only=True, tag="MembersChunk"):
    """Part `chunk` (from 0) of `chunks` of one epoch's membership."""

    group: str
    epoch: int
    chunk: int
    chunks: int
    digest: str
    at_us: int
    members: tuple[Member, ...]


def digest(members: tuple[Member, ...]) -> str:
    """Digest of a whole membership, independent of the order given (hex, 16 digits)."""
    ordered = sorted(members, key=lambda m: m.slot)
    return hashlib.blake2b(msgspec.json.encode(ordered), digest_size=8).hexdigest()


def chunks(*, group: str, epoch: int, at_us: int, members: tuple[Member, ...]) -> list[MembersChunk]:
    """A membership cut into records that stay small."""
    ordered = tuple(sorted(members, key=lambda m: m.slot))
    parts = [ordered[i : i + CHUNK_MEMBERS] for i in range(0, len(ordered), CHUNK_MEMBERS)] or [()]
    mark = digest(ordered)
    return [
        MembersChunk(group=group, epoch=epoch, chunk=i, chunks=len(parts), digest=mark, at_us=at_us, members=part)
        for i, part in enumerate(parts)
    ]


class Memberships:
    """Chunks put together again: feed `add`, ask `get`. An epoch counts only when whole and its digest agrees."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, int], dict[int, MembersChunk]] = {}
        self._whole: dict[tuple[str, int, str], tuple[Member, ...]] = {}

    def add(self, chunk: MembersChunk) -> bool:
        """Take one chunk; true when its epoch has just become whole."""
        key = (chunk.group, chunk.epoch)
        parts = self._parts.setdefault(key, {})
        parts[chunk.chunk] = chunk
        if len(parts) < chunk.chunks:
            return False
        members = tuple(m for i in sorted(parts) for m in parts[i].members)
        del self._parts[key]
        if digest(members) != chunk.digest:
            return False
        self._whole[(chunk.group, chunk.epoch, chunk.digest)] = members
        return True

    def get(self, *, group: str, epoch: int, digest: str) -> tuple[Member, ...] | None:
        """The members of that epoch, by slot; None while it has not arrived whole."""
        return self._whole.get((group, epoch, digest))

    def newest(self, group: str) -> tuple[int, tuple[Member, ...]] | None:
        """(epoch, members) of the newest whole epoch of a group."""
        epochs = [(epoch, members) for (g, epoch, _), members in self._whole.items() if g == group]
        return max(epochs, key=lambda e: e[0]) if epochs else None


EXAMPLE = chunks(
    group="default",
    epoch=1,
    at_us=1_790_000_000_000_000,
    members=(Member(slot=0, agent="node-1", node="node-1", ipv4="10.0.0.1"),),
)[0]

_encode, _decode = json_codec(MembersChunk)

TOPIC: Topic[MembersChunk] = Topic(
    name="mesh-members-v1",
    writers=("controller",),
    readers=("agent", "judge", "controller"),
    key=lambda r: f"{r.group}/{r.epoch}/{r.chunk}".encode(),
    encode=_encode,
    decode=_decode,
    example=EXAMPLE,
    partitions=1,
    retention_s=30 * DAY_S,
)
