"""Requests, shares and verdicts as OTLP, decoded by the official protobuf messages."""

from typing import Any

import msgspec
import pyarrow as pa
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from streams import otlp
from streams.traces import convert, spans_of
from topics import otlp_spans, probe_results
from topics.ids import share_span_id, span_id
from topics.outcome import Outcome
from topics.probe_results import Batch
from topics.round_progress import AgentFinished
from topics.round_verdicts import EXAMPLE as VERDICT
from topics.round_verdicts import Finding
from topics.spec import InvalidMessage

HEAD = probe_results.EXAMPLE.head
TRACE = bytes.fromhex(HEAD.trace_id)


def batch(*rows: dict[str, int]) -> Batch:
    head = msgspec.structs.replace(HEAD, errors=("", "connect timeout"))
    columns = [
        pa.array([row.get(f.name, int(f.name == "outcome")) for row in rows], f.type) for f in probe_results.SCHEMA
    ]
    return Batch(head=head, rows=pa.RecordBatch.from_arrays(columns, schema=probe_results.SCHEMA))


def decoded(data: bytes) -> tuple[dict[str, Any], list[Span]]:
    otlp_spans.check(data)
    request = ExportTraceServiceRequest.FromString(data)
    (of_resource,) = request.resource_spans
    (of_scope,) = of_resource.scope_spans
    assert of_scope.scope.name == "kpatrol"
    return attributes(of_resource.resource), list(of_scope.spans)


def attributes(of: Any) -> dict[str, Any]:
    found = {kv.key: getattr(kv.value, kv.value.WhichOneof("value")) for kv in of.attributes}
    assert len(found) == len(of.attributes)
    return found


OK = {"seq": 0, "planned_us": 10, "lateness_us": 5, "dur_us": 300, "status": 200, "sent": 9, "peer": 1}
LATE = {"seq": 7, "planned_us": 2_000_000, "dur_us": 1_000_000, "outcome": Outcome.timeout, "error": 1, "lost": 2}
UNSENT = {"seq": 8, "outcome": Outcome.unsent}


def test_a_failed_request_is_a_span_under_its_agent_s_share_of_the_round() -> None:
    resource, (span,) = decoded(otlp.requests(batch(OK, LATE, UNSENT), records="failed"))
    assert resource["service.instance.id"] == resource["k8s.node.name"] == "node-1"
    assert span.trace_id == TRACE
    assert span.span_id.hex() == span_id(trace_id=TRACE, seq=7)
    assert span.parent_span_id.hex() == share_span_id(trace_id=TRACE)
    assert (span.kind, span.status.code) == (Span.SPAN_KIND_CLIENT, Status.STATUS_CODE_ERROR)
    assert span.status.message == "timeout: connect timeout"
    assert span.start_time_unix_nano == (HEAD.start_us + 2_000_000) * 1000
    assert span.end_time_unix_nano - span.start_time_unix_nano == 1_000_000_000
    told = attributes(span)
    assert told["error.type"] == "connect timeout"
    assert told["kpatrol.outcome"] == "timeout"
    assert told["kpatrol.packets.lost"] == 2
    assert told["server.address"] == "node-2"
    assert (told["network.peer.address"], told["network.peer.port"]) == ("10.0.0.2", 80)
    assert told["kpatrol.round.id"] == "7"
    assert told["network.transport"] == "tcp"


def test_all_requests_are_told_where_asked_but_none_that_was_not_sent() -> None:
    _, spans = decoded(otlp.requests(batch(OK, LATE, UNSENT), records="all"))
    assert [attributes(s)["kpatrol.request.seq"] for s in spans] == [0, 7]
    good = spans[0]
    assert good.status.code == Status.STATUS_CODE_UNSET
    assert "error.type" not in attributes(good)
    assert attributes(good)["http.response.status_code"] == 200
    assert attributes(good)["kpatrol.peer"] == "node-2"
    assert good.start_time_unix_nano == (HEAD.start_us + 15) * 1000
    assert otlp.requests(batch(OK, UNSENT), records="failed") == b""


FINISHED = AgentFinished(
    task_uid="4b2f", round_id=7, agent="node-1", node="node-1", incarnation=1, at_us=HEAD.start_us + 3_000_000,
    planned=9, sent=8, unsent=1, batches=1, rows=8, task="netreach/reach-task", trace_id=HEAD.trace_id,
    began_us=HEAD.start_us, unsent_causes={"over the cap": 1},
)  # fmt: skip


def test_an_agent_s_share_is_the_root_of_its_requests() -> None:
    _, (span,) = decoded(otlp.share(FINISHED))
    assert (span.trace_id, span.parent_span_id) == (TRACE, b"")
    assert span.span_id.hex() == share_span_id(trace_id=TRACE)
    assert span.end_time_unix_nano - span.start_time_unix_nano == 3_000_000_000
    assert attributes(span)["kpatrol.share.planned"] == 9
    assert span.status.message == "over the cap"
    assert otlp.share(msgspec.structs.replace(FINISHED, trace_id="")) == b""


def test_a_verdict_is_a_span_with_its_findings() -> None:
    finding = Finding(
        element="node-3", direction="ingress", kind="loss", sentence="loses 2 %", loss=VERDICT.loss, confidence=1
    )
    failed = msgspec.structs.replace(VERDICT, verdict="fail", why="2 of 600 failed", findings=(finding,))
    _, (span,) = decoded(otlp.verdict(failed))
    assert (len(span.trace_id), len(span.span_id)) == (16, 8)
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "2 of 600 failed")
    (event,) = span.events
    assert attributes(event)["kpatrol.element"] == "node-3"
    again = msgspec.structs.replace(failed, revision=2)
    assert decoded(otlp.verdict(again))[1][0].trace_id != span.trace_id


class _Message:
    def __init__(self, value: bytes) -> None:
        self.value, self.partition, self.offset, self.key = value, 0, 0, b""


def test_what_cannot_be_read_is_set_aside_and_the_rest_told() -> None:
    from streams.dead_letter import Run

    topic, to_spans = spans_of("failed")["requests"]
    wires = [_Message(topic.encode(batch(LATE))), _Message(b"junk"), _Message(topic.encode(batch(OK)))]
    told, dead = convert(wires, topic=topic, to_spans=to_spans, run=Run())
    assert len(told) == 1
    assert [d.topic for d in dead] == ["probe-results-v1-dlq"]


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x05ab", b"\x0a\xff\xff", b"\x12\x00", b"\x0a\x00x"])
def test_a_broken_frame_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        otlp_spans.check(data)
