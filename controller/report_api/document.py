"""The report under today's keys, a summary and the worst targets before it. Pure; the older keys: older_document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controller.report_api import figures, older_document
from controller.report_api import material as reading
from controller.report_api.material import API_VERSION, KIND, AgentPart, Material
from controller.report_api.store import TargetLine
from controller.status import go_duration, rfc3339
from topics.round_verdicts import Loss, RoundVerdict

Json = dict[str, Any]

WORST_SHOWN = 10
_SPEC_KEYS = {"NetReach": "netReach", "AppHttpHealthy": "appHttpHealthy", "Netdns": "netDns", "NetPatrol": "netPatrol"}
_TASK_KEYS = {
    "NetReach": "taskNetReach",
    "AppHttpHealthy": "taskAppHealthy",
    "Netdns": "taskNetDns",
    "NetPatrol": "taskNetPatrol",
}


def document(material: Material) -> Json:
    """The whole object."""
    parts = reading.agent_parts(material)
    begun = material.verdict is not None
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": metadata(material),
        "overview": _overview(material, parts) if begun else {"why": "no round is over yet"},
        "report": {"latestRoundReport": [_round(material, part) for part in parts]} if begun else {},
        "status": {
            "totalRoundNumber": material.total_rounds,
            "roundFinishedNumber": material.done_rounds,
            "status": "Finished" if material.finished else "NotFinished",
            "roundNumber": material.verdict.round if material.verdict else 0,
        },
        "task": {
            "name": material.task.partition("/")[2],
            "kind": material.kind,
            "spec": {_SPEC_KEYS[material.kind]: material.spec},
        },
        "spec": older_document.spec(material, parts) if begun else older_document.begun(material),
    }


def metadata(material: Material) -> Json:
    """Name, time and identity; labels to select by."""
    return {
        "name": material.name,
        "uid": material.uid,
        "creationTimestamp": rfc3339(material.created_us) if material.created_us else None,
        "labels": labels(material.task),
    }


def labels(task: str) -> dict[str, str]:
    """What a report can be selected by; a name too long for a label is left out."""
    kind, _, name = task.partition("/")
    short = {"kpatrol.io/task": name} if len(name) <= 63 else {}
    return {"kpatrol.io/kind": kind} | short


def _overview(material: Material, parts: Sequence[AgentPart]) -> Json:
    verdict = material.verdict
    assert verdict is not None
    shown = material.lines[:WORST_SHOWN] if not material.offset else []
    return {
        "result": verdict.verdict,
        "why": verdict.why,
        "revision": verdict.revision,
        "final": verdict.final,
        "requests": {
            "planned": verdict.planned,
            "stored": verdict.stored,
            "unsent": verdict.unsent,
            "missing": verdict.declared_missing,
            "unexplained": verdict.unexplained,
            "succeeded": verdict.requests.ok,
            "failed": verdict.requests.failed,
        },
        "packetLoss": _loss(verdict.loss),
        "latencies": _round_latencies(verdict),
        "trust": {"grade": verdict.trust.grade, "reasons": list(verdict.trust.reasons)},
        "agents": {
            "expected": len(verdict.accounts),
            "succeeded": sum(part.succeed for part in parts),
            "failed": list(verdict.failed_nodes),
            "notReported": list(verdict.not_reported_nodes),
        },
        "findings": [
            {"element": f.element, "direction": f.direction, "kind": f.kind, "sentence": f.sentence}
            for f in verdict.findings
        ],
        "worstTargets": [_worst(line, verdict) for line in shown],
        "targets": _shown(material),
    }


def _shown(material: Material) -> Json:
    """How much of the targets stands here. With none here the single requests of the round are no longer kept."""
    shown: Json = {"first": material.offset, "shown": len(material.lines), "continue": ""}
    if material.next_offset:
        shown["continue"] = str(material.next_offset)
    if not material.lines and material.verdict is not None and material.verdict.stored:
        shown["note"] = "the single requests of this round are no longer kept; the totals above are"
    return shown


def _loss(loss: Loss) -> Json:
    return {"sent": loss.sent, "lost": loss.lost, "rate": loss.rate, "low": loss.low, "high": loss.high}


def _worst(line: TargetLine, verdict: RoundVerdict) -> Json:
    tried = max(1, line.finished + line.unsent)
    return {
        "node": line.node,
        "target": line.target,
        "succeedRate": round(line.ok / tried, 6),
        "meanInMs": figures.ms(line.mean_us),
        "p99InMs": figures.ms(line.quantiles_us[3]) if line.ok else 0.0,
        "packetsLost": line.packets_lost,
        "packetsSent": line.packets_sent,
        "reason": reading.target_reason(line, verdict),
    }


def _round_latencies(verdict: RoundVerdict) -> Json:
    delay = verdict.sent_delay
    values = {"p50InMs": delay.p50_us, "p90InMs": delay.p90_us, "p99InMs": delay.p99_us}
    values |= {"maxInMs": delay.max_us, "meanInMs": delay.mean_us}
    return {name: figures.ms(value) for name, value in values.items()}


def _round(material: Material, part: AgentPart) -> Json:
    verdict = material.verdict
    assert verdict is not None
    whole: Json = {
        "roundNumber": verdict.round,
        "roundResult": "succeed" if part.succeed else "fail",
        "nodeName": part.account.node,
        "podName": part.pod,
    }
    if part.reason:
        whole["reasonsForFailure"] = part.reason
    return whole | {
        "roundStartTimeStamp": rfc3339(part.start_us),
        "roundEndTimeStamp": rfc3339(part.end_us),
        "roundDuration": go_duration(max(0, part.end_us - part.start_us)),
        _TASK_KEYS[material.kind]: _task(material, part),
    }


def _task(material: Material, part: AgentPart) -> Json:
    verdict, account = material.verdict, part.account
    assert verdict is not None
    span_us = max(1, part.end_us - part.start_us)
    whole: Json = {
        "targetType": figures.target_type(material.kind),
        "targetNumber": part.targets,
        "roundSucceed": part.succeed,
        "systemResource": figures.resources(account, span_us=span_us),
        "runningLoadTotal": reading.running_load(material, at_us=part.end_us),
        "requests": {
            "planned": account.planned,
            "stored": account.stored,
            "unsent": account.unsent,
            "missing": account.declared_missing,
            "unexplained": account.unexplained,
        },
        "roundTaskDetail": [_detail(line, material, verdict) for line in part.lines],
    }
    if part.reason:
        whole["reasonsForFailure"] = part.reason
    return whole


def _detail(line: TargetLine, material: Material, verdict: RoundVerdict) -> Json:
    reason = reading.target_reason(line, verdict)
    whole: Json = {"name": line.target, "requestSucceed": not reason}
    if material.kind == "Netdns":
        whole |= {"requestServer": figures.server_of(line), "protocol": figures.dns_protocol(material.spec)}
    else:
        whole |= {
            "url": figures.url_of(line, material.kind, material.spec),
            "method": figures.http_method(material.spec) if line.protocol in ("http", "https") else "",
        }
    if line.size:
        whole["packetSizeInByte"] = line.size
    # kdoctor calls it failureReason in NetReach and reasonsForFailure elsewhere; whoever looks for either finds it.
    if reason:
        whole |= {"failureReason": reason, "reasonsForFailure": reason}
    elif material.kind == "Netdns":
        whole["reasonsForFailure"] = None
    return whole | {
        "requestMeanDelay": figures.ms(line.mean_us),
        "requestSucceedRate": figures.succeed_rate(line),
        "requestTargetMetrics": _metrics(line, material),
    }


def _metrics(line: TargetLine, material: Material) -> Json:
    whole: Json = {
        "requestStartTime": rfc3339(line.first_us) if line.finished else None,
        "requestEndTime": rfc3339(line.last_us) if line.finished else None,
        "requestDuration": go_duration(figures.duration_us(line)),
        "requestCounts": line.finished,
        "successCounts": line.ok,
        "tps": figures.tps(line),
        "errors": dict(line.errors),
        "latencies": figures.latencies(line),
        "existsNotSendRequests": line.unsent > 0,
        "unsentCounts": line.unsent,
        "packetsSent": line.packets_sent,
        "packetsLost": line.packets_lost,
    }
    if material.kind == "Netdns":
        return whole | {
            "domain": figures.dns_domain(material.spec),
            "server": figures.server_of(line),
            "method": figures.dns_protocol(material.spec),
            "failedCounts": line.finished - line.ok,
            "replyCode": figures.reply_codes(line),
        }
    return whole | {"totalDataSize": f"{line.bytes} byte", "statusCodes": figures.status_codes(line)}
