"""Memberships kept by the agent: found by reference, bounded in memory."""

from msgspec.structs import replace

from producers.membership import KnownMembers
from topics.mesh_members import Member, MembersChunk, chunks
from topics.task_rounds import MembersRef


def epoch(number: int, count: int, *, group: str = "default") -> MembersChunk:
    members = tuple(Member(slot=i, agent=f"a{i}", node=f"n{i}") for i in range(count))
    return chunks(group=group, epoch=number, at_us=0, members=members)[0]


def ref(chunk: MembersChunk) -> MembersRef:
    return MembersRef(group=chunk.group, epoch=chunk.epoch, digest=chunk.digest, count=len(chunk.members))


def test_a_membership_is_found_by_epoch_and_digest() -> None:
    known, chunk = KnownMembers(group="default"), epoch(3, 2)
    known.add(chunk)
    assert known.get(ref(chunk)) == chunk.members
    assert known.get(replace(ref(chunk), digest="another")) is None
    assert known.get(replace(ref(chunk), epoch=4)) is None


def test_other_groups_are_passed_over() -> None:
    known, chunk = KnownMembers(group="default"), epoch(3, 2, group="other")
    known.add(chunk)
    assert known.get(ref(chunk)) is None


def test_old_epochs_go_when_there_are_many_members_but_the_newest_two_stay() -> None:
    known = KnownMembers(group="default", most_members=10)
    every = [epoch(number, 4) for number in range(1, 6)]
    for chunk in every:
        known.add(chunk)
    assert [known.get(ref(chunk)) is not None for chunk in every] == [False, False, False, True, True]
    big = [epoch(number, 30) for number in range(6, 9)]
    for chunk in big:
        known.add(chunk)
    assert [known.get(ref(chunk)) is not None for chunk in big] == [False, True, True]
