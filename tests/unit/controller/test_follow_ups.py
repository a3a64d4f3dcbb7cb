"""A closer look at each new loss: once, out of turn, among the suspects and a few healthy ones."""

from typing import Any

import msgspec

from controller.addressbook import AddressBook
from controller.follow_ups import CONTROLS, FRESH_US, HOPS, OPEN_AT_ONCE, wanted_of
from controller.plan import Settings
from tests.unit.controller.controller_world import S, World, net_reach, tasks, verdict_of
from topics import cluster_events, share
from topics.round_progress import NodeCounters
from topics.round_verdicts import AgentAccount, Finding, Loss, RoundVerdict
from topics.task_rounds import FOLLOW_UP, RoundScheduled

NODES = tuple(f"node-{n}" for n in range(1, 9))
EVENT = cluster_events.EXAMPLE


class Mesh(World):
    """A world whose agents answer UDP."""

    def closer(self) -> list[RoundScheduled]:
        return [r for r in self.scheduled() if r.kind == FOLLOW_UP]

    def tell(self, *elements: str, round_: RoundScheduled | None = None, **changes: Any) -> RoundVerdict:
        """The verdict of the task's latest round, with these losses."""
        of = round_ or [r for r in self.scheduled() if r.kind != FOLLOW_UP][-1]
        loss = Loss(sent=100, lost=20, rate=0.2, low=0.1, high=0.3)
        found = tuple(
            Finding(element=e, direction="ingress", kind="loss", sentence=f"{e} loses", loss=loss, confidence=1.0)
            for e in elements
        )
        accounts = tuple(
            AgentAccount(
                **{"agent": n, "node": n, "planned": 1, "stored": 1, "unsent": 0, "declared_missing": 0},
                unexplained=0,
                node_counters=NodeCounters(softnet_drops=7) if n == "node-3" else None,
            )
            for n in NODES
        )
        told = verdict_of(of, at_us=self.now_us, findings=found, accounts=accounts, kind=of.kind, **changes)
        self.verdicts.append(told)
        self.observed.saw_verdict(told)
        return told


def world(*, follow_ups: bool = True) -> Mesh:
    w = Mesh(
        desired=tasks(net_reach(rounds=9)),
        settings=Settings(expected_agents=len(NODES), book=AddressBook(), follow_ups=follow_ups),
        agents=NODES,
        judge_after_us=None,
        udp_port=862,
    )
    w.run(4)
    return w


def test_a_loss_is_looked_at_once_through_a_restart_too() -> None:
    w = world()
    w.tell("node-3")
    w.run(1)
    (closer,) = w.closer()
    w.restart()
    w.run(2)
    w.tell("node-3")
    w.run(2)
    assert w.closer() == [closer]
    assert closer in w.progress, "the judge is told"


def test_the_suspects_and_a_few_healthy_ones_ask_each_other_in_every_size_from_many_ports() -> None:
    w = world()
    w.observed.events.append(msgspec.structs.replace(EVENT, at_us=w.now_us - 60 * S))
    w.tell("node-3")
    w.run(1)
    (closer,) = w.closer()
    assert closer.only[0] == "node-3"
    assert len(closer.only) == 1 + CONTROLS
    assert closer.mesh is not None
    assert (len(closer.mesh.sizes), closer.mesh.source_ports) == (4, 32)
    assert closer.mesh.hops == HOPS
    members = w.observed.epochs[closer.members.epoch].members
    owed = share.planned(round_=closer, members=members)
    assert set(owed) == set(closer.only)
    assert sum(owed.values()) == closer.planned
    assert [len(share.share(round_=closer, members=members, agent=n)) > 0 for n in NODES].count(True) == len(
        closer.only
    )
    assert closer.spec["hostCounters"] == {"node-3": {"softnet_drops": 7}}
    assert [e["reason"] for e in closer.spec["clusterEvents"]] == [EVENT.reason]


def test_a_follow_up_has_none_of_its_own_and_an_old_loss_none_at_all() -> None:
    w = world()
    w.tell("node-3")
    w.run(1)
    w.tell("node-5", round_=w.closer()[0])
    w.run(2)
    assert len(w.closer()) == 1
    old = msgspec.structs.replace(w.tell("node-6"), at_us=w.now_us - FRESH_US)
    w.observed.wanted = {each.uid: each for each in wanted_of(old)}
    w.run(1)
    assert len(w.closer()) == 1


def test_many_losses_at_once_are_looked_at_a_few_at_a_time() -> None:
    w = world()
    w.tell("node-1", "node-2", "node-3", "node-4>node-5", "node-6")
    w.run(1)
    assert len(w.closer()) == OPEN_AT_ONCE
    w.run(30)
    assert len(w.closer()) == 5
    pair = next(r for r in w.closer() if ">" in r.spec["about"])
    assert pair.spec["suspects"] == ["node-4", "node-5"]


def test_it_is_done_only_where_asked_for_and_ends_with_its_task() -> None:
    off = world(follow_ups=False)
    off.tell("node-3")
    off.run(1)
    assert off.closer() == []
    w = world()
    w.tell("node-3")
    w.run(1)
    w.desired = {}
    w.run(1)
    cancelled = {r.round_id for r in w.rounds if not isinstance(r, RoundScheduled)}
    assert w.closer()[0].round_id in cancelled
