"""The service's own metrics and spans over OTLP, by the OpenTelemetry SDK. Off unless OTEL_EXPORTER_OTLP_* names where.

The code uses the API, which does nothing without an SDK; `start` alone picks SDK and exporters, and the SDK reads its
own variables (OTEL_EXPORTER_OTLP_ENDPOINT, …_HEADERS, OTEL_METRIC_EXPORT_INTERVAL, OTEL_RESOURCE_ATTRIBUTES). What is
shown on /metrics goes out under names that a Prometheus reader of OTLP turns into the same ones; durations are
histograms of the semantic conventions (db.client.operation.duration, messaging.process.duration), once for a flush.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import get_args

from opentelemetry import metrics as metrics_api
from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Histogram, Observation
from opentelemetry.trace import SpanKind

from streams.config import Signal
from streams.metrics import Counter, Gauge, Metrics

SCOPE = "kpatrol.streams"
# Seconds; an insert takes 25 to 40 ms whatever its size.
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def start(*, service: str, signals: Collection[Signal], metrics: Metrics) -> None:
    """Let these signals go out from now on; they are flushed when the process ends."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": f"kpatrol-{service}", "service.namespace": "kpatrol"})
    if "metrics" in signals:
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        metrics_api.set_meter_provider(MeterProvider(metric_readers=[reader], resource=resource))
        observe(metrics)
    if "traces" in signals:
        spans = TracerProvider(resource=resource)
        spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(spans)


def observe(metrics: Metrics) -> None:
    """Counters and gauges of /metrics as observable instruments of the present meter provider."""
    meter = metrics_api.get_meter(SCOPE)
    for counter in get_args(Counter):
        meter.create_observable_counter(otlp_name(counter), callbacks=[_observer(metrics, counter)])
    for gauge in get_args(Gauge):
        meter.create_observable_gauge(otlp_name(gauge), callbacks=[_observer(metrics, gauge)])


def otlp_name(name: Counter | Gauge) -> str:
    """kpatrol_rows_stored_total → kpatrol.rows_stored."""
    return name.removesuffix("_total").replace("_", ".", 1)


def _observer(metrics: Metrics, name: Counter | Gauge) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: [Observation(value, labels) for value, labels in metrics.observed(name)]


@contextmanager
def inserting(*, table: str, rows: int) -> Iterator[None]:
    """A span and a duration of one insert."""
    attributes = {
        "db.system.name": "clickhouse",
        "db.operation.name": "INSERT",
        "db.collection.name": table,
    }
    more = {"db.operation.batch.size": rows}
    with _measured(f"INSERT {table}", SpanKind.CLIENT, "db.client.operation.duration", attributes, more):
        yield


@contextmanager
def processing(*, topic: str, group: str, records: int) -> Iterator[None]:
    """A span and a duration of what is done with the records of one take."""
    attributes = {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.destination.name": topic,
        "messaging.consumer.group.name": group,
    }
    more = {"messaging.batch.message_count": records}
    with _measured(f"process {topic}", SpanKind.CONSUMER, "messaging.process.duration", attributes, more):
        yield


@lru_cache
def _histogram(name: str) -> Histogram:
    # Once: the API keeps every instrument that was ever made before an SDK came.
    return metrics_api.get_meter(SCOPE).create_histogram(name, unit="s", explicit_bucket_boundaries_advisory=BOUNDS_S)


@contextmanager
def _measured(
    name: str, kind: SpanKind, histogram: str, attributes: Mapping[str, str], of_span: Mapping[str, int]
) -> Iterator[None]:
    tracer, duration = trace.get_tracer(SCOPE), _histogram(histogram)
    began_s = time.monotonic()
    failed: dict[str, str] = {}
    try:
        with tracer.start_as_current_span(name, kind=kind, attributes={**attributes, **of_span}):
            yield
    except Exception as error:
        failed = {"error.type": type(error).__name__}
        raise
    finally:
        duration.record(time.monotonic() - began_s, {**attributes, **failed})
