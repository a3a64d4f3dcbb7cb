"""One row for every request, collected into sealed columnar batches.

A row is a plain tuple in the order of topics.probe_results.SCHEMA, with `error` and `peer` as text: building a tuple
is the cheapest thing Python has (0.15 µs for 24 values), and the columns are made once per batch.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from topics.probe_results import BATCH_ROWS, TYPECODES

# In the order of SCHEMA; `error` and `peer` are text here and become indexes when the batch is sealed.
Row: TypeAlias = tuple[
    int,  # seq
    int,  # target
    int,  # planned_us
    int,  # lateness_us
    int,  # dur_us
    int,  # dns_us
    int,  # connect_us
    int,  # tls_us
    int,  # ttfb_us
    int,  # outcome
    str,  # error
    int,  # status
    str,  # peer
    int,  # src_port
    int,  # sent
    int,  # lost
    int,  # segs_out
    int,  # segs_in
    int,  # retrans
    int,  # min_rtt_us
    int,  # req_bytes
    int,  # resp_bytes
    int,  # attempt
    int,  # there_us
]

_LIMITS = {"B": (1 << 8) - 1, "H": (1 << 16) - 1, "I": (1 << 32) - 1, "Q": (1 << 64) - 1}
_LISTED = ("error", "peer")


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedBatch:
    """Rows as columns (names and type codes of topics.probe_results), and the lists that `peer` and `error` index."""

    columns: dict[str, "array[int]"]
    rows: int
    peers: tuple[str, ...]
    errors: tuple[str, ...]


class Rows:
    """Collects the rows of one round; hands over a batch at `max_rows`, or when `seal` is called."""

    def __init__(self, *, on_seal: Callable[[SealedBatch], None], max_rows: int = BATCH_ROWS) -> None:
        self.count = 0
        self._on_seal = on_seal
        self._max_rows = max_rows
        self._open: list[Row] = []

    def add(self, row: Row) -> None:
        """Take one finished request."""
        self.count += 1
        self._open.append(row)
        if len(self._open) >= self._max_rows:
            self.seal()

    def seal(self) -> None:
        """Hand over what is there, if anything."""
        if not self._open:
            return
        rows, self._open = self._open, []
        self._on_seal(sealed(rows))


def sealed(rows: list[Row]) -> SealedBatch:
    """Columns of the rows; a value beyond its column's range is held at the greatest one."""
    lists: dict[str, dict[str, int]] = {name: {"": 0} for name in _LISTED}
    columns: dict[str, array[int]] = {}
    for (name, code), values in zip(TYPECODES.items(), zip(*rows, strict=True), strict=True):
        if name in _LISTED:
            known = lists[name]
            columns[name] = array(code, [known.setdefault(text, len(known)) for text in values])
        else:
            columns[name] = _column(code, values)
    return SealedBatch(columns=columns, rows=len(rows), peers=tuple(lists["peer"]), errors=tuple(lists["error"]))


def _column(code: str, values: tuple[int, ...]) -> "array[int]":
    try:
        return array(code, values)
    except OverflowError:
        top = _LIMITS[code]
        return array(code, [min(max(value, 0), top) for value in values])
