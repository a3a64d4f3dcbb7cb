"""Membership: who is there, who sits where, when a new epoch comes."""

from controller.members import Roster, next_epoch, seated, spacing_us
from controller.observed import Observed
from tests.unit.controller.controller_world import START, S, report
from topics import mesh_members


def roster(*agents: str, at_us: int = START) -> Roster:
    made = Roster()
    made.resume(at_us=at_us)
    for agent in agents:
        made.hear(report(agent), at_us=at_us)
    return made


def test_slots_are_given_in_the_order_of_nodes() -> None:
    members = seated(tuple(report(a) for a in ("node-2", "node-1")), slots={})
    assert [(m.slot, m.agent) for m in members] == [(0, "node-1"), (1, "node-2")]


def test_an_agent_keeps_its_slot_and_a_new_one_gets_a_new_one() -> None:
    slots = {0: ("node-1", "node-1"), 1: ("node-2", "node-2")}
    members = seated((report("node-0"), report("node-2")), slots=slots)
    assert [(m.slot, m.agent) for m in members] == [(1, "node-2"), (2, "node-0")]


def test_a_replaced_pod_takes_over_its_nodes_slot() -> None:
    slots = {0: ("pod-a", "node-1"), 1: ("pod-b", "node-2")}
    members = seated((report("pod-a", node="node-1"), report("pod-c", node="node-2")), slots=slots)
    assert [(m.slot, m.agent) for m in members] == [(0, "pod-a"), (1, "pod-c")]


def test_two_agents_of_one_node_never_share_a_slot() -> None:
    slots = {0: ("pod-a", "node-1")}
    reports = (report("pod-b", node="node-1"), report("pod-c", node="node-1"))
    assert [m.slot for m in seated(reports, slots=slots)] == [0, 1]


def test_the_former_agent_that_comes_back_beside_its_successor_gets_a_new_slot() -> None:
    made = roster()
    made.seat(seated((report("pod-a", node="node-1"),), slots={}))
    made.seat(seated((report("pod-b", node="node-1"),), slots=made.slots))
    members = seated((report("pod-a", node="node-1"), report("pod-b", node="node-1")), slots=made.slots)
    assert [(m.slot, m.agent) for m in members] == [(0, "pod-b"), (1, "pod-a")]


def test_an_agent_is_silent_after_three_of_its_intervals() -> None:
    made = roster("node-1", "node-2")
    made.hear(report("node-1"), at_us=START + 9 * S)
    made.hear(report("node-1"), at_us=START + 15 * S)
    assert not made.silent("node-2")
    made.hear(report("node-1"), at_us=START + 16 * S)
    assert made.silent("node-2")
    assert [r.agent for r in made.alive("default")] == ["node-1"]


def test_after_a_gap_everybody_gets_the_time_to_be_heard_again() -> None:
    made = roster("node-1", "node-2")
    made.hear(report("node-1"), at_us=START + 100 * S)
    assert not made.silent("node-2")


def test_an_earlier_life_of_an_agent_is_not_heard() -> None:
    made = roster()
    made.hear(report("node-1", incarnation=2, ipv4="10.0.0.9"), at_us=START)
    made.hear(report("node-1", incarnation=1), at_us=START + S)
    assert made.agents["node-1"].report.ipv4 == "10.0.0.9"


def test_a_topic_read_anew_makes_nobody_older() -> None:
    made = roster("node-1")
    made.hear(report("node-1"), at_us=START - 100 * S)
    assert made.agents["node-1"].at_us == START


def test_the_cause_tells_a_stop_from_a_death() -> None:
    made = roster("node-1")
    made.hear(report("node-2", leaving=True), at_us=START)
    assert made.cause("node-2") == "agent died: it was stopped"
    assert made.cause("node-9") == "agent died: never heard from"


def test_the_first_epoch_waits_for_the_expected_number() -> None:
    assert next_epoch(roster=roster("node-1"), newest=None, expected=2, now_us=START) is None
    epoch = next_epoch(roster=roster("node-1", "node-2"), newest=None, expected=2, now_us=START)
    assert epoch is not None
    assert (epoch.number, len(epoch.members)) == (1, 2)


def test_agents_of_another_group_do_not_count() -> None:
    made = roster("node-1")
    made.hear(report("node-2", group="other"), at_us=START)
    assert next_epoch(roster=made, newest=None, expected=2, now_us=START) is None


def test_a_changed_address_is_a_change_but_not_within_ten_seconds() -> None:
    made = roster("node-1")
    first = next_epoch(roster=made, newest=None, expected=1, now_us=START)
    assert first is not None
    made.seat(first.members)
    made.hear(report("node-1", ipv4="10.0.0.77"), at_us=START + S)
    assert next_epoch(roster=made, newest=first, expected=1, now_us=START + 9 * S) is None
    second = next_epoch(roster=made, newest=first, expected=1, now_us=START + 10 * S)
    assert second is not None
    assert (second.number, second.members[0].ipv4) == (2, "10.0.0.77")


def test_large_memberships_come_further_apart() -> None:
    assert [spacing_us(members) // S for members in (3, 200, 600, 5000)] == [10, 20, 60, 60]


def test_an_unchanged_membership_gets_no_epoch() -> None:
    made = roster("node-1")
    first = next_epoch(roster=made, newest=None, expected=1, now_us=START)
    assert first is not None
    made.seat(first.members)
    assert next_epoch(roster=made, newest=first, expected=1, now_us=START + 999 * S) is None


def test_of_two_memberships_of_one_number_the_first_wins() -> None:
    observed = Observed()
    for address in ("10.0.0.1", "10.0.0.2"):
        members = (mesh_members.Member(slot=0, agent="a", node="n", ipv4=address),)
        for chunk in mesh_members.chunks(group="default", epoch=1, at_us=1, members=members):
            observed.saw_members(chunk)
    assert observed.newest_epoch is not None
    assert observed.newest_epoch.members[0].ipv4 == "10.0.0.1"


def test_a_large_membership_comes_together_from_its_parts() -> None:
    observed = Observed()
    members = tuple(mesh_members.Member(slot=i, agent=f"a{i}", node=f"n{i}") for i in range(2500))
    chunks = mesh_members.chunks(group="default", epoch=3, at_us=1, members=members)
    for chunk in chunks[:-1]:
        observed.saw_members(chunk)
    assert observed.epochs == {}
    observed.saw_members(chunks[-1])
    assert len(observed.epochs[3].members) == len(observed.roster.slots) == 2500
