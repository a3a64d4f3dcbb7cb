"""What the agent counts about itself, as Prometheus text. A name that is not in the table fails the type check."""

from typing import Literal, get_args

Metric = Literal[
    # Recorded requests that Kafka has acknowledged.
    "rows_acknowledged_total",
    # Recorded requests that will never reach Kafka.
    "rows_lost_total",
    # Batches of receipts put on their way.
    "receipt_batches_total",
    # Rounds whose account is in Kafka.
    "rounds_finished_total",
    # Rounds under load now.
    "rounds_running",
    # Batches not yet acknowledged by Kafka, and their bytes on disk.
    "spool_batches",
    "spool_bytes",
    # Sends to Kafka that had to be repeated by us.
    "publish_repeats_total",
    # 1 while Kafka acknowledges what we send.
    "kafka_reachable",
    # Own CPU time, CPU time withheld by the cgroup, memory, drops in own sockets.
    "cpu_us_total",
    "throttled_us_total",
    "resident_bytes",
    "socket_drops_total",
]
_PREFIX = "kpatrol_agent_"


class Metrics:
    """Values by name; all begin at zero."""

    def __init__(self) -> None:
        self._values: dict[Metric, int] = dict.fromkeys(get_args(Metric), 0)

    def add(self, name: Metric, amount: int = 1) -> None:
        """Count up."""
        self._values[name] += amount

    def set(self, name: Metric, value: int) -> None:
        """Set a gauge, or a counter that is kept elsewhere."""
        self._values[name] = value

    def text(self) -> str:
        """All of them in Prometheus' text format."""
        lines = []
        for name, value in self._values.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# TYPE {_PREFIX}{name} {kind}", f"{_PREFIX}{name} {value}"]
        return "\n".join(lines) + "\n"
