"""Requests, shares and verdicts as OTLP spans: pure, over the official protobuf messages.

A trace is an agent's share of a round: the share is its root, each request a child. Ids are computed (`topics.ids`), so
whatever is told twice is the same span. A verdict is a trace of its own, with its findings as events. Attributes are
those of `topics.columns`. Source: OTLP 1.x, opentelemetry-proto; semantic conventions 1.44.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status

from streams.config import Records
from topics.columns import COLUMNS
from topics.ids import MASK64, share_span_id, splitmix64
from topics.outcome import Outcome, Proto
from topics.probe_results import Batch, BatchHead, BatchTarget
from topics.round_progress import AgentFinished
from topics.round_verdicts import RoundVerdict

Value = str | int | float | bool
_NAMES: Mapping[str, str] = {column.name: column.attribute for column in COLUMNS if column.attribute}
_NOT_TOLD = frozenset({Outcome.ok, Outcome.unsent})
# Columns that are numbers of a row; 0 is "not measured" or "none".
_NUMBERS = (
    *("src_port", "dns_us", "connect_us", "tls_us", "ttfb_us", "lateness_us", "sent", "lost", "segs_out", "segs_in"),
    *("retrans", "min_rtt_us", "req_bytes", "resp_bytes", "attempt", "there_us"),
)
_TARGET: Mapping[str, Callable[[BatchTarget], Value]] = {
    "target": lambda t: t.name,
    "dst": lambda t: t.dst,
    "dst_node": lambda t: t.dst_node,
    "dst_zone": lambda t: t.dst_zone,
    "dst_rack": lambda t: t.dst_rack,
    "dst_ip": lambda t: t.dst_ip,
    "src_ip": lambda t: t.src_ip,
    "dst_port": lambda t: t.dst_port,
    "size": lambda t: t.size,
    "proto": lambda t: t.proto.name,
    "layer": lambda t: t.layer.name,
    "family": lambda t: f"ipv{t.family}",
}
_TRANSPORT = {Proto.udp: "udp", Proto.tcp: "tcp", Proto.http: "tcp", Proto.https: "tcp"}


def requests(batch: Batch, *, records: Records) -> bytes:
    """An ExportTraceServiceRequest of a batch's requests; empty where none is to be told."""
    told = batch.rows
    outcomes: list[Any] = told.column("outcome").to_pylist()
    chosen = [i for i, o in enumerate(outcomes) if (o != Outcome.unsent if records == "all" else o not in _NOT_TOLD)]
    if not chosen:
        return b""
    head = batch.head
    request, spans = _message(_agent(head))
    patterns = [_pattern(head, target) for target in head.targets]
    columns: dict[str, list[Any]] = {
        name: told.column(name).to_pylist() for name in ("seq", "target", "planned_us", "dur_us", *_NUMBERS)
    }
    columns |= {name: told.column(name).to_pylist() for name in ("error", "peer", "status")}
    low = int(head.trace_id[16:], 16)
    for i in chosen:
        span = spans.add()
        target = columns["target"][i]
        span.CopyFrom(patterns[target])
        span.span_id = splitmix64((low + columns["seq"][i]) & MASK64).to_bytes(8, "big")
        sent_us = head.start_us + columns["planned_us"][i] + columns["lateness_us"][i]
        span.start_time_unix_nano = sent_us * 1000
        span.end_time_unix_nano = (sent_us + columns["dur_us"][i]) * 1000
        outcome, error = Outcome(outcomes[i]), head.errors[columns["error"][i]]
        _add(span, {_NAMES["seq"]: columns["seq"][i], _NAMES["outcome"]: outcome.name})
        _add(span, {_NAMES[name]: columns[name][i] for name in _NUMBERS if columns[name][i]})
        if peer := head.peers[columns["peer"][i]]:
            _add(span, {_NAMES["peer"]: peer})
        if columns["status"][i] and head.targets[target].proto in (Proto.http, Proto.https):
            _add(span, {_NAMES["status"]: columns["status"][i]})
        if outcome is not Outcome.ok:
            _add(span, {_NAMES["error_type"]: error or outcome.name})
            span.status.code = Status.STATUS_CODE_ERROR
            span.status.message = f"{outcome.name}: {error}" if error else outcome.name
    return bytes(request.SerializeToString())


def share(told: AgentFinished) -> bytes:
    """An ExportTraceServiceRequest of an agent's share of a round; empty where its trace is not known."""
    if not told.trace_id:
        return b""
    resource = {"service.name": "kpatrol-agent", "service.instance.id": told.agent, "k8s.node.name": told.node}
    request, spans = _message(resource)
    span = spans.add(
        trace_id=bytes.fromhex(told.trace_id),
        span_id=bytes.fromhex(share_span_id(trace_id=bytes.fromhex(told.trace_id))),
        name=f"kpatrol.share {told.task}",
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=told.began_us * 1000,
        end_time_unix_nano=max(told.at_us, told.began_us) * 1000,
    )
    _add(span, {"kpatrol.task": told.task, "kpatrol.round.id": str(told.round_id)})
    counts = ("planned", "sent", "unsent", "declared_missing", "batches", "rows", "lateness_p99_us", "cpu_us")
    _add(span, {f"kpatrol.share.{name}": getattr(told, name) for name in counts})
    if told.unsent or told.declared_missing:
        span.status.code = Status.STATUS_CODE_ERROR
        causes = (told.missing_cause, *told.unsent_causes, told.note)
        span.status.message = ", ".join(cause for cause in causes if cause)
    return bytes(request.SerializeToString())


def verdict(told: RoundVerdict) -> bytes:
    """An ExportTraceServiceRequest of a round's verdict, from its start to the word; findings are events."""
    request, spans = _message({"service.name": "kpatrol-judge"})
    digest = hashlib.blake2b(f"{told.round_id}/{told.revision}".encode(), digest_size=24).digest()
    span = spans.add(
        trace_id=digest[:16],
        span_id=digest[16:],
        name=f"kpatrol.round {told.task}",
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=told.start_us * 1000,
        end_time_unix_nano=max(told.at_us, told.start_us) * 1000,
    )
    _add(span, {"kpatrol.task": told.task, "kpatrol.round.id": str(told.round_id), "kpatrol.round.number": told.round})
    _add(span, {"kpatrol.round.revision": told.revision, "kpatrol.round.final": told.final})
    _add(span, {"kpatrol.verdict": told.verdict, "kpatrol.trust": told.trust.grade})
    counts = ("planned", "stored", "unsent", "declared_missing", "unexplained")
    _add(span, {f"kpatrol.round.{name}": getattr(told, name) for name in counts})
    _add(span, {_NAMES["sent"]: told.loss.sent, _NAMES["lost"]: told.loss.lost})
    for finding in told.findings:
        event = span.events.add(name=f"kpatrol.finding {finding.kind}", time_unix_nano=told.at_us * 1000)
        _add(event, {"kpatrol.element": finding.element, "kpatrol.direction": finding.direction})
        _add(event, {"kpatrol.sentence": finding.sentence, "kpatrol.loss.rate": finding.loss.rate})
    if told.verdict == "fail":
        span.status.code = Status.STATUS_CODE_ERROR
        span.status.message = told.why
    return bytes(request.SerializeToString())


def _message(resource: Mapping[str, Value]) -> tuple[ExportTraceServiceRequest, Any]:
    of_resource = ResourceSpans()
    of_resource.resource.attributes.extend(_attributes(resource))
    request = ExportTraceServiceRequest(resource_spans=[of_resource])
    scope = request.resource_spans[0].scope_spans.add()
    scope.scope.name = "kpatrol"
    return request, scope.spans


def _agent(head: BatchHead) -> Mapping[str, Value]:
    known = {
        "service.name": "kpatrol-agent",
        "service.version": head.version,
        _NAMES["agent"]: head.agent,
        _NAMES["cluster"]: head.cluster,
        _NAMES["src_node"]: head.node,
        _NAMES["src_pod"]: head.pod,
        _NAMES["src_zone"]: head.zone,
        _NAMES["src_rack"]: head.rack,
    }
    return {name: value for name, value in known.items() if value}


def _pattern(head: BatchHead, target: BatchTarget) -> Span:
    """What all requests to a target share."""
    trace_id = bytes.fromhex(head.trace_id)
    http = target.proto in (Proto.http, Proto.https)
    span = Span(
        trace_id=trace_id,
        parent_span_id=bytes.fromhex(share_span_id(trace_id=trace_id)),
        name="HTTP" if http else f"kpatrol.probe {target.proto.name}",
        kind=Span.SPAN_KIND_CLIENT,
    )
    of_round: dict[str, Value] = {
        _NAMES["task"]: head.task,
        _NAMES["round_id"]: str(head.round_id),
        _NAMES["round_number"]: head.round_number,
        _NAMES["incarnation"]: str(head.incarnation),
        _NAMES["batch_seq"]: head.batch_seq,
    }
    values = {_NAMES[name]: value(target) for name, value in _TARGET.items()}
    if target.proto in _TRANSPORT:
        values["network.transport"] = _TRANSPORT[target.proto]
    _add(span, of_round)
    _add(span, {name: value for name, value in values.items() if value})
    return span


def _add(to: Span | Span.Event, values: Mapping[str, Value]) -> None:
    to.attributes.extend(_attributes(values))


def _attributes(values: Mapping[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_any(value)) for name, value in values.items()]


def _any(value: Value) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(double_value=value) if isinstance(value, float) else AnyValue(string_value=value)
