"""Everything that moves is counted here, under names that mypy knows, and shown as Prometheus text."""

import threading
from typing import Literal

Counter = Literal[
    # Records taken from Kafka, by topic.
    "kpatrol_records_total",
    # Rows written to ClickHouse, by table.
    "kpatrol_rows_stored_total",
    # Batches recognised as already stored and passed over.
    "kpatrol_repeated_batches_total",
    # Records sent to a dead-letter topic, by topic.
    "kpatrol_dead_letters_total",
    # Attempts at ClickHouse that failed and were tried again, by what was tried.
    "kpatrol_clickhouse_retries_total",
    # Inserts that ClickHouse has acknowledged, by table.
    "kpatrol_inserts_total",
    # Seconds spent in those inserts.
    "kpatrol_insert_seconds_total",
    # Times the watchdog set a parked consumer going again.
    "kpatrol_watchdog_unparked_total",
    # Requests of OTLP spans told to whom they are for, by kind (requests, shares, verdicts), and those refused.
    "kpatrol_span_requests_total",
    "kpatrol_spans_refused_total",
    # Attempts at delivering an alarm's transition, by outcome (ok, retry, given_up).
    "kpatrol_hook_deliveries_total",
]
Gauge = Literal[
    # Seconds for which the service has been waiting for something outside itself (ClickHouse away).
    "kpatrol_held_seconds",
    # Seconds by which the event loop was late at the watchdog's last look.
    "kpatrol_loop_lag_seconds",
    # Records between the committed offset and the end of the partition, by topic and partition.
    "kpatrol_consumer_lag_records",
]
_Key = tuple[str, tuple[tuple[str, str], ...]]


class Metrics:
    """Counters and gauges of one process; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[_Key, float] = {}
        self._gauges: dict[_Key, float] = {}

    def add(self, name: Counter, value: float = 1, **labels: str) -> None:
        """Count `value` more."""
        key = (name, tuple(sorted(labels.items())))
        with self._lock:
            self._counters[key] = self._counters.get(key, 0) + value

    def set(self, name: Gauge, value: float, **labels: str) -> None:
        """The gauge's present value."""
        with self._lock:
            self._gauges[(name, tuple(sorted(labels.items())))] = value

    def value(self, name: Counter | Gauge, **labels: str) -> float:
        """The present value, 0 where nothing was counted."""
        key = (name, tuple(sorted(labels.items())))
        with self._lock:
            return self._counters.get(key, self._gauges.get(key, 0))

    def observed(self, name: Counter | Gauge) -> list[tuple[float, dict[str, str]]]:
        """Present values of a name, each with its labels."""
        with self._lock:
            values = {**self._counters, **self._gauges}
        return [(value, dict(labels)) for (known, labels), value in values.items() if known == name]

    def render(self) -> str:
        """Prometheus text format, version 0.0.4."""
        with self._lock:
            kinds = (("counter", dict(self._counters)), ("gauge", dict(self._gauges)))
        lines: list[str] = []
        for kind, values in kinds:
            seen = ""
            for (name, labels), value in sorted(values.items()):
                if name != seen:
                    lines.append(f"# TYPE {name} {kind}")
                    seen = name
                lines.append(
                    f"{name}{_labels(labels)} {value:g}" if value % 1 else f"{name}{_labels(labels)} {value:.0f}"
                )
        return "\n".join([*lines, ""])


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    escaped = (f'{k}="{_escape(v)}"' for k, v in labels)
    return "{" + ",".join(escaped) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
