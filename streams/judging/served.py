"""What the serving side counted in a round, by the lines of the pair table: the other end's account.

ClickHouse makes it from receipts and rows (`streams/sql/served.sql`), `from_batches` makes the same from records.
Joined by the request's identity (round, source agent, number), never by address: a masquerade changes nothing.

`received` counts requests that came, each once; `sent`, `lost` and `synack_lost` are TCP segments of the way back
(their meaning: topics.probe_receipts); `missing` counts requests that were answered and have no receipt, so receipts
are missing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from topics.outcome import NOT_LOSS, Outcome, Proto
from topics.probe_receipts import UNKNOWN_TARGET, Receipts
from topics.probe_results import Batch

Ints = npt.NDArray[np.int64]
# A line: source agent, target, dst, dst_node, protocol, layer, size.
Line = tuple[str, str, str, str, str, str, int]
KEYS = ("src_agent", "target", "dst", "dst_node", "proto", "layer", "size")
COUNTS = ("received", "sent", "lost", "synack_lost", "missing")
# The stubs of pyarrow know fewer of its functions than it has.
_pa: Any = pa
_compute: Any = pc
_SILENT = [int(o) for o in NOT_LOSS]


@dataclass(frozen=True, kw_only=True)
class Served:
    """Counts by line: a table of KEYS and COUNTS; where a line stands in it twice its counts add up."""

    table: pa.Table

    @classmethod
    def of(cls, counts: Mapping[Line, Sequence[int]]) -> "Served":
        """From counts by line, each in the order of COUNTS."""
        keys = list(zip(*counts, strict=True)) or [()] * len(KEYS)
        values = list(zip(*counts.values(), strict=True)) or [()] * len(COUNTS)
        types = [_pa.int64() if name == "size" else _pa.string() for name in KEYS] + [_pa.int64()] * len(COUNTS)
        columns = [_pa.array(column, kind) for column, kind in zip([*keys, *values], types, strict=True)]
        return cls(table=_pa.table(dict(zip((*KEYS, *COUNTS), columns, strict=True))))

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def counts(self) -> dict[Line, tuple[int, ...]]:
        """The counts by line, in the order of COUNTS."""
        keys = zip(*(self.table.column(name).to_pylist() for name in KEYS), strict=True)
        values = zip(*(self.table.column(name).to_pylist() for name in COUNTS), strict=True)
        counts: dict[Line, tuple[int, ...]] = {}
        for line, told in zip(keys, values, strict=True):
            before = counts.get(line, (0,) * len(COUNTS))
            counts[line] = tuple(a + b for a, b in zip(before, told, strict=True))
        return counts

    def aligned(self, lines: pa.Table) -> dict[str, Ints]:
        """The counts of each of `lines` (columns KEYS) by name; 0 where the serving side said nothing."""
        asked, told = _numbered(lines, self.table)
        place = _compute.index_in(_pa.array(told), value_set=_pa.array(asked)).to_numpy(zero_copy_only=False)
        known = ~np.isnan(place.astype(np.float64))
        at = place[known].astype(np.int64)
        return {
            name: np.bincount(at, weights=_ints(self.table, name)[known], minlength=len(asked)).astype(np.int64)
            for name in COUNTS
        }


def _ints(table: pa.Table, name: str) -> Ints:
    return np.asarray(table.column(name).to_numpy(), dtype=np.int64)


def _numbered(one: pa.Table, other: pa.Table) -> tuple[Ints, Ints]:
    """The lines of two tables as numbers, the same for equal KEYS."""
    first = one.num_rows
    codes, span = np.zeros(first + other.num_rows, dtype=np.int64), 1
    for name in KEYS:
        if name == "size":
            values, index = np.unique(np.concatenate([_ints(one, name), _ints(other, name)]), return_inverse=True)
            count, index = len(values), index.reshape(-1)
        else:
            chunks: list[Any] = [*one.column(name).chunks, *other.column(name).chunks]
            encoded = _pa.concat_arrays(chunks or [_pa.array([], _pa.string())]).dictionary_encode()
            count, index = len(encoded.dictionary), np.asarray(encoded.indices.to_numpy(), dtype=np.int64)
        if span * max(count, 1) >= 1 << 62:
            kept, codes = np.unique(codes, return_inverse=True)
            span, codes = len(kept), codes.reshape(-1).astype(np.int64)
        codes, span = codes * count + index, span * max(count, 1)
    return codes[:first], codes[first:]


def from_arrow(table: pa.Table) -> Served:
    """The result of a query: columns of KEYS and COUNTS in any order."""
    types = {name: _pa.string() for name in KEYS} | {name: _pa.int64() for name in ("size", *COUNTS)}
    return Served(table=_pa.table({name: table.column(name).cast(types[name]) for name in (*KEYS, *COUNTS)}))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One agent's requests, sorted by number, each with its line and outcome."""

    seq: Ints
    line: Ints
    outcome: Ints


def from_batches(*, receipts: Iterable[Receipts], batches: Iterable[Batch], round_id: int) -> Served:
    """The same from records, in any order; what was delivered twice counts once."""
    lines: list[Line] = []
    asked = _asked(batches, round_id, lines)
    totals = np.zeros((len(lines), len(COUNTS)), dtype=np.int64)
    came: dict[str, list[Ints]] = {}
    seen: set[tuple[Any, ...]] = set()
    for batch in receipts:
        for row in batch.rows.to_pylist():
            identity = (batch.head.agent, batch.head.incarnation, batch.head.batch_seq)
            key = (*identity, row["src_agent"], row["proto"], row["target"], row["first_seq"])
            if row["round_id"] != round_id or row["src_agent"] not in asked or key in seen:
                continue
            seen.add(key)
            _take(row, batch.head.node, asked[row["src_agent"]], lines, totals, came.setdefault(row["src_agent"], []))
    for agent, numbers in came.items():
        if numbers:
            _by_bits(asked[agent], np.concatenate(numbers), lines, totals)
    return Served.of({line: tuple(map(int, total)) for line, total in zip(lines, totals, strict=True) if total.any()})


def _asked(batches: Iterable[Batch], round_id: int, lines: list[Line]) -> dict[str, _Asked]:
    places: dict[Line, int] = {}
    parts: dict[str, list[tuple[Ints, Ints, Ints]]] = {}
    for batch in batches:
        head = batch.head
        if head.round_id != round_id:
            continue
        line_of = []
        for t in head.targets:
            key: Line = (head.agent, t.name, t.dst, t.dst_node, t.proto.name, t.layer.name, t.size)
            line_of.append(places.setdefault(key, len(places)))
        seq, target, outcome = (batch.rows.column(n).to_numpy() for n in ("seq", "target", "outcome"))
        parts.setdefault(head.agent, []).append(
            (seq.astype(np.int64), np.array(line_of, dtype=np.int64)[target], outcome.astype(np.int64))
        )
    lines.extend(places)
    asked = {}
    for agent, pieces in parts.items():
        seqs, line, outcome = (np.concatenate(column) for column in zip(*pieces, strict=True))
        numbers, first = np.unique(seqs, return_index=True)
        asked[agent] = _Asked(seq=numbers, line=line[first], outcome=outcome[first])
    return asked


def _take(row: dict[str, Any], node: str, asked: _Asked, lines: list[Line], totals: Ints, came: list[Ints]) -> None:
    """One receipt: by its bits where it has no target, else by the request that it names."""
    if row["target"] == UNKNOWN_TARGET:
        bits = np.unpackbits(np.frombuffer(row["bitmap"], dtype=np.uint8), bitorder="little")
        numbers = np.nonzero(bits)[0] + row["first_seq"]
        nodes = np.array([line[3] in ("", node) for line in lines], dtype=bool)
        at = np.searchsorted(asked.seq, numbers)
        known = at < len(asked.seq)
        known[known] &= (asked.seq[at[known]] == numbers[known]) & nodes[asked.line[at[known]]]
        came.append(at[known])
        return
    at = int(np.searchsorted(asked.seq, row["last_seq"]))
    if at >= len(asked.seq) or asked.seq[at] != row["last_seq"]:
        return
    line = int(asked.line[at])
    if lines[line][3] in ("", node) and lines[line][4] == Proto(row["proto"]).name:
        totals[line] += (row["received"] - row["duplicates"], row["sent"], row["lost"], row["synack_lost"], 0)


def _by_bits(asked: _Asked, at: Ints, lines: list[Line], totals: Ints) -> None:
    datagram = np.array([line[4] == Proto.udp.name for line in lines], dtype=bool)[asked.line]
    telling = datagram & ~np.isin(asked.outcome, _SILENT)
    arrived = np.zeros(len(asked.seq), dtype=bool)
    arrived[at] = True
    missing = telling & ~arrived & (asked.outcome == int(Outcome.ok))
    totals[:, 0] += np.bincount(asked.line[telling & arrived], minlength=len(lines))
    totals[:, -1] += np.bincount(asked.line[missing], minlength=len(lines))
