"""What one report is made of, and the reading of it that both shapes share. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.report_api.live import LiveTask
from controller.report_api.store import Beside, TargetLine, TaskLine
from topics.round_verdicts import AgentAccount, RoundVerdict

GROUP = "system.kdoctor.io"
VERSION = "v1beta1"
KIND = "KdoctorReport"
API_VERSION = f"{GROUP}/{VERSION}"

_NET_REACH_FLAGS = ("endpoint", "clusterIP", "nodePort", "loadBalancer")
_LOADS = {"AppHttpHealthy": "appHttpHealthyQPS", "NetReach": "netReachQPS", "Netdns": "netDnsQPS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """A task's newest round (or the one asked for), its targets worst first, and what stood beside it.

    ``history`` and ``live`` are never both None. ``next_offset`` is where the targets that are not here begin, 0 where
    all are.
    """

    name: str
    history: TaskLine | None
    live: LiveTask | None
    verdict: RoundVerdict | None = None
    failed_rounds: Sequence[int] = ()
    lines: Sequence[TargetLine] = ()
    beside: Sequence[Beside] = ()
    offset: int = 0
    next_offset: int = 0

    @property
    def task(self) -> str:
        """``kind/name``."""
        known = self.live or self.history
        assert known is not None
        return known.task

    @property
    def kind(self) -> str:
        """The task's kind."""
        known = self.live or self.history
        assert known is not None
        return known.kind

    @property
    def uid(self) -> str:
        """The task's uid."""
        known = self.live or self.history
        assert known is not None
        return known.uid

    @property
    def created_us(self) -> int:
        """When the task was made, microseconds since the epoch."""
        if self.live is not None and self.live.created_us:
            return self.live.created_us
        return self.history.created_ms * 1000 if self.history is not None else 0

    @property
    def spec(self) -> Mapping[str, Any]:
        """The task's spec: as it is, or as it was in the round."""
        if self.live is not None:
            return self.live.spec
        return self.verdict.spec if self.verdict is not None else {}

    @property
    def total_rounds(self) -> int:
        """How many rounds the task shall have, -1 for ever."""
        if self.live is not None and "expectedRound" in self.live.status:
            return int(self.live.status["expectedRound"])
        schedule = self.spec.get("schedule") or {}
        return int(self.spec.get("roundNumber", schedule.get("roundNumber", self.done_rounds)))

    @property
    def done_rounds(self) -> int:
        """How many rounds are over."""
        if self.live is not None and "doneRound" in self.live.status:
            return int(self.live.status["doneRound"])
        return self.history.newest if self.history is not None else 0

    @property
    def finished(self) -> bool:
        """No round is to come: all are done, or the task is gone."""
        if self.live is None:
            return True
        return bool(self.live.status.get("finish", 0 <= self.total_rounds <= self.done_rounds))


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPart:
    """One agent's part of a round."""

    account: AgentAccount
    pod: str
    start_us: int
    end_us: int
    succeed: bool
    reason: str
    lines: Sequence[TargetLine] = field(default_factory=list)

    @property
    def targets(self) -> int:
        """How many targets the agent had, those that are not here included."""
        return self.lines[0].agent_targets if self.lines else 0


def agent_parts(material: Material) -> list[AgentPart]:
    """Every agent that owed or did something, failed ones first."""
    verdict = material.verdict
    if verdict is None:
        return []
    by_agent: dict[str, list[TargetLine]] = {}
    for line in material.lines:
        by_agent.setdefault(line.agent, []).append(line)
    parts = [_part(verdict, account, by_agent.get(account.agent, [])) for account in verdict.accounts]
    return sorted(parts, key=lambda part: (part.succeed, part.account.node, part.account.agent))


def _part(verdict: RoundVerdict, account: AgentAccount, lines: Sequence[TargetLine]) -> AgentPart:
    reported = account.state in ("finished", "unexpected")
    silent = not reported and account.planned > 0
    failed = account.node in verdict.failed_nodes or account.node in verdict.not_reported_nodes or silent
    ends = [line.last_us for line in lines if line.finished] + [account.finished_us]
    reason = ""
    if silent:
        reason = f"the agent did not report: {account.cause or account.state}"
    elif failed:
        bad = [line for line in lines if not target_succeeded(line, verdict)]
        reason = f"{len(bad)} of {len(lines)} targets failed" if bad else verdict.why
    return AgentPart(
        account=account,
        pod=next((line.pod for line in lines if line.pod), account.agent),
        start_us=verdict.start_us,
        end_us=max(ends) if max(ends) else verdict.at_us,
        succeed=not failed,
        reason=reason,
        lines=lines,
    )


def ends_us(verdict: RoundVerdict, lines: Sequence[TargetLine]) -> int:
    """When the last request of a round was over, microseconds since the epoch."""
    return max([verdict.start_us, *(line.last_us for line in lines if line.finished)])


def expectation(spec: Mapping[str, Any]) -> tuple[float, float]:
    """(least share of successes, greatest mean delay in ms) of a task."""
    thresholds = spec.get("thresholds")
    if thresholds is not None:
        return 1 - float(thresholds.get("lossRate", 0.0)), float(thresholds.get("meanDelayInMs", 5000))
    expect = spec.get("expect") or {}
    return float(expect.get("successRate", 1.0)), float(expect.get("meanAccessDelayInMs", 5000))


def target_succeeded(line: TargetLine, verdict: RoundVerdict) -> bool:
    """By the task's expectation, as the round was judged."""
    return not target_reason(line, verdict)


def target_reason(line: TargetLine, verdict: RoundVerdict) -> str:
    """Why a target failed, empty where it did not: kdoctor's three rules in their order."""
    rate, delay_ms = expectation(verdict.spec)
    if line.finished and line.ok / line.finished < rate - 1e-12:
        worst = ", ".join(f"{text} ×{times}" for text, times in sorted(line.errors.items(), key=lambda e: -e[1])[:3])
        return f"{line.ok} of {line.finished} requests succeeded, {rate:.6g} of them asked: {worst or 'no reply'}"
    if line.ok and line.mean_us / 1000 > delay_ms:
        return f"mean delay {line.mean_us / 1000:.3f} ms, at most {delay_ms:g} ms asked"
    return f"{line.unsent} requests were not sent in time" if line.unsent else ""


def booked_qps(*, kind: str, spec: Mapping[str, Any]) -> int:
    """The load that a task books on each agent: qps times the enabled pairs of way and IP family."""
    qps = int((spec.get("request") or {}).get("qps", 0))
    if kind != "NetReach":
        return qps
    target = spec.get("target") or {}
    families = [bool(target.get("ipv4", True)), bool(target.get("ipv6", False))]
    ways = sum(bool(target.get(flag)) for flag in _NET_REACH_FLAGS)
    return qps * (ways * sum(families) + bool(target.get("ingress") and families[0]))


def running_load(material: Material, *, at_us: int) -> dict[str, int]:
    """Booked qps of the tasks that ran at ``at_us``, this one included, under kdoctor's three keys."""
    load = dict.fromkeys(_LOADS.values(), 0)
    for other in material.beside:
        duration_s = float((other.spec.get("request") or {}).get("durationInSecond", 0))
        runs = other.start_us <= at_us and other.start_us + duration_s * 1e6 >= at_us
        started_us = material.verdict.start_us // 1000 * 1000 if material.verdict is not None else 0
        itself = (other.task, other.start_us) == (material.task, started_us)
        if other.kind in _LOADS and (runs or itself):
            load[_LOADS[other.kind]] += booked_qps(kind=other.kind, spec=other.spec)
    return load
