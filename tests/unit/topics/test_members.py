"""A membership is cut into chunks and counts only when it is whole and unchanged."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from topics.mesh_members import CHUNK_MEMBERS, Member, Memberships, chunks, digest


def members_of(count: int) -> tuple[Member, ...]:
    return tuple(Member(slot=i, agent=f"a{i}", node=f"n{i}") for i in range(count))


@given(order=st.permutations(range(3)))
def test_chunks_in_any_order_make_the_membership(order: list[int]) -> None:
    everyone = members_of(2 * CHUNK_MEMBERS + 5)
    parts = chunks(group="g", epoch=4, at_us=0, members=everyone)
    known = Memberships()
    whole = [known.add(parts[i]) for i in order]
    assert whole == [False, False, True]
    assert known.get(group="g", epoch=4, digest=digest(everyone)) == everyone
    assert known.newest("g") == (4, everyone)


def test_a_tampered_chunk_makes_no_membership() -> None:
    (part,) = chunks(group="g", epoch=1, at_us=0, members=members_of(2))
    known = Memberships()
    assert not known.add(msgspec.structs.replace(part, members=part.members[:1]))
    assert known.newest("g") is None


def test_chunks_stay_under_half_a_megabyte() -> None:
    long = tuple(
        Member(
            slot=i,
            agent="x" * 60,
            node="y" * 60,
            pod="z" * 60,
            zone="zone",
            rack="rack",
            ipv4="10.0.0.1",
            ipv6="fd00::1",
        )
        for i in range(CHUNK_MEMBERS)
    )
    (part,) = chunks(group="g", epoch=1, at_us=0, members=long)
    assert len(msgspec.json.encode(part)) < 500_000


def test_an_empty_membership_is_one_too() -> None:
    (part,) = chunks(group="g", epoch=1, at_us=0, members=())
    known = Memberships()
    assert known.add(part)
    assert known.newest("g") == (1, ())
