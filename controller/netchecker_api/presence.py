"""Who reports, who is absent, who is outdated, and why: netchecker's question. Pure.

absent: expected, and never heard. outdated: heard, but not for more than two of its own intervals. Apart from both, and
no failure: agents on nodes that the cluster itself calls NotReady or cordoned, pods that have only just started, and
agents that said goodbye. Without a cluster's word everybody is expected who was ever heard or is a member.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from controller.members import Heard
from controller.netchecker_api.facts import AgentPod, NodeState

State = Literal["present", "absent", "outdated", "node", "starting", "left"]

OUTDATED_INTERVALS = 2
STARTING_S = 60.0
# Without a cluster's word an agent that was not heard for so long is no longer expected.
FORGOTTEN_S = 86_400.0
# Reports of netchecker's own agents, kept apart from the members of the mesh.
FOREIGN_GROUP = "netchecker"
FAILING: frozenset[State] = frozenset({"absent", "outdated"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """One agent. ``age_s`` is since its last report, None where there is none; ``notes`` lower no verdict."""

    name: str
    node: str
    state: State
    reason: str = ""
    age_s: float | None = None
    interval_s: float = 0.0
    flavour: str = "pod"
    version: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The answer: every agent, worst first. ``expected`` counts those of whom a report is due."""

    agents: tuple[Presence, ...]

    @property
    def expected(self) -> int:
        """Agents of which a report is due."""
        return sum(agent.state in ("present", *FAILING) for agent in self.agents)

    @property
    def ok(self) -> bool:
        """Somebody is expected, and nobody is missing. Nobody at all is no success."""
        return self.expected > 0 and not any(agent.state in FAILING for agent in self.agents)

    def of(self, state: State) -> list[Presence]:
        """The agents of a state, by name."""
        return [agent for agent in self.agents if agent.state == state]

    def message(self) -> str:
        """The verdict in words."""
        if not self.expected:
            return "no agent is expected and none has reported: nothing can be said about connectivity"
        if self.ok:
            return f"all {self.expected} agents have reported to the server"
        return (
            f"connectivity check failed: of {self.expected} agents {len(self.of('absent'))} are absent and "
            f"{len(self.of('outdated'))} outdated; see the lists"
        )


def check(
    *,
    heard: Mapping[str, Heard],
    members: Mapping[str, str],
    pods: Sequence[AgentPod],
    nodes: Mapping[str, NodeState],
    now_us: int,
) -> Check:
    """``heard`` is agent → newest report, ``members`` agent → node of the newest membership."""
    by_name = {name_of(item): item for item in heard.values()}
    recent = {name: item for name, item in by_name.items() if now_us - item.at_us < FORGOTTEN_S * 1e6}
    if pods:
        # Agents of netchecker itself are known by what they post alone.
        recent = {name: item for name, item in recent.items() if item.report.group == FOREIGN_GROUP}
    expected = {name: AgentPod(name=name, node=item.report.node) for name, item in recent.items()}
    if not pods:
        known = {item.report.agent for item in heard.values()}
        expected |= {name: AgentPod(name=name, node=node) for name, node in members.items() if name not in known}
    expected |= {pod.name: pod for pod in pods}
    found = [_presence(pod, by_name.get(pod.name), nodes, now_us) for pod in expected.values()]
    return Check(agents=tuple(sorted(found, key=lambda agent: (_ORDER.index(agent.state), agent.node, agent.name))))


_ORDER: tuple[State, ...] = ("absent", "outdated", "node", "starting", "present", "left")


def name_of(item: Heard) -> str:
    """What netchecker calls an agent: its pod's name; the agent's own where there is no pod."""
    return item.report.pod or item.report.agent


def _presence(pod: AgentPod, item: Heard | None, nodes: Mapping[str, NodeState], now_us: int) -> Presence:
    node = nodes.get(pod.node, NodeState())
    if item is None:
        state, reason = _unheard(pod, node, now_us)
        return Presence(name=pod.name, node=pod.node, state=state, reason=reason)
    report = item.report
    age_s = max(0, now_us - item.at_us) / 1e6
    state, reason = _of_heard(pod, item, node, age_s)
    return Presence(
        name=pod.name,
        node=pod.node or report.node,
        state=state,
        reason=reason,
        age_s=age_s,
        interval_s=report.interval_s,
        flavour=report.flavour,
        version=report.version,
        notes=tuple(notes(item)),
    )


def _unheard(pod: AgentPod, node: NodeState, now_us: int) -> tuple[State, str]:
    if node.trouble:
        return "node", f"{node.trouble}; the agent never reported"
    if pod.leaving:
        return "left", "the pod is being deleted"
    if pod.since_us and now_us - pod.since_us < STARTING_S * 1e6:
        return "starting", f"the pod is {(now_us - pod.since_us) / 1e6:.0f} s old"
    why = pod.trouble or "it runs, but none of its reports has come: Kafka, or the way to it from there, does not work"
    return "absent", f"never reported: {why}"


def _of_heard(pod: AgentPod, item: Heard, node: NodeState, age_s: float) -> tuple[State, str]:
    report = item.report
    due_s = OUTDATED_INTERVALS * report.interval_s
    if age_s <= due_s and not report.leaving:
        return "present", ""
    if node.trouble:
        return "node", f"{node.trouble}; last report {age_s:.0f} s ago"
    if pod.leaving or report.leaving:
        return "left", "it was stopped in an orderly way"
    why = f"last report {age_s:.0f} s ago, due every {report.interval_s:g} s"
    causes = [pod.trouble] if pod.trouble else []
    causes += notes(item)
    return "outdated", "; ".join([why, *(f"before that: {cause}" for cause in causes)])


def notes(item: Heard) -> Iterable[str]:
    """What the last report says that does not work there: name lookups, timed URLs, the way to Kafka."""
    report = item.report
    failed = sorted(name for name, addresses in report.lookups.items() if not addresses)
    if failed:
        yield f"DNS on {report.node} has no answer for {', '.join(failed)}"
    for timed in report.timed_urls:
        if timed.error:
            yield f"{timed.url} from {report.node}: {timed.error}"
    if report.spool_batches:
        yield f"{report.spool_batches} batches of results wait on {report.node} for Kafka"
