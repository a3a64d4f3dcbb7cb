"""What a canary ignores: its share of one agent's datagrams in its own round, and nothing else."""

from msgspec.structs import replace

from producers.responder.canaries import Canaries, ignored
from topics.task_rounds import EXAMPLE, Canary

CANARY = Canary(src="a", dst="b", src_node="n1", dst_node="n2", share=0.2)
ROUND = replace(EXAMPLE, round_id=7, deadline_us=1_000, canary=CANARY)


def taken(canaries: Canaries, *, round_id: int = 7, agent: str = "a") -> list[int]:
    return [seq for seq in range(5_000) if canaries.takes(round_id=round_id, agent=agent, seq=seq)]


def test_the_share_of_the_one_agent_is_ignored_in_that_round_alone() -> None:
    canaries = Canaries(agent="b")
    canaries.heard(ROUND, now_us=0)
    mine = taken(canaries)
    assert 850 < len(mine) < 1_150
    assert mine == [seq for seq in range(5_000) if ignored(round_id=7, seq=seq, share=0.2)] == taken(canaries)
    assert canaries.ignored == 2 * len(mine)
    assert taken(canaries, agent="c") == taken(canaries, round_id=8) == []


def test_other_agents_and_rounds_without_a_canary_ignore_nothing() -> None:
    other, plain = Canaries(agent="c"), Canaries(agent="b")
    other.heard(ROUND, now_us=0)
    plain.heard(replace(ROUND, canary=None), now_us=0)
    assert taken(other) == taken(plain) == []


def test_a_round_past_its_deadline_is_forgotten() -> None:
    canaries = Canaries(agent="b")
    canaries.heard(ROUND, now_us=0)
    canaries.heard(replace(ROUND, round_id=8, deadline_us=3_000), now_us=2_000)
    assert taken(canaries) == []
    assert taken(canaries, round_id=8)
