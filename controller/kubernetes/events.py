"""What is said on a task as Kubernetes Events: from a status and the one before it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_REASONS = {"succeed": "RoundSucceeded", "fail": "RoundFailed", "unknown": "RoundUnknown"}
MESSAGE_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An event: ``type`` is Normal or Warning, ``reason`` one word, ``message`` a sentence."""

    type: str
    reason: str
    message: str


def said(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[Said]:
    """The events between two statuses of one task: rounds that began or closed, things not found, the end."""
    old = before or {}
    events = [*_rounds(old.get("history", ()), after.get("history", ()))]
    known = set(old.get("reasons", ()))
    events += [
        Said(type="Warning", reason="NotFound", message=reason)
        for reason in after.get("reasons", ())
        if reason.startswith("not found: ") and reason not in known
    ]
    if after.get("finish") and not old.get("finish"):
        message = f"{after['doneRound']} rounds done, the last: {after.get('lastRoundStatus', 'unknown')}"
        events.append(Said(type="Normal", reason="Finished", message=message))
    return [Said(type=e.type, reason=e.reason, message=e.message[:MESSAGE_MAX]) for e in events]


def _rounds(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[Said]:
    known = {item["roundNumber"]: item for item in before}
    events = []
    for item in reversed(after):
        old = known.get(item["roundNumber"])
        if old is None:
            message = f"round {item['roundNumber']}: {item.get('expectedRequests', 0)} requests"
            events.append(
                Said(type="Normal", reason="RoundScheduled", message=f"{message} from {item['startTimeStamp']}")
            )
        changed = old is None or (old["status"], old.get("revision")) != (item["status"], item.get("revision"))
        if changed and item["status"] in _REASONS:
            why = item.get("failureReason") or item.get("why", "")
            number = f"round {item['roundNumber']}" + (
                f", revision {item['revision']}" if item.get("revision", 0) > 1 else ""
            )
            good = item["status"] == "succeed"
            events.append(
                Said(
                    type="Normal" if good else "Warning",
                    reason=_REASONS[item["status"]],
                    message=f"{number}: {why or item['status']}",
                )
            )
    return events


def body(*, event: Said, task: Mapping[str, Any], at: str, reporter: str) -> dict[str, Any]:
    """An Event on a custom resource; ``at`` is RFC 3339. Those of objects without namespace live in `default`."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{task['metadata']['name'][:200]}.", "namespace": "default"},
        "involvedObject": {
            "apiVersion": task["apiVersion"],
            "kind": task["kind"],
            "name": task["metadata"]["name"],
            "uid": task["metadata"]["uid"],
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message,
        "count": 1,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "reportingComponent": "kpatrol-controller",
        "reportingInstance": reporter,
        "source": {"component": "kpatrol-controller"},
    }
