"""A task's conditions: what no check of a single object can say. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ACCEPTED, AGENTS_READY, RESOLVED = "Accepted", "AgentsReady", "TargetsFound"


def accepted(problem: str) -> dict[str, Any]:
    """Whether the controller can run it; ``problem`` is empty when it can."""
    return _condition(ACCEPTED, not problem, "Refused" if problem else "Valid", problem)


def of_status(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conditions that follow from a status."""
    reasons = [str(reason) for reason in status.get("reasons", ())]
    missing = [reason.removeprefix("not found: ") for reason in reasons if reason.startswith("not found: ")]
    waiting = [reason for reason in reasons if reason.startswith("waiting for agents")]
    return [
        accepted(""),
        _condition(AGENTS_READY, not waiting, "Waiting" if waiting else "Ready", "; ".join(waiting)),
        _condition(RESOLVED, not missing, "NotFound" if missing else "Found", "; ".join(missing)),
    ]


def _condition(kind: str, good: bool, reason: str, message: str) -> dict[str, Any]:
    return {"type": kind, "status": "True" if good else "False", "reason": reason, "message": message[:4096]}


def dated(wanted: Sequence[Mapping[str, Any]], *, known: Sequence[Mapping[str, Any]], at: str) -> list[dict[str, Any]]:
    """With the time of the last change of each: the known one's where its status is the same."""
    old = {condition["type"]: condition for condition in known}
    dated_ones = []
    for condition in wanted:
        before = old.get(condition["type"])
        same = before is not None and before["status"] == condition["status"]
        since = before["lastTransitionTime"] if same and before is not None else at
        dated_ones.append({**condition, "lastTransitionTime": since})
    return dated_ones
