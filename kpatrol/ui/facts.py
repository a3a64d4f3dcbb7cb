"""What the page shows, asked of the views: each function returns a document ready for JSON. It only reads."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from datetime import datetime
from math import isnan
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kpatrol.reading.store import Store

Json = dict[str, Any]

ROUNDS_SHOWN = 200
REQUESTS_SHOWN = 50
FINDINGS_SHOWN = 100

# How a cell travels: little-endian, one after another, so that a mesh of 1,000 × 1,000 needs no parsing.
CELL = np.dtype(
    [
        ("row", "<u2"),
        ("column", "<u2"),
        ("requests", "<u4"),
        ("ok", "<u4"),
        ("packets_sent", "<u4"),
        ("packets_lost", "<u4"),
        ("p99_us", "<f4"),
    ]
)


def tasks(store: Store) -> list[Json]:
    """Every task with its last round: `task`, `kind`, `rounds`, `verdict`, `round_at`, `trust`."""
    return _records(
        store,
        "SELECT task, any(r.kind) AS kind, count() AS rounds, argMax(r.verdict, r.round_at) AS verdict, "
        "max(r.round_at) AS round_at, argMax(r.trust, r.round_at) AS trust FROM v_round AS r GROUP BY task "
        "ORDER BY task",
    )


def rounds(store: Store, *, task: str) -> list[Json]:
    """The task's last rounds, newest first. Ids as text: they have 64 bits and a browser's numbers 53."""
    return _records(
        store,
        "SELECT toString(r.round_id) AS round_id, round_number AS round, round_at, revision, final, verdict, why, "
        "planned, stored, unsent, declared_missing, unexplained, success_rate, requests_ok AS ok, "
        "requests_failed AS failed, p50_us, p99_us, loss_sent AS packets_sent, loss_lost AS packets_lost, "
        "loss_low, loss_high, trust, trust_reasons, verdict_delay_s FROM v_round AS r "
        f"WHERE task = {{task:String}} ORDER BY round_at DESC LIMIT {ROUNDS_SHOWN}",
        {"task": task},
    )


def findings(store: Store, *, task: str) -> list[Json]:
    """What was found in the task's rounds, newest first, each with its evidence as a query."""
    return _records(
        store,
        "SELECT toString(f.round_id) AS round_id, round_number AS round, round_at, element, direction, kind, sentence, "
        "loss_sent AS packets_sent, loss_lost AS packets_lost, loss_low, loss_high, confidence, "
        "since, seen_rounds, scope, spared, evidence_sql "
        "FROM v_finding AS f WHERE task = {task:String} "
        f"ORDER BY round_at DESC, confidence DESC LIMIT {FINDINGS_SHOWN}",
        {"task": task},
    )


def alarms(store: Store) -> list[Json]:
    """Every alarm as it stands, the open ones first."""
    return _records(
        store,
        "SELECT alarm_id, transition, toString(a.state) AS state, at, since, task, element, direction, kind, severity, "
        "sentence, rounds, scope, spared, evidence_sql FROM v_alarm AS a ORDER BY state = 'closed', at DESC LIMIT 200",
    )


def agents(store: Store) -> list[Json]:
    """Every agent's last report, the troubled ones first."""
    return _records(
        store,
        "SELECT agent, node, state, silent_s, interval_s, at FROM v_agent ORDER BY state = 'present', node, agent",
    )


def protocols(store: Store, *, round_id: int, round_at: str) -> list[str]:
    """The protocols and layers seen in a round, as `http pod`."""
    sql = (
        "SELECT DISTINCT concat(proto, ' ', layer) FROM v_pair_round WHERE round_id = {round_id:UInt64} "
        "AND round_at = parseDateTime64BestEffort({round_at:String}, 3, 'UTC') ORDER BY 1"
    )
    return [str(row[0]) for row in store.rows(sql, {"round_id": round_id, "round_at": round_at})]


def mesh(store: Store, *, round_id: int, round_at: str, via: str = "") -> Json:
    """Source × destination of one round: `rows`, `columns` (name and zone, grouped by zone), `cells` in base64.

    ``via`` is a protocol and layer as :func:`protocols` gives them; empty means all together.
    """
    sql = (
        "SELECT src_node AS src, any(src_zone) AS src_zone, dst, any(dst_zone) AS dst_zone, sum(n) AS requests, "
        "sum(ok) AS oks, sum(packets_sent) AS packets, sum(packets_lost) AS lost_packets, "
        "toFloat32(ifNull(hist_quantile(sumMap(hist_total), 0.99), 0)) AS p99_us FROM v_pair_round "
        "WHERE round_id = {round_id:UInt64} AND round_at = parseDateTime64BestEffort({round_at:String}, 3, 'UTC') "
        "AND ({via:String} = '' OR concat(proto, ' ', layer) = {via:String}) GROUP BY src_node, dst"
    )
    return packed(store.table(sql, {"round_id": round_id, "round_at": round_at, "via": via}))


def packed(table: pa.Table) -> Json:
    """The document of a mesh from its table: columns src, src_zone, dst, dst_zone, requests, oks, packets, …"""
    sources = _members(table, "src")
    destinations = _members(table, "dst")
    cells = np.zeros(table.num_rows, dtype=CELL)
    cells["row"] = _places(table["src"], [s["name"] for s in sources])
    cells["column"] = _places(table["dst"], [d["name"] for d in destinations])
    for name, column in (
        ("requests", "requests"),
        ("ok", "oks"),
        ("packets_sent", "packets"),
        ("packets_lost", "lost_packets"),
        ("p99_us", "p99_us"),
    ):
        cells[name] = table[column].to_numpy()
    return {"rows": sources, "columns": destinations, "cells": base64.b64encode(cells.tobytes()).decode()}


def _members(table: pa.Table, side: str) -> list[Json]:
    known = table.group_by([side]).aggregate([(f"{side}_zone", "max")])
    members = [{"name": str(row[side]), "zone": str(row[f"{side}_zone_max"])} for row in known.to_pylist()]
    return sorted(members, key=lambda member: (_natural(member["zone"]), _natural(member["name"])))


def _places(names: Any, order: Sequence[str]) -> Any:
    return pc.index_in(names.cast(pa.string()), value_set=pa.array(order, pa.string())).to_numpy()


def _natural(name: str) -> list[tuple[int, int, str]]:
    """node-10 after node-9."""
    return [(int(part), 0, "") if part.isdigit() else (0, 1, part) for part in re.split(r"(\d+)", name) if part]


def pair(store: Store, *, task: str, src: str, dst: str, since: str) -> Json:
    """Both directions between two nodes, round by round, and the requests that failed or lost a packet.

    `there` and `back` are lists of rounds: `round_at`, `requests`, `ok`, `forward_sent`, `forward_lost`, …
    """
    return {
        "there": _way(store, task=task, src=src, dst=dst, since=since),
        "back": _way(store, task=task, src=dst, dst=src, since=since),
        "requests": _requests(store, task=task, src=src, dst=dst, since=since),
    }


def _way(store: Store, *, task: str, src: str, dst: str, since: str) -> list[Json]:
    return _records(
        store,
        "SELECT round_at, sum(n) AS requests, sum(pair.ok) AS ok, sum(pair.packets_sent) AS packets_sent, "
        "sum(pair.packets_lost) AS packets_lost, hist_quantile(sumMap(hist_total), 0.5) AS p50_us, "
        "hist_quantile(sumMap(hist_total), 0.99) AS p99_us FROM v_pair_round AS pair WHERE task = {task:String} "
        "AND round_at >= parseDateTime64BestEffort({since:String}, 3, 'UTC') "
        "AND src_node = {src:String} AND dst = {dst:String} GROUP BY round_at ORDER BY round_at",
        {"task": task, "src": src, "dst": dst, "since": since},
    )


def _requests(store: Store, *, task: str, src: str, dst: str, since: str) -> list[Json]:
    return _records(
        store,
        "SELECT ts, src_node, dst, proto, layer, toString(p.outcome) AS outcome, error_type, status, sent, lost, "
        "total_us, src_port, trace_id, toString(p.span_id) AS span_id FROM v_probe AS p WHERE task = {task:String} "
        "AND ts >= parseDateTime64BestEffort({since:String}, 6, 'UTC') AND (p.outcome != 'ok' OR lost > 0) AND "
        "((src_node = {src:String} AND dst = {dst:String}) OR (src_node = {dst:String} AND dst = {src:String})) "
        f"ORDER BY ts DESC LIMIT {REQUESTS_SHOWN}",
        {"task": task, "src": src, "dst": dst, "since": since},
    )


def _records(store: Store, sql: str, parameters: Json | None = None) -> list[Json]:
    return [{name: _plain(value) for name, value in record.items()} for record in store.records(sql, parameters)]


def _plain(value: Any) -> Any:
    """Times as RFC 3339 in UTC, not-a-number as nothing."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    if isinstance(value, float) and isnan(value):
        return None
    return list(value) if isinstance(value, tuple) else value
