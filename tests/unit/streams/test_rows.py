"""Every small topic's example fits its table, and every table's columns are those of its schema file."""

import re
from pathlib import Path
from typing import Any

import pytest

import streams
from streams.rows import ROWS, Located, tables_of
from topics import alarms, round_verdicts
from topics.catalogue import TOPICS

SCHEMA = Path(streams.__file__ or "").parent / "schema"


def columns_of_file(table: str) -> set[str]:
    (path,) = SCHEMA.glob(f"????_{table}.sql")
    body = path.read_text().split("\n(\n", 1)[1].split("\n)\n", 1)[0]
    return set(re.findall(r"^    ([a-z][a-z0-9_]*) +[A-Z]", body, flags=re.MULTILINE))


def located(record: Any) -> Located:
    return Located(record=record, partition=1, offset=2, timestamp_ms=3)


@pytest.mark.parametrize("name", ROWS)
def test_the_example_fills_every_column_of_its_table(name: str) -> None:
    topic, to_rows = ROWS[name]
    tables = tables_of([located(topic.decode(topic.encode(topic.example)))] * 2, to_rows=to_rows)
    assert tables
    for table, rows in tables.items():
        rows.validate(full=True)
        assert rows.num_rows == 2
        assert set(rows.schema.names) == columns_of_file(table)


def test_the_sink_has_rows_for_every_topic_it_reads() -> None:
    assert {*ROWS, "probe-results-v1"} == {t.name for t in TOPICS.values() if "sink" in t.readers}


def test_a_verdict_with_findings_is_a_round_and_its_findings() -> None:
    finding = round_verdicts.Finding(
        element="node-3",
        direction="ingress",
        kind="loss",
        sentence="node-3 loses",
        loss=round_verdicts.Loss(sent=10, lost=1, rate=0.1, low=0.0, high=0.4),
        confidence=0.9,
    )
    topic, to_rows = ROWS["round-verdicts-v1"]
    record = topic.example.__class__(
        **{f: getattr(topic.example, f) for f in topic.example.__struct_fields__}
        | {"findings": (finding, finding), "success_rate": None}
    )
    tables = tables_of([located(record)], to_rows=to_rows)
    (row,) = tables["round"].to_pylist()
    assert tables["finding"].num_rows == 2
    assert tables["finding"].column("loss_lost").to_pylist() == [1, 1]
    assert set(tables["finding"].schema.names) == columns_of_file("finding")
    assert row["success_rate"] is None
    assert (row["round_at"].timestamp(), row["final"], row["requests_ok"]) == (1_790_000_000, 1, 600)
    assert topic.decode(row["document"].encode()) == record


def test_alarm_states_are_those_of_the_schema() -> None:
    to_rows = ROWS["alarms-v1"][1]
    same = {f: getattr(alarms.EXAMPLE, f) for f in alarms.EXAMPLE.__struct_fields__}
    kinds = (alarms.AlarmOpened, alarms.AlarmUpdated, alarms.AlarmClosed)
    rows = tables_of([located(kind(**same)) for kind in kinds], to_rows=to_rows)["alarm"]
    assert rows.column("state").to_pylist() == [1, 2, 3]
    assert "'opened' = 1, 'updated' = 2, 'closed' = 3" in (SCHEMA / "0007_alarm.sql").read_text()
