"""What one flush of probe-results-v1 inserts and announces: pure decisions of the sink.

A batch's identity is (round, agent, incarnation, batch_seq). A batch that ClickHouse is known to have is passed
over, whether Kafka delivered it again or an agent published its spool again; it is announced all the same, so a
crash between insert and announcement heals by redelivery.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from streams.expand import Delivered
from topics.round_progress import BatchesStored, StoredBatch

DAY_US = 86_400_000_000
MAX_INSERT_ROWS = 250_000
MAX_IDENTITIES = 400_000

Identity = tuple[str, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Insert:
    """Batches that go to ClickHouse in one block: one day, so one partition, so all or nothing."""

    batches: tuple[Delivered, ...]
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flush:
    """The inserts of a flush and the deliveries that need none, each in the order they came."""

    inserts: tuple[Insert, ...]
    repeats: tuple[Delivered, ...]


def identity(delivered: Delivered) -> Identity:
    """The batch's identity within its round."""
    head = delivered.head
    return head.agent, head.incarnation, head.batch_seq


def token(batches: Iterable[Delivered]) -> str:
    """Deduplication token: the same for every try at the same batches, in whatever order."""
    names = sorted(f"{d.head.round_id}/{d.head.agent}/{d.head.incarnation}/{d.head.batch_seq}" for d in batches)
    return hashlib.sha1("\n".join(names).encode(), usedforsecurity=False).hexdigest()


def plan_flush(
    deliveries: Sequence[Delivered],
    *,
    stored: Mapping[int, AbstractSet[Identity]],
    max_rows: int = MAX_INSERT_ROWS,
) -> Flush:
    """Part the deliveries into inserts and repeats; `stored` has every round of the deliveries."""
    seen: set[tuple[int, Identity]] = set()
    days: dict[int, list[Delivered]] = {}
    repeats = []
    for delivered in deliveries:
        round_id, name = delivered.head.round_id, identity(delivered)
        if name in stored[round_id] or (round_id, name) in seen:
            repeats.append(delivered)
            continue
        seen.add((round_id, name))
        days.setdefault(delivered.head.start_us // DAY_US, []).append(delivered)
    inserts = [Insert(batches=part, token=token(part)) for day in days.values() for part in _bounded(day, max_rows)]
    return Flush(inserts=tuple(inserts), repeats=tuple(repeats))


def _bounded(batches: list[Delivered], max_rows: int) -> Iterable[tuple[Delivered, ...]]:
    part: list[Delivered] = []
    rows = 0
    for delivered in batches:
        if part and rows + delivered.rows.num_rows > max_rows:
            yield tuple(part)
            part, rows = [], 0
        part.append(delivered)
        rows += delivered.rows.num_rows
    if part:
        yield tuple(part)


def announcements(
    deliveries: Sequence[Delivered], *, repeats: Sequence[Delivered], positions: Mapping[int, int], at_us: int
) -> list[BatchesStored]:
    """One BatchesStored for every task and partition of the flush, repeats included.

    `positions` is the next offset of each partition once the flush is acknowledged.
    """
    groups: dict[tuple[str, int], list[Delivered]] = {}
    for delivered in deliveries:
        groups.setdefault((delivered.head.task_uid, delivered.partition), []).append(delivered)
    repeated = {(d.partition, d.offset) for d in repeats}
    return [
        BatchesStored(
            task_uid=task_uid,
            partition=partition,
            next_offset=positions[partition],
            at_us=at_us,
            batches=tuple(dict.fromkeys(_stored_batch(d) for d in group)),
            duplicate_batches=sum(1 for d in group if (d.partition, d.offset) in repeated),
        )
        for (task_uid, partition), group in groups.items()
    ]


def _stored_batch(delivered: Delivered) -> StoredBatch:
    return StoredBatch(delivered.head.round_id, *identity(delivered), delivered.rows.num_rows)


class StoredRounds:
    """Which batches of which rounds ClickHouse has, as far as this member knows since its last assignment."""

    def __init__(self, *, capacity: int = MAX_IDENTITIES) -> None:
        self._capacity = capacity
        self._rounds: OrderedDict[int, set[Identity]] = OrderedDict()
        self._generation = -1

    @property
    def rounds(self) -> Mapping[int, AbstractSet[Identity]]:
        """Round id to identities."""
        return self._rounds

    def begin(self, generation: int) -> None:
        """Forget everything when the group was rebalanced: another member may have stored more meanwhile."""
        if generation != self._generation:
            self._rounds.clear()
            self._generation = generation

    def unknown(self, deliveries: Iterable[Delivered]) -> dict[int, int]:
        """Rounds to ask ClickHouse about: round id to scheduled start in microseconds."""
        return {d.head.round_id: d.head.start_us for d in deliveries if d.head.round_id not in self._rounds}

    def learn(self, rounds: Iterable[int], found: Iterable[tuple[int, str, int, int]]) -> None:
        """Take ClickHouse's answer for `rounds`: (round id, agent, incarnation, batch_seq) of each batch it has."""
        for round_id in rounds:
            self._rounds[round_id] = set()
        for round_id, agent, incarnation, batch_seq in found:
            self._rounds[round_id].add((agent, incarnation, batch_seq))

    def add(self, batches: Iterable[Delivered]) -> None:
        """These are in ClickHouse now. Forgets the rounds not seen for longest when there are too many."""
        for delivered in batches:
            self._rounds[delivered.head.round_id].add(identity(delivered))
            self._rounds.move_to_end(delivered.head.round_id)
        total = sum(map(len, self._rounds.values()))
        while total > self._capacity and len(self._rounds) > 1:
            total -= len(self._rounds.popitem(last=False)[1])
