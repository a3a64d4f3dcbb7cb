"""Who takes part: from heartbeats to numbered memberships. Pure; times are microseconds since the epoch.

An agent is silent when it missed three of its own intervals while others were heard: where nobody is heard at all, it
is the way to Kafka that is gone, and that says nothing about any agent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from topics.agent_reports import AgentReport
from topics.mesh_members import Member, digest
from topics.round_progress import AGENT_DIED, AGENT_STOPPED
from topics.task_rounds import MembersRef

GROUP = "default"
SILENT_INTERVALS = 3
EPOCH_LEAST_US = 10_000_000
EPOCH_MOST_US = 60_000_000
EPOCH_EACH_US = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """A membership as published."""

    group: str
    number: int
    digest: str
    at_us: int
    members: tuple[Member, ...]

    def ref(self) -> MembersRef:
        """How a round names it."""
        return MembersRef(group=self.group, epoch=self.number, digest=self.digest, count=len(self.members))


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a node stands, for reports that do not say it."""

    zone: str = ""
    rack: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The newest report of an agent and when it was heard."""

    report: AgentReport
    at_us: int


@dataclass(slots=True)
class Roster:
    """All agents ever heard, by name, and who sits in which ring slot: a slot is kept for life."""

    agents: dict[str, Heard] = field(default_factory=dict)
    slots: dict[int, tuple[str, str]] = field(default_factory=dict)
    # Of the groups beside the default one: agents of a task's own.
    own_slots: dict[str, dict[int, tuple[str, str]]] = field(default_factory=dict)
    newest_us: int = 0
    resumed_us: int = 0

    def hear(self, report: AgentReport, *, at_us: int) -> None:
        """Takes a report. One of an earlier life of the agent is passed over."""
        known = self.agents.get(report.agent)
        if known is not None and report.incarnation < known.report.incarnation:
            return
        if at_us - self.newest_us > 2 * report.interval_s * 1_000_000:
            # Nobody was heard for a while: everybody gets the time to be heard again.
            self.resumed_us = at_us
        self.newest_us = max(self.newest_us, at_us)
        # A topic read anew brings old reports again: they must not make an agent older.
        latest_us = max(at_us, known.at_us if known is not None else 0)
        self.agents[report.agent] = Heard(report=report, at_us=latest_us)

    def resume(self, *, at_us: int) -> None:
        """What was heard before now is history: gives every agent the time to be heard again."""
        self.resumed_us = at_us
        self.newest_us = max(self.newest_us, at_us)

    def slots_of(self, group: str) -> dict[int, tuple[str, str]]:
        """Slot → agent and node of a group."""
        return self.slots if group == GROUP else self.own_slots.setdefault(group, {})

    def seat(self, members: tuple[Member, ...], *, group: str = GROUP) -> None:
        """Remembers the slots of a published membership."""
        slots = self.slots_of(group)
        for member in members:
            slots[member.slot] = (member.agent, member.node)

    def silent(self, agent: str) -> bool:
        """True when the agent missed three intervals. An agent never heard is silent once others had that time."""
        heard = self.agents.get(agent)
        last_us = max(heard.at_us if heard else 0, self.resumed_us)
        interval_s = heard.report.interval_s if heard else 5.0
        return self.newest_us - last_us > SILENT_INTERVALS * interval_s * 1_000_000

    def cause(self, agent: str) -> str:
        """Why an agent that is silent is, as far as it is known."""
        heard = self.agents.get(agent)
        if heard is None:
            return f"{AGENT_DIED}: never heard from"
        if heard.report.leaving:
            return AGENT_STOPPED
        return f"{AGENT_DIED}: no report for {SILENT_INTERVALS} intervals of {heard.report.interval_s:g} s"

    def alive(self, group: str) -> tuple[AgentReport, ...]:
        """The agents of a group that are not silent, by name."""
        reports = (heard.report for _, heard in sorted(self.agents.items()) if not self.silent(heard.report.agent))
        return tuple(report for report in reports if report.group == group)


_NOWHERE = Site()


def member_of(report: AgentReport, *, slot: int, site: Site = _NOWHERE) -> Member:
    """A report as the peers need it; ``site`` fills in zone and rack that it does not name."""
    return Member(
        slot=slot,
        agent=report.agent,
        node=report.node,
        zone=report.zone or site.zone,
        rack=report.rack or site.rack,
        pod=report.pod,
        ipv4=report.ipv4,
        ipv6=report.ipv6,
        node_ipv4=report.node_ipv4,
        node_ipv6=report.node_ipv6,
        http_port=report.http_port,
        https_port=report.https_port,
        tcp_port=report.tcp_port,
        udp_port=report.udp_port,
    )


def seated(
    reports: tuple[AgentReport, ...],
    *,
    slots: Mapping[int, tuple[str, str]],
    sites: Mapping[str, Site] = MappingProxyType({}),
) -> tuple[Member, ...]:
    """Members in their slots, by slot.

    An agent keeps its own (``slots`` is slot → agent, node), a new one takes that of its node's former agent, else one
    that nobody had.
    """
    own = {agent: slot for slot, (agent, _) in slots.items()}
    present = {report.agent for report in reports}
    left = {node: slot for slot, (agent, node) in sorted(slots.items(), reverse=True) if agent not in present}
    free = max(slots, default=-1) + 1
    members: list[Member] = []
    for report in sorted(reports, key=lambda r: (r.node, r.agent)):
        slot = own.get(report.agent, -1)
        if slot < 0:
            slot = left.pop(report.node, -1)
        if slot < 0:
            slot, free = free, free + 1
        members.append(member_of(report, slot=slot, site=sites.get(report.node, _NOWHERE)))
    return tuple(sorted(members, key=lambda member: member.slot))


def spacing_us(members: int) -> int:
    """The least time between two epochs: ten seconds, so that rounds do not go to addresses of replaced pods for long;
    longer where many members make an epoch large, up to a minute from 600 on."""
    return min(EPOCH_MOST_US, max(EPOCH_LEAST_US, members * EPOCH_EACH_US))


def next_epoch(
    *,
    roster: Roster,
    newest: Epoch | None,
    expected: int,
    now_us: int,
    group: str = GROUP,
    sites: Mapping[str, Site] = MappingProxyType({}),
) -> Epoch | None:
    """The membership to publish now, or None.

    The first needs ``expected`` agents; a later one a change, and time since the last by size. An empty one is never
    published: nobody heard means nothing known.
    """
    reports = roster.alive(group)
    if not reports or (newest is None and len(reports) < expected):
        return None
    if newest is not None and now_us - newest.at_us < spacing_us(len(newest.members)):
        return None
    members = seated(reports, slots=roster.slots_of(group), sites=sites)
    mark = digest(members)
    if newest is not None and mark == newest.digest:
        return None
    number = newest.number + 1 if newest is not None else 1
    return Epoch(group=group, number=number, digest=mark, at_us=now_us, members=members)


def drawn(members: Iterable[Member], *, by: str) -> list[Member]:
    """In an order that looks drawn by lot, of its own for each `by`, and the same whoever draws it."""
    return sorted(members, key=lambda m: hashlib.blake2b(f"{by}/{m.agent}".encode(), digest_size=8).digest())
