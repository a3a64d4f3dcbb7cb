"""Pair tables, rounds and accounts for the tests of judging."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from streams.judging import stats
from streams.judging.pair_table import SCHEMA, PairTable
from streams.judging.served import COUNTS, Line, Served
from topics.round_verdicts import AgentAccount
from topics.task_rounds import Expect, MembersRef, Mesh, RoundScheduled

START_US = 1_790_000_000_000_000


def line(src: str, dst: str, **changes: Any) -> dict[str, Any]:
    """A line: 100 requests of 1 ms, all good, unless changed; `failed` is {outcome: count}."""
    n = changes.pop("n", 100)
    failed = changes.pop("failed", {})
    each_us = changes.pop("each_us", 1000)
    ok = n - sum(failed.values())
    outcomes = ({"ok": ok} if ok else {}) | failed
    delays = {stats.bucket(each_us): ok} if ok else {}
    values = {
        **{"src_agent": src, "src_node": src, "src_zone": "", "src_rack": ""},
        **{"target": f"to {dst}", "dst": dst, "dst_node": dst, "dst_zone": "", "dst_rack": "", "proto": "http"},
        **{"layer": "pod", "size": 0, "n": n, "ok": ok, "packets_sent": 2 * n, "packets_lost": 0},
        **{"unopened": 0, "unopened_sent": 0, "unopened_lost": 0},
        **{"total_us_sum": ok * each_us, "total_us_min": each_us, "total_us_max": each_us if ok else 0},
        **{"sent_us_sum": ok * each_us, "sent_us_min": each_us, "sent_us_max": each_us if ok else 0},
        **{"outcomes": list(outcomes.items()), "hist_total": list(delays.items()), "hist_sent": list(delays.items())},
        **{"ports": 1, "bad_ports": []},
    }
    return values | changes


def table(lines: Iterable[dict[str, Any]], *, duplicates: int = 0) -> PairTable:
    rows = list(lines)
    made = pa.Table.from_pylist(rows, schema=SCHEMA)
    return PairTable(table=made, raw_rows=sum(r["n"] for r in rows) + duplicates)


def nodes(count: int) -> list[str]:
    return [f"node-{i}" for i in range(1, count + 1)]


def full_mesh(count: int, lose: Any = None, **changes: Any) -> PairTable:
    """Every ordered pair; `lose(src, dst)` gives the share of packets lost."""
    lines = []
    for src in nodes(count):
        for dst in nodes(count):
            if src == dst:
                continue
            made = line(src, dst, **changes)
            if lose is not None:
                made["packets_lost"] = round(made["packets_sent"] * lose(src, dst))
            lines.append(made)
    return table(lines)


def served_line(src: str, dst: str, **changes: int) -> dict[Line, tuple[int, ...]]:
    """The other end's account of a line: all of 100 requests came, none of 200 packets was lost on the way back."""
    counts = {"received": 100, "sent": 200, "lost": 0, "synack_lost": 0, "missing": 0} | changes
    return {(src, f"to {dst}", dst, dst, "http", "pod", 0): tuple(counts[name] for name in COUNTS)}


def served_mesh(count: int, lose: Any = None, **changes: int) -> Served:
    """Every ordered pair; `lose(dst, src)` gives the share of packets lost on the way back."""
    counts: dict[Line, tuple[int, ...]] = {}
    for src in nodes(count):
        for dst in nodes(count):
            if src != dst:
                sent = changes.get("sent", 200)
                counts |= served_line(src, dst, **changes | {"lost": round(sent * lose(dst, src)) if lose else 0})
    return Served.of(counts)


def scheduled(*, count: int = 3, expect: Expect | None = None, **changes: Any) -> RoundScheduled:
    values: dict[str, Any] = {
        **{"round_id": 7, "number": 1, "task_uid": "uid", "task": "netreach/t", "kind": "NetReach"},
        **{"start_us": START_US, "deadline_us": START_US + 60_000_000, "duration_s": 10.0, "rate": 10.0},
        **{"timeout_ms": 500, "members": MembersRef(group="default", epoch=1, digest="d", count=count)},
        **{"planned": count * (count - 1) * 100, "expect": expect or Expect(mean_delay_ms=1500), "mesh": Mesh()},
    }
    return RoundScheduled(**values | changes)


def accounts(count: int = 3, **changes: dict[str, Any]) -> tuple[AgentAccount, ...]:
    """Finished accounts of a full mesh at 100 requests a pair; changes by `node_1={...}`."""
    owed = (count - 1) * 100
    made = []
    for node in nodes(count):
        values: dict[str, Any] = {
            **{"agent": node, "node": node, "planned": owed, "stored": owed},
            **{"unsent": 0, "declared_missing": 0, "unexplained": 0},
        }
        made.append(AgentAccount(**values | changes.get(node.replace("-", "_"), {})))
    return tuple(made)
