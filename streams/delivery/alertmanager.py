"""Alertmanager's API v2: POST /api/v2/alerts. Source: prometheus/alertmanager, api/v2/openapi.yaml (postableAlerts).

An alert is known by its labels: those that may change while an alarm is open would make a second alert of it. Of ours
only the severity may, so an update also ends the alert of the other severity; ending one that never was does nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streams.delivery.base import Doors, idempotency_key, post, rfc3339, state
from topics.alarms import AlarmRecord

# Alertmanager ends what is not told again; an alarm of ours stays open until it is closed.
OPEN_FOR_US = 30 * 86_400 * 1_000_000


def alerts(record: AlarmRecord, *, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """What is posted for a transition."""
    ends = record.at_us if state(record) == "closed" else record.at_us + OPEN_FOR_US
    told = [_alert(record, severity=record.severity, ends_us=ends, labels=labels)]
    if state(record) != "opened":
        other = "warning" if record.severity == "critical" else "critical"
        told.append(_alert(record, severity=other, ends_us=record.at_us, labels=labels))
    return told


def _alert(record: AlarmRecord, *, severity: str, ends_us: int, labels: Mapping[str, str]) -> dict[str, Any]:
    own = {
        "alertname": "KpatrolAlarm",
        "alarm_id": record.alarm_id,
        "task": record.task,
        "element": record.element,
        "direction": record.direction,
        "kind": record.kind,
        "severity": severity,
    }
    return {
        "labels": {name: value for name, value in {**own, **labels}.items() if value},
        "annotations": {"summary": record.sentence, "transition": idempotency_key(record)},
        "startsAt": rfc3339(record.since_us),
        "endsAt": rfc3339(ends_us),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Alertmanager:
    """One Alertmanager by its base URL."""

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)

    async def deliver(self, record: AlarmRecord, doors: Doors) -> None:
        """POST it."""
        body = json.dumps(alerts(record, labels=self.labels), ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json", **self.headers}
        await post(url=f"{self.url.rstrip('/')}/api/v2/alerts", body=body, headers=headers, doors=doors)
