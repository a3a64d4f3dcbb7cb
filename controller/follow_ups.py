"""Follow-up rounds: each new loss that is found is looked at more closely, once, out of turn. Pure.

A follow-up is a round of its own among the suspects and a few healthy controls, by UDP in several sizes from many
source ports: which sizes and which 5-tuples lose, which way, and that the controls do not; beside it each traces its
ways to the others, hop by hop. Its `spec` carries the finding, the suspects' own kernel counters of that round, and
what changed in the cluster in the minutes before.

Level-triggered: wanted is a follow-up for every loss found lately of which none stands in task-rounds-v1. Its uid is
made from the finding, so a restarted controller finds it there; of one element there is one in FRESH_US at most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from controller.members import Epoch, drawn
from topics import ids, share
from topics.cluster_events import ClusterEvent
from topics.mesh_members import Member
from topics.outcome import Proto
from topics.round_verdicts import Finding, RoundVerdict
from topics.task_rounds import FOLLOW_UP, FULL_SIZE, Expect, Mesh, RoundScheduled

# A finding older than this is not followed up, nor the same element again within it.
FRESH_US = 600_000_000
EVENTS_BEFORE_US = 600_000_000
OPEN_AT_ONCE = 3
SUSPECTS, CONTROLS = 4, 3
SIZES = (0, 256, 1024, FULL_SIZE)
SOURCE_PORTS = 32
HOPS = 24
DURATION_S, RATE, TIMEOUT_MS = 6.0, 8.0, 1000
EVENTS_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A loss to look at: the finding, what was said of the round it was found in, and its membership's group."""

    finding: Finding
    task: str
    task_uid: str
    round_id: int
    number: int
    at_us: int
    healthy: tuple[str, ...]
    lossy: tuple[str, ...]
    counters: Mapping[str, Mapping[str, int]]

    @property
    def uid(self) -> str:
        """The follow-up's task uid: the same whoever computes it."""
        f = self.finding
        key = f"{self.task_uid}/{f.element}/{f.direction}/{f.kind}/{f.since_us}"
        return f"{self.task_uid}.{hashlib.blake2b(key.encode(), digest_size=6).hexdigest()}"

    @property
    def about(self) -> str:
        """What it is about, however often it comes back."""
        return f"{self.task_uid}/{self.finding.element}/{self.finding.direction}"


def wanted_of(verdict: RoundVerdict) -> list[Wanted]:
    """The losses of a verdict that may be looked at; none of a follow-up's own."""
    losses = [finding for finding in verdict.findings if finding.kind == "loss"]
    if verdict.kind == FOLLOW_UP or not losses:
        return []
    named = {end for f in verdict.findings for end in ends(f.element)} | set(verdict.trust.unfit)
    healthy = tuple(sorted(a.node for a in verdict.accounts if a.state == "finished" and a.node not in named))
    lossy = tuple(dict.fromkeys(end for p in verdict.worst if p.loss.lost for end in (p.dst, p.src)))
    counters = {a.node: msgspec.to_builtins(a.node_counters) for a in verdict.accounts if a.node_counters is not None}
    return [
        Wanted(
            finding=finding,
            task=verdict.task,
            task_uid=verdict.task_uid,
            round_id=verdict.round_id,
            number=verdict.round,
            at_us=verdict.at_us,
            healthy=healthy[:200],
            lossy=lossy,
            counters=counters,
        )
        for finding in losses
    ]


def ends(element: str) -> list[str]:
    """The two of a pair, else the element itself."""
    return element.replace("<>", ">").split(">")


def suspects(wanted: Wanted, members: Sequence[Member]) -> list[Member]:
    """The members that the finding is about; of a layer or a size, those that lost most."""
    parts = ends(wanted.finding.element)
    found = [m for part in parts for m in members if part == m.node]
    for part in parts:
        found += [m for m in members if part in (f"rack {m.rack}", f"zone {m.zone}")][: SUSPECTS // len(parts)]
    found = found or [m for node in wanted.lossy for m in members if m.node == node]
    return list({m.agent: m for m in found}.values())[:SUSPECTS]


def controls(wanted: Wanted, members: Sequence[Member], suspected: Sequence[Member]) -> list[Member]:
    """Healthy members that are not suspected, chosen by the finding, so that it is not always the same few."""
    healthy = set(wanted.healthy).difference(m.node for m in suspected)
    return drawn((m for m in members if m.node in healthy), by=wanted.uid)[:CONTROLS]


def follow_ups(
    *,
    wanted: Iterable[Wanted],
    rounds: Mapping[str, Mapping[int, RoundScheduled]],
    tasks: Mapping[str, Epoch],
    publishing: Mapping[str, int],
    events: Sequence[ClusterEvent],
    now_us: int,
    lead_time_us: int,
    cluster: str,
) -> Iterator[RoundScheduled]:
    """The follow-ups to publish now. `tasks` are the standing tasks' uids with the membership each runs on."""
    standing = [r for known in rounds.values() for r in known.values() if r.kind == FOLLOW_UP]
    running = sum(now_us < r.deadline_us for r in standing) + sum(uid not in tasks for uid in publishing)
    lately = {str(r.spec.get("about")) for r in standing if now_us - r.start_us < FRESH_US}
    for each in wanted:
        epoch = tasks.get(each.task_uid)
        fresh = now_us - each.at_us < FRESH_US and each.about not in lately
        if epoch is None or not fresh or each.uid in rounds or each.uid in publishing or running >= OPEN_AT_ONCE:
            continue
        made = build(each, epoch=epoch, events=events, start_us=now_us + lead_time_us, cluster=cluster)
        if made is not None:
            running, lately = running + 1, lately | {each.about}
            yield made


def build(
    wanted: Wanted, *, epoch: Epoch, events: Sequence[ClusterEvent], start_us: int, cluster: str
) -> RoundScheduled | None:
    """The round that looks closer; None where there are not two to ask each other."""
    suspected = suspects(wanted, epoch.members)
    healthy = controls(wanted, epoch.members, suspected)
    only = tuple(m.agent for m in (*suspected, *healthy) if m.udp_port)
    if not suspected or len(only) < 2:
        return None
    mine = {m.node for m in suspected}
    before = [e for e in events if 0 <= wanted.at_us - e.at_us <= EVENTS_BEFORE_US]
    spec: dict[str, Any] = {
        "about": wanted.about,
        "task": wanted.task,
        "round": wanted.number,
        "sentence": wanted.finding.sentence,
        "suspects": [m.node for m in suspected],
        "controls": [m.node for m in healthy],
        "hostCounters": {node: dict(seen) for node, seen in wanted.counters.items() if node in mine},
        "clusterEvents": [msgspec.to_builtins(e) for e in before[-EVENTS_SHOWN:]],
    }
    kind, _, name = wanted.task.partition("/")
    round_ = RoundScheduled(
        round_id=ids.round_id(task_uid=wanted.uid, number=1),
        number=1,
        task_uid=wanted.uid,
        task=f"followup/{name or kind}-{wanted.uid.rsplit('.', 1)[1]}",
        kind=FOLLOW_UP,
        start_us=start_us,
        deadline_us=start_us + int((DURATION_S + 10) * 1e6),
        duration_s=DURATION_S,
        rate=RATE,
        timeout_ms=TIMEOUT_MS,
        members=epoch.ref(),
        planned=0,
        expect=Expect(success_rate=0.0),
        mesh=Mesh(protos=(Proto.udp,), sizes=SIZES, source_ports=SOURCE_PORTS, hops=HOPS),
        only=only,
        follows=wanted.task_uid,
        cluster=cluster,
        spec=spec,
        created_us=wanted.at_us,
    )
    owed = share.planned(round_=round_, members=epoch.members)
    return msgspec.structs.replace(round_, planned=sum(owed.values()))
