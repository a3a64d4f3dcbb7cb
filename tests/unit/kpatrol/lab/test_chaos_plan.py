from collections import Counter

from tests.integration.chaos_plan import SERVICES, plan

AGENTS = ("node-1", "node-2")
EVERYTHING = {*SERVICES, "agent-node-1", "agent-node-2", "broker-1", "broker-2", "broker-3"}


def test_the_same_seed_gives_the_same_steps() -> None:
    one, same, other = (plan(seed=s, kills=30, cuts=4, within_s=100, agents=AGENTS, brokers=3) for s in (1, 1, 2))
    assert one == same
    assert one != other


def test_everything_is_killed_and_the_steps_are_in_order_within_their_time() -> None:
    steps = plan(seed=3, kills=30, cuts=4, within_s=100, agents=AGENTS, brokers=3)
    assert Counter(s.action for s in steps) == {"kill": 30, "cut data": 2, "cut kafka": 2}
    killed = Counter(s.name for s in steps if s.action == "kill")
    assert killed.keys() == EVERYTHING
    assert max(killed.values()) - min(killed.values()) <= 1
    assert [s.at_s for s in steps] == sorted(s.at_s for s in steps)
    assert 0 <= steps[0].at_s < steps[-1].at_s < 100


def test_what_is_cut_or_a_broker_comes_back_by_the_plan() -> None:
    for step in plan(seed=3, kills=30, cuts=4, within_s=100, agents=AGENTS, brokers=3, longest_cut_s=20):
        longest = 20 if step.action != "kill" else 4 if step.name.startswith("broker-") else 0
        assert 0 <= step.for_s <= longest
        assert step.words()


def test_an_outage_of_clickhouse_is_filled_with_kills_of_the_others() -> None:
    steps = plan(seed=3, kills=120, cuts=4, within_s=200, agents=AGENTS, brokers=3, outage=(60.0, 60.0))
    (away,) = [s for s in steps if s.action == "take away"]
    assert (away.at_s, away.name, away.for_s) == (60.0, "clickhouse", 60.0)
    assert [s.at_s for s in steps] == sorted(s.at_s for s in steps)
    killed = Counter(s.name for s in steps if s.action == "kill")
    assert killed.total() == 120
    assert max(killed.values()) - min(killed.values()) <= 1
    meanwhile = [s.name for s in steps if s.action == "kill" and 60 <= s.at_s <= 120]
    assert len(meanwhile) > 30
    assert "clickhouse" not in meanwhile
