"""The schema of a task's status: kdoctor's fields, and what :mod:`controller.status` writes beyond them."""

from __future__ import annotations

from typing import Any

_TEXT: dict[str, Any] = {"type": "string"}
_WHOLE: dict[str, Any] = {"type": "integer", "format": "int64"}
_TRUTH: dict[str, Any] = {"type": "boolean"}
_TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
_TEXTS: dict[str, Any] = {"type": "array", "items": _TEXT}
_VERDICTS = ("succeed", "fail", "unknown")


def _said(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description} | schema


HISTORY_ITEM: dict[str, Any] = {
    "type": "object",
    "required": ["status", "roundNumber", "startTimeStamp", "deadLineTimeStamp"],
    "properties": {
        "status": {"type": "string", "enum": ["notstarted", "ongoing", *_VERDICTS]},
        "roundNumber": _WHOLE,
        "startTimeStamp": _TIME,
        "deadLineTimeStamp": _TIME,
        "endTimeStamp": _TIME,
        "duration": _said(_TEXT, "As Go prints it."),
        "expectedActorNumber": _said(_WHOLE, "Agents of the round."),
        "expectedRequests": _said(_WHOLE, "Requests all agents together owed."),
        "succeedAgentNodeList": _TEXTS,
        "failedAgentNodeList": _TEXTS,
        "notReportAgentNodeList": _TEXTS,
        "failureReason": _TEXT,
        "why": _said(_TEXT, "The judge's sentence."),
        "revision": _said(_WHOLE, "Number of the verdict; a later one replaces an earlier one."),
        "final": _said(_TRUTH, "Nothing more can come that would change the verdict."),
    },
}
RESOURCE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "runtimeName": _said(_TEXT, "The workload that runs the task."),
        "runtimeType": {"type": "string", "enum": ["DaemonSet", "Deployment"]},
        "serviceNameV4": _TEXT,
        "serviceNameV6": _TEXT,
        "runtimeStatus": {"type": "string", "enum": ["creating", "created", "deleted"]},
    },
}
CONDITION: dict[str, Any] = {
    "type": "object",
    "required": ["type", "status", "lastTransitionTime", "reason", "message"],
    "properties": {
        "type": _TEXT,
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "observedGeneration": _WHOLE,
        "lastTransitionTime": _TIME,
        "reason": _TEXT,
        "message": _TEXT,
    },
}
CARRIED: dict[str, Any] = {
    "type": "object",
    "properties": {"firstSeenUs": _WHOLE, "lastNumber": _WHOLE, "lastStartUs": _WHOLE},
}
STATUS: dict[str, Any] = {
    "type": "object",
    "description": "What became of it; written by the controller.",
    "properties": {
        "expectedRound": _said(_WHOLE, "Rounds it shall have; -1 = for ever."),
        "doneRound": _said(_WHOLE, "Rounds that are over."),
        "finish": _said(_TRUTH, "All rounds are over."),
        "finishTime": _TIME,
        "lastRoundStatus": {"type": "string", "enum": list(_VERDICTS)},
        "skippedRound": _said(_WHOLE, "Start times that passed while no round could start."),
        "firstSeenTimeStamp": _said(_TIME, "When agents were there to run it; the schedule counts from here."),
        "reasons": _said(_TEXTS, "What a reader should know beside the verdicts."),
        "history": _said({"type": "array", "items": HISTORY_ITEM}, "The newest rounds, newest first."),
        "resource": RESOURCE,
        "conditions": {
            "type": "array",
            "items": CONDITION,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
        "kpatrol": _said(CARRIED, "From which a restarted controller goes on."),
    },
}
