"""Round states in a Faust table: cut into values that stay small, and kept where their events are.

A round is a head and up to BUCKETS buckets of agents, so thousands of agents never make one large value, and an event
rewrites only its agents' buckets. A key begins with the number of its partition of round-progress-v1: the changelog
record goes there whatever is being processed, and what another worker owns can be told from the key alone.
A round that is over leaves a small marker, which makes late repeats of its events harmless.
"""

from collections.abc import Collection, Iterable, Iterator, MutableMapping
from functools import lru_cache
from typing import Any, Protocol
from zlib import crc32

import faust
import msgspec

from streams.judging import memory
from streams.judging.memory import Memory
from streams.rounds import Head, Published, RoundKey, RoundState, Share, begin
from topics.ids import round_id
from topics.task_rounds import RoundScheduled

BUCKETS = 64
MAX_VALUE_BYTES = 100_000
HEAD, MARKER, MEMORY = b"h", b"c", b"m"


class ValueTooLarge(ValueError):
    """A table value that could make Faust lose state: it must not be written."""


class Table(Protocol):
    """What the store needs of a table of bytes."""

    def rows(self) -> MutableMapping[bytes, bytes]:
        """The table's content."""

    async def written(self) -> None:
        """Return when every change made so far is in the changelog. Raises what the sending raised."""


class RoundTable(faust.Table):  # type: ignore[misc]
    """A Faust table whose keys begin with `<partition>/`; it can wait for its changelog."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sent: list[Any] = []

    def partition_for_key(self, key: bytes) -> int:
        """The partition that the key names, not that of the event in hand: a flush has events of several."""
        return partition_of(key)

    def send_changelog(self, *args: Any, **kwargs: Any) -> Any:
        """Send a change and remember it until `written`."""
        sent = super().send_changelog(*args, **kwargs)
        self._sent = [s for s in self._sent if not s.done() or s.exception() is not None]
        self._sent.append(sent)
        return sent

    def rows(self) -> MutableMapping[bytes, bytes]:
        """The table itself."""
        return self

    async def written(self) -> None:
        """Return when every change made so far is in the changelog."""
        sent, self._sent = self._sent, []
        for change in sent:
            await change

    def forget_others(self, partitions: Collection[int]) -> None:
        """Drop from memory what belongs to partitions that are no longer ours; the changelog stays."""
        for key in [k for k in self.data if partition_of(k) not in partitions]:
            self.data.pop(key, None)


class Marker(msgspec.Struct, frozen=True, array_like=True):
    """What is left of a round that is over."""

    told_us: int
    published: Published | None


class _StoredHead(msgspec.Struct, frozen=True, array_like=True):
    """A head and which buckets there are, as bits."""

    head: Head
    buckets: int


_head = msgspec.json.Decoder(_StoredHead)
_shares = msgspec.json.Decoder(list[Share])
_marker = msgspec.json.Decoder(Marker)


def partition_of(key: bytes) -> int:
    """The partition that a table key belongs to."""
    return int(key.partition(b"/")[0])


@lru_cache(maxsize=65_536)
def bucket_of(agent: str) -> int:
    """The bucket of an agent: the same on every worker."""
    return crc32(agent.encode()) % BUCKETS


def _key(partition: int, round_: RoundKey, part: bytes) -> bytes:
    task_uid, round_id = round_
    return b"%d/%s/%016x/%s" % (partition, task_uid.encode(), round_id, part)


def _memory_key(partition: int, task_uid: str, number: int) -> bytes:
    return _key(partition, (task_uid, round_id(task_uid=task_uid, number=number)), MEMORY)


class RoundStore:
    """Rounds by (task uid, round id). Remembers decoded values for as long as the table's are the same objects."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._decoded: dict[RoundKey, tuple[list[bytes], RoundState]] = {}

    def load(self, key: RoundKey, partition: int) -> RoundState:
        """The state of a round; a new one where nothing is known of it."""
        rows = self._table.rows()
        stored = rows.get(_key(partition, key, HEAD))
        if stored is None:
            return self._closed(key, partition) or begin(task_uid=key[0], round_id=key[1], partition=partition)
        top = _head.decode(stored)
        values = [stored, *(rows[_key(partition, key, b"%02x" % n)] for n in range(BUCKETS) if top.buckets >> n & 1)]
        known = self._decoded.get(key)
        if known is not None and len(known[0]) == len(values) and all(map(_is, known[0], values)):
            return known[1]
        shares = {share.agent: share for value in values[1:] for share in _shares.decode(value)}
        state = RoundState(head=top.head, shares=shares)
        self._decoded[key] = (values, state)
        return state

    def _closed(self, key: RoundKey, partition: int) -> RoundState | None:
        stored = self._table.rows().get(_key(partition, key, MARKER))
        if stored is None:
            return None
        marker = _marker.decode(stored)
        head = Head(task_uid=key[0], round_id=key[1], partition=partition, closed=True)
        return RoundState(head=msgspec.structs.replace(head, told_us=marker.told_us, published=marker.published))

    def save(self, *, old: RoundState, new: RoundState) -> None:
        """Write what differs. Raises ValueTooLarge before anything is written."""
        if new is old:
            return
        key, partition = (new.head.task_uid, new.head.round_id), new.head.partition
        buckets = _by_bucket(new.shares.values())
        before = old.shares
        touched = {bucket_of(name) for name, share in new.shares.items() if before.get(name) is not share}
        encoded = {_key(partition, key, b"%02x" % n): msgspec.json.encode(buckets[n]) for n in sorted(touched)}
        bits = sum(1 << n for n in buckets)
        encoded[_key(partition, key, HEAD)] = msgspec.json.encode(_StoredHead(new.head, bits))
        _check(encoded)
        self._table.rows().update(encoded)
        rows = self._table.rows()
        values = [rows[_key(partition, key, b"%02x" % n)] for n in sorted(buckets)]
        self._decoded[key] = ([rows[_key(partition, key, HEAD)], *values], new)

    def close(self, state: RoundState) -> None:
        """Leave only the marker of a round that is over."""
        key, partition = (state.head.task_uid, state.head.round_id), state.head.partition
        marker = Marker(state.head.told_us, state.head.published)
        rows = self._table.rows()
        rows[_key(partition, key, MARKER)] = msgspec.json.encode(marker)
        for part in (HEAD, *(b"%02x" % n for n in sorted(_by_bucket(state.shares.values())))):
            rows.pop(_key(partition, key, part), None)
        self._decoded.pop(key, None)

    def drop_markers(self, *, partition: int, before_us: int) -> None:
        """Drop the markers of rounds of which nothing was told since `before_us`."""
        rows = self._table.rows()
        for key in [k for k in rows if k.endswith(b"/" + MARKER) and partition_of(k) == partition]:
            if _marker.decode(rows[key]).told_us < before_us:
                del rows[key]

    def memories(self, round_: RoundScheduled, partition: int) -> list[Memory]:
        """What is remembered of the task's rounds just before this one, the latest first."""
        rows, found = self._table.rows(), []
        for number in range(round_.number - 1, round_.number - memory.ROUNDS, -1):
            stored = rows.get(_memory_key(partition, round_.task_uid, number))
            if stored is not None:
                found.append(memory.decode(stored))
        return found

    def remember(self, round_: RoundScheduled, partition: int, remembered: Memory) -> None:
        """Keep what the next rounds need, and drop what they need no more. Too large a memory is kept without lines."""
        rows = self._table.rows()
        value = memory.encode(remembered)
        if len(value) > MAX_VALUE_BYTES:
            value = memory.encode(memory.bare(remembered))
        _check({_memory_key(partition, round_.task_uid, round_.number): value})
        rows[_memory_key(partition, round_.task_uid, round_.number)] = value
        for number in (round_.number - memory.ROUNDS, round_.number - memory.ROUNDS - 1):
            rows.pop(_memory_key(partition, round_.task_uid, number), None)

    def drop_memories(self, *, partition: int, before_us: int) -> None:
        """Drop the memories of tasks that have had no round since `before_us`."""
        rows = self._table.rows()
        for key in [k for k in rows if k.endswith(b"/" + MEMORY) and partition_of(k) == partition]:
            if memory.decode(rows[key]).start_us < before_us:
                del rows[key]

    def open(self, partitions: Collection[int]) -> Iterator[tuple[RoundKey, int]]:
        """(key, partition) of every round of these partitions that is not closed."""
        for key in list(self._table.rows()):
            if key.endswith(b"/" + HEAD) and partition_of(key) in partitions:
                task_uid, round_id, _ = key.partition(b"/")[2].rsplit(b"/", 2)
                yield (task_uid.decode(), int(round_id, 16)), partition_of(key)

    async def written(self) -> None:
        """Return when every change is in the changelog."""
        await self._table.written()


def _is(one: bytes, other: bytes) -> bool:
    return one is other


def _by_bucket(shares: Iterable[Share]) -> dict[int, list[Share]]:
    buckets: dict[int, list[Share]] = {}
    for share in shares:
        buckets.setdefault(bucket_of(share.agent), []).append(share)
    return buckets


def _check(values: dict[bytes, bytes]) -> None:
    for key, value in values.items():
        if len(value) > MAX_VALUE_BYTES:
            raise ValueTooLarge(f"{key.decode()}: {len(value)} bytes, at most {MAX_VALUE_BYTES} are safe")
