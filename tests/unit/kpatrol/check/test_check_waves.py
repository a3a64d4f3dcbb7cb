"""A mesh in waves: every pair once, none of them twice, each node asking and asked no more than so many at a time."""

from __future__ import annotations

from collections import Counter

import pytest

from kpatrol.check.mesh import Asked, Site, pairs_of, seen_address, waves
from kpatrol.check.result import Result, kept
from kpatrol.check.state import Kept, Wanted, wanted
from topics.mesh_members import Member
from topics.share import share


def site(name: str, count: int, **more: str) -> Site:
    members = tuple(
        Member(slot=n, agent=f"{name}{n}", node=f"{name}{n}", ipv4=f"10.0.0.{n + 1}", http_port=80, tcp_port=7,
               udp_port=862)
        for n in range(count)
    )  # fmt: skip
    return Site(name=name, members=members, **more)


@pytest.mark.parametrize(("count", "wave"), [(2, 25), (26, 25), (27, 25), (60, 7), (60, 0), (1, 25)])
def test_every_pair_is_asked_in_one_wave(count: int, wave: int) -> None:
    one = site("n", count)
    made = waves(asked=Asked(protocols=("tcp",), wave=wave), ways=[(one, one)], run="r")
    found = Counter(pair for each in made for pair in pairs_of(each))
    assert found == Counter({(f"n{a}", f"n{b}"): 1 for a in range(count) for b in range(count) if a != b})
    for each in made:
        asked, asking = (Counter(pair[end] for pair in pairs_of(each)) for end in (0, 1))
        assert max((*asked.values(), *asking.values(), 0)) <= (wave or count)
    ids = [round_.round_id for each in made for _, round_ in each]
    assert len(ids) == len(set(ids))


def test_pairs_are_those_of_the_agents_shares() -> None:
    one = site("n", 11)
    made = waves(asked=Asked(protocols=("tcp",), wave=4), ways=[(one, one)], run="r")
    for each in made:
        ((found, round_),) = each
        asked = {
            (member.node, stream.target.dst)
            for member in found.members
            for stream in share(round_=round_, members=found.members, agent=member.agent)
        }
        assert pairs_of(each) == asked


def test_a_ring_keeps_its_degree() -> None:
    one = site("n", 40)
    made = waves(asked=Asked(protocols=("tcp",), degree=12, wave=5), ways=[(one, one)], run="r")
    found = Counter(src for each in made for src, _ in pairs_of(each))
    assert set(found.values()) == {12}
    assert len(made) == 3


def test_two_clusters_ask_there_and_back_in_waves_and_names_once() -> None:
    east, west = site("e", 9, dns_server="10.96.0.10"), site("w", 5, dns_server="10.97.0.10")
    asked = Asked(protocols=("udp", "dns"), wave=4)
    made = waves(asked=asked, ways=[(east, west), (west, east)], run="r")
    assert len(made) == 3
    found = Counter(pair for each in made for pair in pairs_of(each))
    there = {(f"e{a}", f"w/w{b}") for a in range(9) for b in range(5)}
    back = {(f"w{b}", f"e/e{a}") for a in range(9) for b in range(5)}
    names = {(f"e{a}", "dns 10.96.0.10") for a in range(9)} | {(f"w{b}", "dns 10.97.0.10") for b in range(5)}
    assert found == Counter(dict.fromkeys(there | back | names, 1))


@pytest.mark.parametrize(
    ("own", "seen"),
    [("10.0.3.7", "100.64.3.7"), ("10.9.0.1", "10.9.0.1"), ("fd00::7", "fd01::7"), ("", "")],
)
def test_a_network_is_shown_as_another(own: str, seen: str) -> None:
    mapped = {"other": "192.0.2.1", "10.0.0.0/16": "100.64.0.0/16", "fd00::/64": "fd01::/64"}
    assert seen_address(mapped, node="node", own=own) == seen
    assert seen_address(mapped, node="other", own="10.0.3.7") == "192.0.2.1"


def test_what_was_stopped_goes_on_with_what_was_left() -> None:
    one = site("n", 10)
    asked = Asked(protocols=("tcp", "udp"), wave=3)
    made = waves(asked=asked, ways=[(one, one)], run="r")
    left = {pair for wave in made[1:] for pair in pairs_of(wave)}
    before = kept(Result(rows=(), apart=(), verdicts=()), left=left)
    again = waves(asked=asked, ways=[(one, one)], run="s", only=wanted(before))
    assert len(again) == 2, "six or seven of each node's nine are left, three at a time"
    assert {pair for wave in again for pair in pairs_of(wave)} == left


def test_a_wave_that_is_wanted_whole_stays_one_round_for_all() -> None:
    one = site("n", 10)
    asked = Asked(protocols=("tcp", "udp"), wave=3)
    made = waves(asked=asked, ways=[(one, one)], run="r")
    left = frozenset(pair for wave in made[1:] for pair in pairs_of(wave))
    bad = next(iter(pairs_of(made[0])))
    again = waves(asked=asked, ways=[(one, one)], run="s", only=Wanted(frozenset({(*bad, "udp")}), left))
    (single,), *whole = again
    assert (single[0].members[0].node, {(t.dst, t.proto.name) for t in single[1].targets}) == (
        bad[0], {(bad[1], "udp")},
    )  # fmt: skip
    assert [round_.number for ((_, round_),) in whole] == [2, 3]
    assert [pairs_of(wave) for wave in whole] == [pairs_of(wave) for wave in made[1:]]


def test_a_resume_that_is_stopped_loses_nothing() -> None:
    before = Kept(version=2, pairs=(("a", "b", "tcp"), ("a", "c", "udp")), nodes=(), left={"a": ("d",), "b": ("c",)})
    assert wanted(before) == Wanted(
        frozenset({("a", "b", "tcp"), ("a", "c", "udp")}), frozenset({("a", "d"), ("b", "c")})
    )
    now = kept(Result(rows=(), apart=(), verdicts=()), left={("a", "c"), ("b", "c")}, before=before)
    assert now.pairs == (("a", "c", "udp"),), "the first was asked and is good"
    assert now.left == {"b": ("c",)}
    assert ("b", "c", "http") in (wanted(now) or ())
    assert ("a", "c", "tcp") not in (wanted(now) or ())
