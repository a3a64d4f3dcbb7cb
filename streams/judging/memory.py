"""What the judge remembers of a task's last rounds, so that a rare loss is pooled over them. Pure.

Kept of a round: how much was tried in all, and every line that lost something (a sound 5,000-node round has about two
hundred), with the statements made. In a disaster only so many lines are kept as fit a table value (MOST_LINES): first
those that nothing explained, then those of the smallest faults; the great ones are found in each round by themselves.
"""

import zlib
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np

from streams.judging.evidence import NOWHERE, Evidence, Indexes

# Rounds pooled, the one at hand among them.
ROUNDS = 3
MOST_LINES = 5000


class Standing(msgspec.Struct, frozen=True, array_like=True):
    """A statement that stood in a round; since when (start of the first such round without a break), in how many."""

    element: str
    direction: str
    since_us: int
    rounds: int = 1


class Memory(msgspec.Struct, frozen=True, array_like=True):
    """One round. Lines are columns: `src`, `dst` number `nodes`, `kind` numbers `kinds`; `way` is forward + 2·exact."""

    number: int
    start_us: int
    tried: int
    nodes: tuple[str, ...] = ()
    kinds: tuple[tuple[str, str], ...] = ()
    src: tuple[int, ...] = ()
    dst: tuple[int, ...] = ()
    own: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()
    way: tuple[int, ...] = ()
    kind: tuple[int, ...] = ()
    size: tuple[int, ...] = ()
    standing: tuple[Standing, ...] = ()
    # Whether there were more lines that lost something than are kept.
    forgot: bool = False


_decoder = msgspec.msgpack.Decoder(Memory)


def encode(memory: Memory) -> bytes:
    """Small bytes of a memory."""
    return zlib.compress(msgspec.msgpack.encode(memory), 6)


def decode(data: bytes) -> Memory:
    """What `encode` made. Raises zlib.error, msgspec.DecodeError."""
    return _decoder.decode(zlib.decompress(data))


def remember(
    *,
    seen: Evidence,
    unexplained: Indexes,
    explained: Sequence[Indexes],
    standing: Sequence[Standing],
    number: int,
    start_us: int,
    most: int = MOST_LINES,
) -> Memory:
    """The memory of the round at hand; `explained` are the lines of each statement."""
    lines, forgot = _kept(seen, unexplained, explained, most)
    used, ends = np.unique(np.concatenate([seen.src[lines], seen.dst[lines]]), return_inverse=True)
    ends = ends.reshape(-1)
    return Memory(
        number=number,
        start_us=start_us,
        tried=int(seen.tried.sum()),
        nodes=tuple(seen.nodes[int(i)] for i in used),
        kinds=tuple(seen.kinds),
        src=_ints(ends[: len(lines)]),
        dst=_ints(ends[len(lines) :]),
        own=_ints(seen.own[lines]),
        lost=_ints(seen.lost[lines]),
        way=_ints(seen.forward[lines] + 2 * seen.exact[lines]),
        kind=_ints(seen.kind[lines]),
        size=_ints(np.asarray(seen.sizes, dtype=np.int64)[seen.size[lines]] if len(lines) else lines),
        standing=tuple(standing),
        forgot=forgot,
    )


def bare(memory: Memory) -> Memory:
    """The same without lines: what was tried and what stood."""
    return Memory(
        number=memory.number,
        start_us=memory.start_us,
        tried=memory.tried,
        standing=memory.standing,
        forgot=memory.forgot or bool(memory.src),
    )


def _kept(seen: Evidence, unexplained: Indexes, explained: Sequence[Indexes], most: int) -> tuple[Indexes, bool]:
    """(lines kept, whether some are not)."""
    lossy = [part[(seen.age[part] == 0) & (seen.lost[part] > 0)] for part in (unexplained, *explained)]
    kept: list[Indexes] = []
    for part in (lossy[0], *sorted(lossy[1:], key=len)):
        if sum(map(len, kept)) + len(part) > most:
            return np.unique(np.concatenate([part[:0], *kept])), True
        kept.append(part)
    return np.unique(np.concatenate(kept)), False


def _ints(column: np.ndarray) -> tuple[int, ...]:
    return tuple(column.astype(np.int64).tolist())


def recall(seen: Evidence, memories: Sequence[Memory]) -> Evidence:
    """The evidence with what is remembered of the rounds before, the latest first."""
    total = float(seen.tried.sum())
    if not memories or total <= 0:
        return seen
    nodes = {name: i for i, name in enumerate(seen.nodes)}
    kinds = {kind: i for i, kind in enumerate(seen.kinds)}
    sizes = {size: i for i, size in enumerate(seen.sizes)}
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("src", "dst", "own", "lost", "way", "kind", "size")}
    ages: list[np.ndarray] = []
    for age, memory in enumerate(memories, start=1):
        place = np.array([nodes.setdefault(name, len(nodes)) for name in memory.nodes], dtype=np.int64)
        kind = np.array([kinds.setdefault(k, len(kinds)) for k in memory.kinds], dtype=np.int64)
        size = np.array([sizes.setdefault(s, len(sizes)) for s in memory.size], dtype=np.int64)
        columns["src"].append(place[np.array(memory.src, dtype=np.int64)])
        columns["dst"].append(place[np.array(memory.dst, dtype=np.int64)])
        columns["kind"].append(kind[np.array(memory.kind, dtype=np.int64)])
        columns["size"].append(size)
        for name in ("own", "lost", "way"):
            columns[name].append(np.array(getattr(memory, name), dtype=np.int64))
        ages.append(np.full(len(memory.src), age, dtype=np.int64))
    past = {name: np.concatenate(parts) for name, parts in columns.items()}
    strangers = np.full(len(nodes) - len(seen.nodes), NOWHERE, dtype=np.int64)
    own = past["own"].astype(np.float64)
    return replace(
        seen,
        nodes=list(nodes),
        rack=np.concatenate([seen.rack, strangers]),
        zone=np.concatenate([seen.zone, strangers]),
        src=np.concatenate([seen.src, past["src"]]),
        dst=np.concatenate([seen.dst, past["dst"]]),
        tried=np.concatenate([seen.tried, np.zeros(len(own))]),
        own=np.concatenate([seen.own, own]),
        lost=np.concatenate([seen.lost, past["lost"].astype(np.float64)]),
        forward=np.concatenate([seen.forward, (past["way"] & 1).astype(bool)]),
        exact=np.concatenate([seen.exact, (past["way"] & 2).astype(bool)]),
        kinds=list(kinds),
        kind=np.concatenate([seen.kind, past["kind"].astype(seen.kind.dtype)]),
        sizes=list(sizes),
        size=np.concatenate([seen.size, past["size"].astype(seen.size.dtype)]),
        age=np.concatenate([seen.age, *ages], dtype=seen.age.dtype),
        before=tuple(m.tried / total for m in memories),
        forgot=tuple(m.forgot for m in memories),
    )
