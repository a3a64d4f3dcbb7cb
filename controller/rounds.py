"""One round of a task, complete: what goes into task-rounds-v1. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from controller.addressbook import AddressBook
from controller.canary import canary_of
from controller.members import Epoch
from controller.resolve import resolve
from controller.schedule import Timing
from controller.tasks import NetPatrol, Task, task_key
from controller.tasks.netdns import RCODES, DnsExpect
from controller.tasks.schema import to_plain
from topics import ids, share
from topics.task_rounds import Expect, RoundScheduled

# A patrol's requests are spread over this part of its interval; the rest is for the last answers to come in.
PATROL_SPREAD = 0.8
# Requests/s of one agent from which on its load would show in what others measure on the same node. An agent has one
# event loop, and a request takes 50 to 80 µs of it at these rates (bench/RESULTS.md): at 1,000/s it is busy with a load
# for a twentieth of the time, so one in twenty of another round's requests is late by some 50 µs, which a median and a
# p90 do not show. At 5,000/s it would be every fourth, and the load's own bursts (200 µs) would show in the p99.
EXCLUSIVE_RATE = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one agent sends to one target."""

    duration_s: float
    rate: float
    timeout_ms: int
    expect: Expect


def load_of(task: Task) -> Load:
    """Duration, rate (requests/s), timeout and expectation of a task's rounds."""
    if isinstance(task, NetPatrol):
        duration_s = task.spec.interval_s * PATROL_SPREAD
        return Load(
            duration_s=duration_s,
            rate=task.spec.requests_per_round / duration_s,
            timeout_ms=task.spec.timeout_ms,
            expect=Expect(
                # What a canary loses is asked for: of its rounds the findings alone speak.
                success_rate=0.0 if task.spec.canary_loss else 1 - task.spec.thresholds.loss_rate,
                mean_delay_ms=task.spec.thresholds.mean_delay_ms,
            ),
        )
    spec = task.spec
    return Load(
        duration_s=float(spec.request.duration_s),
        rate=float(spec.request.qps),
        timeout_ms=spec.request.timeout_ms,
        expect=Expect(
            success_rate=spec.expect.success_rate,
            mean_delay_ms=spec.expect.mean_delay_ms,
            status_code=spec.expect.status_code if task.KIND == "AppHttpHealthy" else None,
            rcode=RCODES[spec.expect.rcode] if isinstance(spec.expect, DnsExpect) and spec.expect.rcode else None,
        ),
    )


def build_round(
    *,
    task: Task,
    number: int,
    start_us: int,
    timing: Timing,
    epoch: Epoch,
    book: AddressBook,
    cluster: str,
    created_us: int = 0,
) -> RoundScheduled:
    """Round ``number`` of a task, starting at ``start_us``, among the members of ``epoch``."""
    load = load_of(task)
    resolved = resolve(task, members=epoch.members, book=book)
    loss_rate = task.spec.canary_loss if isinstance(task, NetPatrol) else 0.0
    canary = canary_of(uid=task.metadata.uid, share=loss_rate, members=epoch.members)
    alone = ("two nodes for the canary",) if loss_rate and canary is None else ()
    round_ = RoundScheduled(
        round_id=ids.round_id(task_uid=task.metadata.uid, number=number),
        number=number,
        task_uid=task.metadata.uid,
        task=task_key(task),
        kind=task.KIND,
        start_us=start_us,
        deadline_us=start_us + timing.timeout_us,
        duration_s=load.duration_s,
        rate=load.rate,
        timeout_ms=load.timeout_ms,
        members=epoch.ref(),
        planned=0,
        expect=load.expect,
        mesh=resolved.mesh,
        targets=resolved.targets,
        http=resolved.http,
        dns=resolved.dns,
        unresolved=(*resolved.unresolved, *alone),
        cluster=cluster,
        spec=_public(to_plain(task.spec)),
        created_us=created_us,
        canary=canary,
    )
    owed = share.planned(round_=round_, members=epoch.members)
    heaviest = max(owed.values(), default=0) / load.duration_s if load.duration_s else 0.0
    return msgspec.structs.replace(
        round_, planned=sum(owed.values()), load_class=load_class(task=task, rate_per_agent=heaviest)
    )


def _public(spec: dict[str, Any]) -> dict[str, Any]:
    """A spec as topics may have it: without the values of its agents' environment, which may be secrets."""
    agents = spec.get("agentSpec")
    if not agents or not agents.get("env"):
        return spec
    return {**spec, "agentSpec": {**agents, "env": [{"name": item.get("name", "")} for item in agents["env"]]}}


def load_class(*, task: Task, rate_per_agent: float) -> str:
    """How a round may meet others on one node: the standing patrol gives way, a heavy load runs alone."""
    if isinstance(task, NetPatrol):
        return "background"
    return "exclusive" if rate_per_agent >= EXCLUSIVE_RATE else "normal"
