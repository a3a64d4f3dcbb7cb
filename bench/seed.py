"""Made-up raw data for benchmarks and tests: a full mesh over some time, made by ClickHouse itself, the same each time.

Every ordered pair is probed once a round by each protocol, at a planned time of its own. Delays are log-normal around a
base per pair (120 to 200 µs inside a zone, 600 to 1,500 across), 1 % have up to 5 ms more. Packets are lost at
`Seed.loss`; pairs of `lossy` sources lose more. Kinder than real data: one cluster, tidy rounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from streams.clickhouse import INSERT_SETTINGS, ClickHouse

# Packets (or segments) one request sends, per protocol.
PACKETS: Final[Mapping[str, int]] = {"icmp": 1, "udp": 1, "tcp": 5, "http": 9, "https": 14, "dns": 1}
CHUNK_ROWS = 1_000_000
SQL: Final = Path(__file__).with_name("seed.sql")
ROUNDS_SQL: Final = Path(__file__).with_name("seed_rounds.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What to make. `loss` is the share of packets lost everywhere, `lossy` the shares at single source nodes."""

    start: datetime
    rounds: int
    interval_s: int = 60
    nodes: int = 100
    zones: int = 4
    protocols: tuple[str, ...] = ("icmp", "udp", "tcp", "http")
    task: str = "netpatrol/mesh"
    layer: str = "pod"
    packets: Mapping[str, int] = field(default_factory=lambda: PACKETS)
    loss: float = 1e-5
    lossy: Mapping[str, float] = field(default_factory=dict)
    # Other data of the same shape, and other Kafka places.
    salt: int = 0

    @property
    def round_rows(self) -> int:
        """Rows of one round."""
        return self.nodes * (self.nodes - 1) * len(self.protocols)

    @property
    def rows(self) -> int:
        """Rows of all rounds."""
        return self.rounds * self.round_rows


def node(number: int) -> str:
    """The name of a node: as long as cloud providers' names are."""
    return f"node-{number:04d}.eu-central.compute.internal"


def fill(clickhouse: ClickHouse, seed: Seed) -> None:
    """Insert it, some rounds at a time, through the table as the sink does (so node_1m is filled, too)."""
    together = max(1, CHUNK_ROWS // seed.round_rows)
    for first in range(0, seed.rounds, together):
        clickhouse.command(insert_sql(seed, first=first, count=min(together, seed.rounds - first)))


def insert_sql(seed: Seed, *, first: int, count: int) -> str:
    """The statement for `count` rounds from number `first` on."""
    start_s = int((seed.start + timedelta(seconds=first * seed.interval_s)).timestamp())
    peers, protocols = seed.nodes - 1, list(seed.protocols)
    lossy = ", ".join(f"src_node = '{name}', {share}" for name, share in seed.lossy.items())
    share = f"multiIf({lossy}, {seed.loss})" if lossy else str(seed.loss)
    settings = ", ".join(f"{k} = {v}" for k, v in INSERT_SETTINGS.items() if k != "async_insert")
    token = f"seed-{seed.task}-{seed.salt}-{start_s}-{count}"
    return SQL.read_text(encoding="utf-8").format(
        task=seed.task,
        layer=seed.layer,
        first=first,
        start_s=start_s,
        interval_s=seed.interval_s,
        interval_ms=seed.interval_s * 1000,
        zones=seed.zones,
        nodes=seed.nodes,
        kinds=len(protocols),
        source_rows=peers * len(protocols),
        round_rows=seed.round_rows,
        rows=count * seed.round_rows,
        protocols=protocols,
        packets=[seed.packets[p] for p in protocols],
        share=share,
        salt=seed.salt,
        origin_s=start_s - first * seed.interval_s,
        settings=settings,
        token=token,
    )


def tell_rounds(clickhouse: ClickHouse) -> None:
    """A verdict for every round that is stored: what the judge would have said, roughly."""
    clickhouse.command(ROUNDS_SQL.read_text(encoding="utf-8"))
