"""Records of the small topics as rows of their tables: one line of ROWS for each topic, no branches.

Only probe-receipts-v1 comes in columns; the rest is few and small. Every table replaces equal identities, so a
record delivered twice is one row in the end.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from topics import agent_reports, alarms, cluster_events, probe_receipts, round_verdicts
from topics.spec import InvalidMessage, Topic

_U8, _U16, _U32, _U64, _I64 = pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.int64()
_TEXT, _REAL = pa.string(), pa.float64()
_US = pa.timestamp("us", tz="UTC")
_MS = pa.timestamp("ms", tz="UTC")
_DELAYS = ("mean_us", "p50_us", "p90_us", "p99_us", "max_us")
_Columns = Mapping[str, pa.DataType]


def _columns(kind: pa.DataType, *names: str) -> _Columns:
    return dict.fromkeys(names, kind)


_LOSS: _Columns = {
    **_columns(_U64, "loss_sent", "loss_lost"),
    **_columns(_REAL, "loss_rate", "loss_low", "loss_high"),
}
_ROUND_KEY: _Columns = {
    **{"round_id": _U64, "round_number": _U32, "round_at": _MS},
    **_columns(_TEXT, "task", "task_uid"),
}
_COLUMNS: Mapping[str, _Columns] = {
    "round": {
        **_ROUND_KEY,
        **_columns(_TEXT, "kind", "verdict", "why", "trust", "document"),
        **{"revision": _U32, "final": _U8, "unexplained": _I64, "verdict_at": _US, "task_created": _MS},
        **_columns(_U64, "planned", "stored", "unsent", "declared_missing", "duplicates"),
        **_columns(_U64, "requests_sent", "requests_ok", "requests_failed"),
        **_columns(_REAL, "success_rate", "verdict_delay_s", *_DELAYS, *(f"sent_{name}" for name in _DELAYS)),
        **_LOSS,
        "trust_reasons": pa.list_(_TEXT),
    },
    "finding": {
        **_ROUND_KEY,
        **_columns(_TEXT, "element", "direction", "kind", "sentence", "evidence_sql"),
        **{"revision": _U32, "confidence": _REAL, "since": _US, "seen_rounds": _U32, "pooled_rounds": _U16},
        **{"scope": _TEXT, "spared": pa.list_(_TEXT)},
        **_LOSS,
    },
    "alarm": {
        **_columns(_TEXT, "alarm_id", "task", "element", "direction", "kind", "severity", "sentence"),
        **{"transition": _U32, "state": pa.int8(), "at": _US, "since": _US, "round_id": _U64, "rounds": _U32},
        **{"scope": _TEXT, "spared": pa.list_(_TEXT), "evidence_sql": _TEXT},
    },
    "agent": {
        **_columns(_TEXT, "agent", "node", "agent_group", "flavour", "zone", "rack", "pod", "version", "ipv4", "ipv6"),
        **{"at": _US, "started": _US, "incarnation": _U64, "interval_s": pa.float32(), "clock_offset_us": _I64},
        **{"spool_bytes": _U64, "spool_batches": _U32, "running_rounds": _U16, "leaving": _U8, "document": _TEXT},
    },
    "event": {"at": _US, **_columns(_TEXT, "object", "node", "reason", "message")},
}
SCHEMAS = {table: pa.schema(list(columns.items())) for table, columns in _COLUMNS.items()}
_ALARM_STATES = {alarms.AlarmOpened: 1, alarms.AlarmUpdated: 2, alarms.AlarmClosed: 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A decoded record and where it stood."""

    record: Any
    partition: int
    offset: int
    timestamp_ms: int


Tables = dict[str, pa.Table]
ToRows = Callable[[Sequence[Located]], Tables]


def _loss(loss: round_verdicts.Loss) -> dict[str, Any]:
    return {
        "loss_sent": loss.sent,
        "loss_lost": loss.lost,
        "loss_rate": loss.rate,
        "loss_low": loss.low,
        "loss_high": loss.high,
    }


def _verdict(verdict: round_verdicts.RoundVerdict) -> dict[str, list[dict[str, Any]]]:
    key = {
        "round_id": verdict.round_id,
        "round_number": verdict.round,
        "round_at": verdict.start_us // 1000,
        "task": verdict.task,
        "task_uid": verdict.task_uid,
        "revision": verdict.revision,
    }
    same = ("kind", "verdict", "why", "planned", "stored", "unsent", "declared_missing", "unexplained", "duplicates")
    requests = verdict.requests
    row = key | {name: getattr(verdict, name) for name in (*same, "success_rate", "verdict_delay_s")}
    row |= {"requests_sent": requests.sent, "requests_ok": requests.ok, "requests_failed": requests.failed}
    row |= {name: getattr(verdict.delay, name) for name in _DELAYS}
    row |= {f"sent_{name}": getattr(verdict.sent_delay, name) for name in _DELAYS}
    row |= _loss(verdict.loss) | {"trust": verdict.trust.grade, "trust_reasons": list(verdict.trust.reasons)}
    row |= {"final": int(verdict.final), "verdict_at": verdict.at_us}
    row["task_created"] = (verdict.created_us or verdict.start_us) // 1000
    row["document"] = round_verdicts.TOPIC.encode(verdict).decode()
    findings = [
        key
        | _loss(f.loss)
        | {"element": f.element, "direction": f.direction, "kind": f.kind, "sentence": f.sentence}
        | {"confidence": f.confidence, "evidence_sql": f.evidence_sql, "since": f.since_us or verdict.start_us}
        | {"seen_rounds": f.seen_rounds, "pooled_rounds": f.rounds, "scope": f.scope, "spared": list(f.spared)}
        for f in verdict.findings
    ]
    return {"round": [row], "finding": findings}


def _alarm(alarm: alarms.AlarmRecord) -> dict[str, list[dict[str, Any]]]:
    same = ("alarm_id", "transition", "task", "element", "direction", "kind", "severity", "sentence", "round_id")
    row = {name: getattr(alarm, name) for name in (*same, "rounds", "scope", "evidence_sql")}
    row["spared"] = list(alarm.spared)
    return {"alarm": [row | {"state": _ALARM_STATES[type(alarm)], "at": alarm.at_us, "since": alarm.since_us}]}


def _report(report: agent_reports.AgentReport) -> dict[str, list[dict[str, Any]]]:
    same = ("agent", "incarnation", "node", "flavour", "zone", "rack", "pod", "version", "interval_s", "ipv4", "ipv6")
    rest = ("clock_offset_us", "spool_bytes", "spool_batches", "running_rounds")
    row = {name: getattr(report, name) for name in (*same, *rest)}
    row |= {"at": report.at_us, "started": report.started_us, "agent_group": report.group}
    return {"agent": [row | {"leaving": int(report.leaving), "document": agent_reports.TOPIC.encode(report).decode()}]}


def _event(event: cluster_events.ClusterEvent) -> dict[str, list[dict[str, Any]]]:
    row = {name: getattr(event, name) for name in ("object", "node", "reason", "message")}
    return {"event": [row | {"at": event.at_us}]}


def _by_rows(to_dicts: Callable[[Any], dict[str, list[dict[str, Any]]]]) -> ToRows:
    def to_rows(items: Sequence[Located]) -> Tables:
        rows: dict[str, list[dict[str, Any]]] = {}
        for item in items:
            for table, dicts in to_dicts(item.record).items():
                rows.setdefault(table, []).extend(dicts)
        return {t: pa.Table.from_pylist(dicts, schema=SCHEMAS[t]) for t, dicts in rows.items() if dicts}

    return to_rows


def _receipts(items: Sequence[Located]) -> Tables:
    return {"receipt": pa.concat_tables([_receipt(item) for item in items])}


def _receipt(item: Located) -> pa.Table:
    head, rows = item.record.head, item.record.rows
    n = rows.num_rows
    columns: dict[str, Any] = {name: rows.column(name) for name in rows.schema.names}
    columns["proto"] = columns["proto"].cast(pa.int8())
    for name in ("first", "last"):
        columns[f"{name}_ts"] = columns.pop(f"{name}_us").cast(_I64).cast(_US)
    columns |= {name: pa.repeat(getattr(head, name), n) for name in ("agent", "node", "zone", "rack")}
    columns["incarnation"] = pa.repeat(pa.scalar(head.incarnation, type=_U64), n)
    columns["batch_seq"] = pa.repeat(pa.scalar(head.batch_seq, type=_U32), n)
    columns["kpart"] = pa.repeat(pa.scalar(item.partition, type=_U16), n)
    columns["koff"] = pa.repeat(pa.scalar(item.offset, type=_U64), n)
    return pa.table(columns)


ROWS: Mapping[str, tuple[Topic[Any], ToRows]] = {
    topic.name: (topic, to_rows)
    for topic, to_rows in (
        (probe_receipts.TOPIC, _receipts),
        (agent_reports.TOPIC, _by_rows(_report)),
        (round_verdicts.TOPIC, _by_rows(_verdict)),
        (alarms.TOPIC, _by_rows(_alarm)),
        (cluster_events.TOPIC, _by_rows(_event)),
    )
}


def tables_of(items: Sequence[Located], *, to_rows: ToRows) -> Tables:
    """The rows of the items by table. Raises InvalidMessage when a value does not fit its column."""
    try:
        return to_rows(items)
    except (pa.ArrowException, ValueError, OverflowError, TypeError) as error:
        raise InvalidMessage(f"does not fit its table: {error}") from error
