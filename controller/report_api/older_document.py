"""The block ``spec`` that reports had before: v0.2.0's and v0.2.1's keys, both spellings beside each other. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controller.report_api import figures
from controller.report_api import material as reading
from controller.report_api.material import AgentPart, Material
from controller.report_api.store import TargetLine
from controller.status import go_duration, rfc3339
from topics.round_verdicts import RoundVerdict

Json = dict[str, Any]

_TASK_KEYS = {
    "NetReach": "NetReachTask",
    "AppHttpHealthy": "HttpAppHealthyTask",
    "Netdns": "netDNSTask",
    "NetPatrol": "NetPatrolTask",
}
_LATENCIES = {
    "p50InMs": ("P50_inMs", "P50InMs"),
    "p90InMs": ("P90_inMs", "P90InMs"),
    "p95InMs": ("P95_inMs", "P95InMs"),
    "p99InMs": ("P99_inMs", "P99InMs"),
    # The older spelling of this one is wrong in kdoctor itself.
    "maxInMs": ("Max_inMx", "MaxInMs"),
    "minInMs": ("Min_inMs", "MinInMs"),
    "meanInMs": ("Mean_inMs", "MeanInMs"),
}


def spec(material: Material, parts: Sequence[AgentPart]) -> Json:
    """The whole block."""
    verdict = material.verdict
    assert verdict is not None
    return begun(material) | {
        "FailedRoundNumber": list(material.failed_rounds) or None,
        "Report": [_report(material, part, verdict) for part in parts],
        "ReportRoundNumber": verdict.round,
        "RoundNumber": verdict.round,
    }


def begun(material: Material) -> Json:
    """The block of a task of which no round is over."""
    return {
        "FailedRoundNumber": None,
        "FinishedRoundNumber": material.done_rounds,
        "Report": [],
        "ReportRoundNumber": 0,
        "RoundNumber": material.done_rounds,
        "Status": "Finished" if material.finished else "NotFinished",
        "TaskName": material.task.partition("/")[2],
        "TaskType": material.kind,
    }


def _report(material: Material, part: AgentPart, verdict: RoundVerdict) -> Json:
    key = _TASK_KEYS[material.kind]
    whole: Json = {
        "TaskName": material.task,
        "TaskType": material.kind,
        "RoundNumber": verdict.round,
        "RoundResult": "succeed" if part.succeed else "fail",
        "NodeName": part.account.node,
        "PodName": part.pod,
        "StartTimeStamp": rfc3339(part.start_us),
        "EndTimeStamp": rfc3339(part.end_us),
        "RoundDuration": go_duration(max(0, part.end_us - part.start_us)),
        "ReportType": "agent test report",
        key: _task(material, part, verdict),
        f"{key}Spec": material.spec,
    }
    if part.reason:
        whole["FailedReason"] = part.reason
    return whole


def _task(material: Material, part: AgentPart, verdict: RoundVerdict) -> Json:
    account, span_us = part.account, max(1, part.end_us - part.start_us)
    resource = {name[0].upper() + name[1:]: text for name, text in figures.resources(account, span_us=span_us).items()}
    load = reading.running_load(material, at_us=part.end_us)
    whole: Json = {
        "TargetType": figures.target_type(material.kind),
        "TargetNumber": part.targets,
        "Succeed": part.succeed,
        "MaxCPU": resource["MaxCPU"],
        "MaxMemory": resource["MaxMemory"],
        "SystemResource": resource,
        "TotalRunningLoad": {name[0].upper() + name[1:]: value for name, value in load.items()},
        "Detail": [_detail(line, material, verdict) for line in part.lines],
    }
    if part.reason:
        whole["FailureReason"] = part.reason
    if material.kind == "Netdns":
        return {_lower(name): value for name, value in whole.items()}
    return whole


def _lower(name: str) -> str:
    return name[0].lower() + name[1:]


def _detail(line: TargetLine, material: Material, verdict: RoundVerdict) -> Json:
    reason = reading.target_reason(line, verdict)
    whole: Json = {
        "TargetName": line.target,
        "Succeed": not reason,
        "SucceedRate": figures.succeed_rate(line),
        "MeanDelay": figures.latencies(line)["meanInMs"],
        "Metrics": _metrics(line, material),
    }
    if reason:
        whole["FailureReason"] = reason
    if material.kind == "Netdns":
        return whole | {
            "TargetServer": figures.server_of(line),
            "TargetProtocol": figures.dns_protocol(material.spec),
        }
    return whole | {
        "TargetUrl": figures.url_of(line, material.kind, material.spec),
        "TargetMethod": figures.http_method(material.spec) if line.protocol in ("http", "https") else "",
    }


def _metrics(line: TargetLine, material: Material) -> Json:
    delays = figures.latencies(line)
    whole: Json = {
        "StartTime": rfc3339(line.first_us) if line.finished else None,
        "EndTime": rfc3339(line.last_us) if line.finished else None,
        "Duration": go_duration(figures.duration_us(line)),
        "RequestCounts": line.finished,
        "SuccessCounts": line.ok,
        "TPS": figures.tps(line),
        "Errors": dict(line.errors),
        "ExistsNotSendRequests": line.unsent > 0,
        "Latencies": {older: delays[name] for name, both in _LATENCIES.items() for older in both},
    }
    if material.kind == "Netdns":
        return whole | {
            "TargetDomain": figures.dns_domain(material.spec),
            "DNSServer": figures.server_of(line),
            "DNSMethod": figures.dns_protocol(material.spec),
            "FailedCounts": line.finished - line.ok,
            "ReplyCode": figures.reply_codes(line),
        }
    return whole | {"TotalDataSize": f"{line.bytes} byte", "StatusCodes": figures.status_codes(line)}
