"""The pair table of a round: one line per source and target, with counts, sums and histograms.

ClickHouse makes it from stored rows (`streams/sql/pair_table.sql`), `from_batches` makes the same from batches, so that
a round can be judged without a database; a test holds both equal.

`n` counts stored requests, `ok` those with a valid reply. Packets count only where the request says something about the
path (not where somebody else answered, nor where nothing was sent). `ports` counts the source ports used, `bad_ports`
has those of requests that timed out or lost a packet, with how many such requests each had. `unopened` are requests
whose TCP connection never came about: nobody knows which way their packets were lost. Sums, least, greatest and
histograms are of the `ok` requests, in microseconds: `total` from the planned time, `sent` from the moment of sending.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streams.judging import stats
from streams.judging.served import Served
from topics.outcome import NOT_LOSS, Outcome, Proto
from topics.probe_results import Batch, BatchHead, BatchTarget

Ints = npt.NDArray[np.int64]
Histogram = dict[int, int]
# The stubs of pyarrow know fewer of its constructors than it has.
_pa: Any = pa

TEXTS = (
    *("src_agent", "src_node", "src_zone", "src_rack"),
    *("target", "dst", "dst_node", "dst_zone", "dst_rack", "proto", "layer"),
)
COUNTS = (
    *("n", "ok", "packets_sent", "packets_lost", "unopened", "unopened_sent", "unopened_lost"),
    *("total_us_sum", "total_us_min", "total_us_max", "sent_us_sum", "sent_us_min", "sent_us_max", "ports"),
)
HISTOGRAMS = ("hist_total", "hist_sent")
_FIELDS: "list[pa.Field[Any]]" = [
    *(pa.field(name, pa.string()) for name in TEXTS),
    pa.field("size", pa.uint16()),
    *(pa.field(name, pa.uint64()) for name in COUNTS),
    pa.field("outcomes", pa.map_(pa.string(), pa.uint64())),
    *(pa.field(name, pa.map_(pa.uint8(), pa.uint64())) for name in HISTOGRAMS),
    pa.field("bad_ports", pa.map_(pa.uint16(), pa.uint64())),
]
SCHEMA = pa.schema(_FIELDS)
_U32_MAX = (1 << 32) - 1
_PORTS = 1 << 16
_OUTCOMES = max(Outcome) + 1
_SILENT = tuple(int(o) for o in NOT_LOSS)
_STREAMS = frozenset({Proto.tcp.name, Proto.http.name, Proto.https.name})
_PROTO = TEXTS[2:].index("proto") + 2


@dataclass(frozen=True, kw_only=True)
class PairTable:
    """A round's pairs as an Arrow table of SCHEMA, and how many rows were read before repeats were merged.

    `served` is what the serving side counted, by the same lines; None where it was not asked.
    """

    table: pa.Table
    raw_rows: int
    served: Served | None = None
    # What has been worked out of `table`; the same for a copy with another `served`.
    known: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def stored(self) -> int:
        """Requests stored, each once."""
        return int(self.counts("n").sum())

    @property
    def duplicates(self) -> int:
        """Rows that were there more than once."""
        return self.raw_rows - self.stored

    def counts(self, name: str) -> Ints:
        """A column of COUNTS."""
        return np.asarray(self.table.column(name).to_numpy(), dtype=np.int64)

    def texts(self, name: str) -> list[str]:
        """A column of TEXTS."""
        return [str(text) for text in self.table.column(name).to_pylist()]

    def codes(self, name: str) -> tuple[list[str], Ints]:
        """A column of TEXTS as (its different texts, the place of each line's text among them)."""
        if name not in self.known:
            chunks: Any = self.table.column(name).chunks
            self.known[name] = _encoded(_pa.concat_arrays(chunks or [_pa.array([], _pa.string())]))
        found: tuple[list[str], Ints] = self.known[name]
        return found

    def row(self, index: int) -> dict[str, Any]:
        """One line; maps become dicts."""
        line = {name: self.table.column(name)[index].as_py() for name in SCHEMA.names}
        return line | {name: dict(line[name]) for name in ("outcomes", *HISTOGRAMS, "bad_ports")}

    @cached_property
    def by_outcome(self) -> dict[str, int]:
        """Requests by outcome; only those that occurred."""
        names, codes, counts, _ = self.outcome_entries
        total = dict(zip(names, np.bincount(codes, weights=counts, minlength=len(names)).astype(int), strict=True))
        return {o.name: int(total[o.name]) for o in Outcome if total.get(o.name)}

    @property
    def outcome_entries(self) -> tuple[list[str], Ints, Ints, Ints]:
        """(outcomes, and of every entry of the lines' maps: number of its outcome, requests, line)."""
        if "outcomes" not in self.known:
            keys, values, lines = self._entries("outcomes")
            self.known["outcomes"] = (*_encoded(keys), values, lines)
        found: tuple[list[str], Ints, Ints, Ints] = self.known["outcomes"]
        return found

    def outcome_counts(self, outcomes: Iterable[Outcome]) -> Ints:
        """For each line, requests that ended in one of `outcomes`."""
        names, codes, counts, lines = self.outcome_entries
        wanted = {o.name for o in outcomes}
        chosen = np.array([name in wanted for name in names], dtype=bool)[codes]
        return np.bincount(lines[chosen], weights=counts[chosen], minlength=len(self)).astype(np.int64)

    @cached_property
    def bad_ports(self) -> tuple[Ints, Ints]:
        """(line, requests that failed or lost a packet) of every source port that had such."""
        _, values, lines = self._entries("bad_ports")
        return lines, values

    def histogram(self, name: str) -> Histogram:
        """All lines' histograms (of HISTOGRAMS) in one."""
        keys, values, _ = self._entries(name)
        sums = np.bincount(np.asarray(keys.to_numpy(), dtype=np.int64), weights=values, minlength=1)
        return {int(i): int(sums[i]) for i in np.nonzero(sums)[0]}

    def _entries(self, name: str) -> tuple[Any, Ints, Ints]:
        chunks: Any = self.table.column(name).chunks
        array = _pa.concat_arrays(chunks) if chunks else _pa.array([], type=SCHEMA.field(name).type)
        offsets = np.asarray(array.offsets.to_numpy(), dtype=np.int64)
        lengths = offsets[1:] - offsets[:-1]
        first, last = int(offsets[0]), int(offsets[-1])
        lines = np.repeat(np.arange(len(array), dtype=np.int64), lengths)
        values = np.asarray(array.items.slice(first, last - first).to_numpy(), dtype=np.int64)
        return array.keys.slice(first, last - first), values, lines


def _encoded(texts: Any) -> tuple[list[str], Ints]:
    encoded = texts.dictionary_encode()
    return encoded.dictionary.to_pylist(), np.asarray(encoded.indices.to_numpy(), dtype=np.int64)


def empty() -> PairTable:
    """The pair table of a round of which nothing is stored."""
    return PairTable(table=SCHEMA.empty_table(), raw_rows=0)


def from_arrow(*, table: pa.Table, raw_rows: int) -> PairTable:
    """The pair table of a query's result: columns of SCHEMA in any order. Raises pa.ArrowInvalid."""
    columns = [_cast(table.column(field.name), field) for field in SCHEMA]
    return PairTable(table=_pa.table(columns, schema=SCHEMA), raw_rows=raw_rows)


def _cast(column: "pa.ChunkedArray[Any]", field: "pa.Field[Any]") -> Any:
    if pa.types.is_map(field.type) and not column.type.equals(field.type):
        return _pa.chunked_array([_cast_map(chunk, field.type) for chunk in column.chunks], type=field.type)
    return column.cast(field.type)


def _cast_map(array: Any, wanted: Any) -> Any:
    keys = array.keys.cast(wanted.key_type)
    return _pa.MapArray.from_arrays(array.offsets, keys, array.items.cast(wanted.item_type))


def from_batches(*, batches: Iterable[Batch], round_id: int) -> PairTable:
    """The pair table of one round from its batches, in any order; a batch given again counts as rows read, no more."""
    lines: dict[tuple[Any, ...], int] = {}
    seen: set[tuple[str, int, int]] = set()
    parts: list[pa.RecordBatch] = []
    pairs: list[Ints] = []
    raw_rows = 0
    for batch in batches:
        head = batch.head
        if head.round_id != round_id:
            continue
        raw_rows += batch.rows.num_rows
        identity = (head.agent, head.incarnation, head.batch_seq)
        if identity in seen:
            continue
        seen.add(identity)
        line_of = [lines.setdefault(_line(head, target), len(lines)) for target in head.targets]
        pairs.append(np.array(line_of, dtype=np.int64)[batch.rows.column("target").to_numpy()])
        parts.append(batch.rows)
    if not parts:
        return PairTable(table=SCHEMA.empty_table(), raw_rows=raw_rows)
    table = _aggregate(rows=pa.Table.from_batches(parts), pair=np.concatenate(pairs), lines=list(lines))
    return PairTable(table=table, raw_rows=raw_rows)


def _line(head: BatchHead, target: BatchTarget) -> tuple[Any, ...]:
    source = (head.agent, head.node, head.zone, head.rack)
    place = (target.name, target.dst, target.dst_node, target.dst_zone, target.dst_rack)
    return (*source, *place, target.proto.name, target.layer.name, target.size)


def _aggregate(*, rows: pa.Table, pair: Ints, lines: list[tuple[Any, ...]]) -> Any:
    count = len(lines)
    outcome = rows.column("outcome").to_numpy().astype(np.int64)
    ok = outcome == int(Outcome.ok)
    telling = ~np.isin(outcome, _SILENT)
    sent_us = rows.column("dur_us").to_numpy().astype(np.int64)
    total_us = np.minimum(sent_us + rows.column("lateness_us").to_numpy(), _U32_MAX)

    def add(column: str, which: Any = telling) -> Any:
        weights = rows.column(column).to_numpy()[which]
        return np.bincount(pair[which], weights=weights, minlength=count).astype(np.int64)

    over_tcp = np.array([line[_PROTO] in _STREAMS for line in lines], dtype=bool)[pair]
    unopened = over_tcp & (outcome == int(Outcome.timeout)) & (rows.column("min_rtt_us").to_numpy() == 0)
    unopened &= rows.column("sent").to_numpy() > 0

    counts: dict[str, Any] = {
        "n": np.bincount(pair, minlength=count),
        "ok": np.bincount(pair[ok], minlength=count),
        "packets_sent": add("sent"),
        "packets_lost": add("lost"),
        "unopened": np.bincount(pair[unopened], minlength=count),
        "unopened_sent": add("sent", unopened),
        "unopened_lost": add("lost", unopened),
    }
    counts |= _delays("total_us", pair[ok], total_us[ok], count) | _delays("sent_us", pair[ok], sent_us[ok], count)
    names = [Outcome(i).name if i else "" for i in range(_OUTCOMES)]
    maps = {
        "outcomes": _maps(pair, outcome, count, _pa.array(names)),
        "hist_total": _maps(pair[ok], _buckets(total_us[ok]), count, None),
        "hist_sent": _maps(pair[ok], _buckets(sent_us[ok]), count, None),
    }
    port = rows.column("src_port").to_numpy().astype(np.int64)
    bad = (outcome == int(Outcome.timeout)) | (telling & (rows.column("lost").to_numpy() > 0))
    maps["bad_ports"] = _maps(pair[bad], port[bad], count, None, span=_PORTS, type_=np.uint16)
    counts["ports"] = np.bincount(np.unique(pair * _PORTS + port) // _PORTS, minlength=count)
    used = np.nonzero(counts["n"])[0]
    texts = dict(zip((*TEXTS, "size"), zip(*lines, strict=True), strict=True))
    columns = [
        _pa.array(texts[f.name], type=f.type)
        if f.name in texts
        else maps[f.name]
        if f.name in maps
        else _pa.array(counts[f.name], type=f.type)
        for f in SCHEMA
    ]
    return _pa.table(columns, schema=SCHEMA).take(_pa.array(used))


def _delays(name: str, pair: Ints, us: Ints, count: int) -> dict[str, Any]:
    """Sum, least and greatest by pair; 0 where there is none, as in ClickHouse."""
    greatest = np.zeros(count, dtype=np.int64)
    np.maximum.at(greatest, pair, us)
    least = np.full(count, _U32_MAX, dtype=np.int64)
    np.minimum.at(least, pair, us)
    least[np.bincount(pair, minlength=count) == 0] = 0
    total = np.bincount(pair, weights=us, minlength=count).astype(np.int64)
    return {f"{name}_sum": total, f"{name}_min": least, f"{name}_max": greatest}


def _buckets(us: Ints) -> Ints:
    buckets = np.floor(np.log2(np.maximum(us, 1)) * stats.PER_OCTAVE)
    return np.asarray(np.minimum(buckets, stats.BUCKETS - 1), dtype=np.int64)


def _maps(pair: Ints, key: Ints, count: int, names: Any, *, span: int = stats.BUCKETS, type_: Any = np.uint8) -> Any:
    """Per pair the map key → occurrences, keys in order and below `span`; `names` turns a key into text."""
    codes, occurrences = np.unique(pair * span + key, return_counts=True)
    keys = codes % span
    offsets = np.searchsorted(codes // span, np.arange(count + 1))
    arrow_keys = names.take(_pa.array(keys)) if names is not None else _pa.array(keys.astype(type_))
    values = _pa.array(occurrences.astype(np.uint64))
    return _pa.MapArray.from_arrays(_pa.array(offsets.astype(np.int32)), arrow_keys, values)
