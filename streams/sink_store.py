"""What the sink asks of ClickHouse, through the door: inserts with a token, and which batches are there already."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import pyarrow as pa

from streams.clickhouse import SQL, Attempts, ClickHouse
from streams.config import StreamsConfig

ONE_TRY = Attempts(count=1)  # `patience` tries again


@lru_cache(maxsize=1)
def stored_batches_sql() -> str:
    """The read-back query."""
    return (SQL / "stored_batches.sql").read_text(encoding="utf-8")


class SinkStore:
    """A `sink.Store` over HTTP; every call blocks and is tried once. Raises ClickHouseAway or ClickHouseRefused."""

    def __init__(self, config: StreamsConfig) -> None:
        """Raises BadConfiguration for an unusable URL."""
        self._door = ClickHouse(
            url=config.clickhouse_url,
            password=config.clickhouse_password,
            ca_file=config.clickhouse_ca_file,
            attempts=ONE_TRY,
        )

    def ping(self) -> None:
        """Return when it answers and `probe` is there."""
        self._door.query_rows("SELECT 1 FROM probe LIMIT 0")

    def insert(self, *, table: str, rows: pa.Table, token: str) -> None:
        """Insert rows in one block; the same token twice inserts once."""
        self._door.insert_arrow(table=table, rows=rows, token=token)

    def stored_batches(self, rounds: Mapping[int, int]) -> Sequence[tuple[int, str, int, int]]:
        """(round id, agent, incarnation, batch_seq) of the batches it has; `rounds` is id to start in microseconds."""
        starts_ms = [start_us // 1000 for start_us in rounds.values()]
        parameters = {"rounds": list(rounds), "first_ms": min(starts_ms), "last_ms": max(starts_ms)}
        found = self._door.query_arrow(stored_batches_sql(), parameters).to_pydict()
        columns = (found.get(name, []) for name in ("round_id", "agent", "incarnation", "batch_seq"))
        return list(zip(*columns, strict=True))
