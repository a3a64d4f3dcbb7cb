"""Every topic keeps its contract: legal name, settings, and an example that survives the wire."""

import re
from typing import Any

import pytest

from topics import probe_results
from topics.catalogue import TOPICS
from topics.columns import COLUMNS
from topics.spec import InvalidMessage, Topic

EVERY_TOPIC = pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda t: t.name)
SERVICES = {"controller", "agent", "sink", "judge", "alarms", "hooks", "traces", "reader"}


@EVERY_TOPIC
def test_name_is_kebab_case_with_a_version_and_no_dots(topic: Topic[Any]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*-v[1-9][0-9]*", topic.name)


@EVERY_TOPIC
def test_example_survives_the_wire(topic: Topic[Any]) -> None:
    wire = topic.encode(topic.example)
    assert topic.decode(wire) == topic.example
    assert topic.key(topic.decode(wire)) == topic.key(topic.example) != b""


@EVERY_TOPIC
def test_writers_and_readers_are_services(topic: Topic[Any]) -> None:
    assert set(topic.writers) | set(topic.readers) <= SERVICES
    assert topic.writers
    assert topic.readers


@EVERY_TOPIC
@pytest.mark.parametrize("garbage", [b"", b"{}", b"\xff\xfe", b'{"type":"Nobody"}', b"[1,2]"])
def test_garbage_is_an_invalid_message(topic: Topic[Any], garbage: bytes) -> None:
    with pytest.raises(InvalidMessage):
        topic.decode(garbage)


def test_unknown_fields_are_dropped_and_ill_typed_ones_refused() -> None:
    topic = TOPICS["cluster-events-v1"]
    wire = topic.encode(topic.example)
    assert topic.decode(wire[:-1] + b',"invented":1}') == topic.example
    with pytest.raises(InvalidMessage, match="at_us"):
        topic.decode(wire.replace(b'"at_us":1', b'"at_us":"x",'[:-1] + b',"ignored":1'))


def test_only_bulk_topics_may_grow() -> None:
    assert {t.name for t in TOPICS.values() if t.may_grow} == {"probe-results-v1", "probe-receipts-v1", "otlp-spans-v1"}


def test_a_truncated_batch_is_refused() -> None:
    wire = probe_results.encode(probe_results.EXAMPLE)
    for cut in (1, len(wire) // 2, len(wire) - 200):
        with pytest.raises(InvalidMessage):
            probe_results.decode(wire[:cut])


def test_an_index_outside_the_head_is_refused() -> None:
    import msgspec

    head = msgspec.structs.replace(probe_results.EXAMPLE.head, targets=())
    wire = probe_results.encode(probe_results.Batch(head=head, rows=probe_results.EXAMPLE.rows))
    with pytest.raises(InvalidMessage, match="target"):
        probe_results.decode(wire)


def test_columns_are_named_once_and_attributes_too() -> None:
    names = [c.name for c in COLUMNS]
    assert len(names) == len(set(names))
    attributes = [c.attribute for c in COLUMNS if c.attribute]
    assert len(attributes) == len(set(attributes))
    row_columns = {c.name for c in COLUMNS if c.scope == "row"}
    derived = {"ts", "total_us", "error_type"}
    assert row_columns - derived <= set(probe_results.SCHEMA.names)
