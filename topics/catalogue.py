"""All topics, in one table. The dead-letter topics are derived from it, never listed by hand."""

from typing import Any

from topics import (
    agent_reports,
    alarms,
    cluster_events,
    mesh_members,
    otlp_spans,
    probe_receipts,
    probe_results,
    round_progress,
    round_verdicts,
    task_rounds,
)
from topics.spec import Topic

TOPICS: dict[str, Topic[Any]] = {
    module.TOPIC.name: module.TOPIC
    for module in (
        task_rounds,
        mesh_members,
        agent_reports,
        probe_results,
        probe_receipts,
        round_progress,
        round_verdicts,
        alarms,
        cluster_events,
        otlp_spans,
    )
}
