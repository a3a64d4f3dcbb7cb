"""A task's status document, in the shape that kdoctor's custom resources have. Pure.

Beyond kdoctor's fields: ``skippedRound``, ``firstSeenTimeStamp``, ``reasons``; in the history ``why``, ``revision``,
``final``; and the member ``kpatrol``, from which a restarted controller goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from controller.members import GROUP, Epoch
from controller.observed import Observed, TaskMemory
from controller.tasks import NetPatrol, Task
from controller.tasks.schema import to_plain
from controller.verdicts import Judged
from topics.task_rounds import RoundScheduled

HISTORY_MAX = 10
# A round without a verdict this long after its deadline is closed as unknown; a later verdict still replaces that.
VERDICT_WAIT_US = 30_000_000

Document = Mapping[str, Any]
_SHARED: Mapping[str, str] = {"runtimeName": "kpatrol-agent", "runtimeType": "DaemonSet", "runtimeStatus": "created"}


def document(
    *,
    task: Task,
    observed: Observed,
    now_us: int,
    rounds: int,
    expected_agents: int,
    group: str = GROUP,
    resource: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The task with its status; ``rounds`` is how many it shall have, -1 for ever, ``resource`` its own agents."""
    uid = task.metadata.uid
    memory = observed.memory.get(uid)
    known = observed.rounds.get(uid, {})
    verdicts = observed.judged.get(uid, {})
    items = {number: _item(known[number], verdicts.get(number), observed, now_us) for number in known}
    history = _history(items, memory)
    last = max([0, *known, memory.last_number if memory else 0])
    done = last - sum(1 for item in items.values() if item["status"] in ("notstarted", "ongoing"))
    status: dict[str, Any] = {
        "expectedRound": rounds,
        "doneRound": done,
        "finish": rounds >= 0 and done >= rounds,
        "history": history,
        "skippedRound": memory.skipped if memory else 0,
        "resource": dict(resource or _SHARED),
        "reasons": _reasons(task, memory, known, observed.newest(group), expected_agents, own=resource is not None),
    }
    closed = [item for item in history if "endTimeStamp" in item]
    if closed:
        status["lastRoundStatus"] = closed[0]["status"]
    if status["finish"] and closed:
        status["finishTime"] = closed[0]["endTimeStamp"]
    if memory is not None:
        status["firstSeenTimeStamp"] = rfc3339(memory.first_seen_us)
    return {
        "apiVersion": task.API_VERSION,
        "kind": task.KIND,
        "metadata": to_plain(task.metadata),
        "spec": to_plain(task.spec),
        "status": status,
        "kpatrol": _carried(memory),
    }


def memory_from(written: Document) -> tuple[str, TaskMemory] | None:
    """(uid, memory) of a document written earlier, or None where it holds none."""
    carried = written.get("kpatrol") or {}
    if "firstSeenUs" not in carried:
        return None
    history = tuple(item for item in written["status"]["history"] if "endTimeStamp" in item)
    memory = TaskMemory(
        first_seen_us=carried["firstSeenUs"],
        skipped=written["status"]["skippedRound"],
        last_number=carried["lastNumber"],
        last_start_us=carried["lastStartUs"],
        history=history,
    )
    return written["metadata"]["uid"], memory


def _carried(memory: TaskMemory | None) -> dict[str, int]:
    if memory is None:
        return {}
    return {
        "firstSeenUs": memory.first_seen_us,
        "lastNumber": memory.last_number,
        "lastStartUs": memory.last_start_us,
    }


def _history(items: Mapping[int, dict[str, Any]], memory: TaskMemory | None) -> list[Mapping[str, Any]]:
    merged: dict[int, Mapping[str, Any]] = {item["roundNumber"]: item for item in memory.history} if memory else {}
    merged.update(items)
    return [merged[number] for number in sorted(merged, reverse=True)][:HISTORY_MAX]


def closed(round_: RoundScheduled, verdict: Judged | None, *, cancelled: bool, now_us: int) -> bool:
    """True when nothing of the round is waited for any more."""
    return verdict is not None or cancelled or now_us >= round_.deadline_us + VERDICT_WAIT_US


def _item(round_: RoundScheduled, verdict: Judged | None, observed: Observed, now_us: int) -> dict[str, Any]:
    item: dict[str, Any] = {
        "roundNumber": round_.number,
        "status": "notstarted" if now_us < round_.start_us else "ongoing",
        "startTimeStamp": rfc3339(round_.start_us),
        "deadLineTimeStamp": rfc3339(round_.deadline_us),
        "succeedAgentNodeList": list(verdict.succeeded_nodes) if verdict else [],
        "failedAgentNodeList": list(verdict.failed_nodes) if verdict else [],
        "notReportAgentNodeList": list(verdict.not_reported_nodes) if verdict else [],
        "expectedRequests": round_.planned,
    }
    cancelled = round_.round_id in observed.cancelled
    if not closed(round_, verdict, cancelled=cancelled, now_us=now_us):
        return item
    end_us = verdict.at_us if verdict else round_.deadline_us
    item |= {
        "status": verdict.verdict if verdict else "unknown",
        "endTimeStamp": rfc3339(end_us),
        "duration": go_duration(max(0, end_us - round_.start_us)),
        "expectedActorNumber": round_.members.count,
        "why": verdict.why if verdict else ("cancelled" if cancelled else "no verdict came"),
        "revision": verdict.revision if verdict else 0,
        "final": verdict.final if verdict else False,
    }
    if item["status"] != "succeed":
        item["failureReason"] = _failure(verdict, item["why"])
    return item


def _failure(verdict: Judged | None, why: str) -> str:
    if verdict is not None and verdict.failed_nodes:
        return f"some agents failed: {why}"
    if verdict is not None and verdict.not_reported_nodes:
        return f"some agents did not report: {why}"
    return why


def _reasons(
    task: Task,
    memory: TaskMemory | None,
    known: Mapping[int, RoundScheduled],
    epoch: Epoch | None,
    expected_agents: int,
    *,
    own: bool,
) -> list[str]:
    """What a reader should know beside the verdicts."""
    reasons = []
    if epoch is None:
        many = f"at least {expected_agents} must report" if expected_agents else "those of its own are not ready"
        reasons.append(f"waiting for agents: {many}")
    if memory is not None and memory.skipped:
        reasons.append(f"{memory.skipped} start times passed while no round could start")
    if not isinstance(task, NetPatrol) and task.spec.agent_spec is not None and not own:
        reasons.append("agentSpec: no agents of its own are made; the shared agents run it")
    if known:
        reasons += [f"not found: {what}" for what in known[max(known)].unresolved]
    return reasons


def rfc3339(at_us: int) -> str:
    """UTC, to the second."""
    return datetime.fromtimestamp(at_us // 1_000_000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def go_duration(duration_us: int) -> str:
    """A duration as Go prints it: ``10.4s``, ``1m15.25s``, ``1h0m0s``, ``250ms``."""
    if duration_us < 1_000:
        return f"{duration_us}µs" if duration_us else "0s"
    if duration_us < 1_000_000:
        return f"{duration_us / 1_000:.10g}ms"
    minutes, rest_us = divmod(duration_us, 60_000_000)
    seconds = f"{rest_us / 1_000_000:.10g}s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds
