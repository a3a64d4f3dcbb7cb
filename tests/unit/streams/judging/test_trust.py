from typing import Any

import pytest

from streams.judging.trust import Fitness, grade


def fit(**changes: Any) -> Fitness:
    return Fitness(**{"agent": "a", "node": "node-1", "asked_rate": 100.0, "achieved_rate": 100.0} | changes)


def test_a_fit_agent_is_good() -> None:
    trust, unfit = grade([fit(lateness_p99_us=4_999)])
    assert (trust.grade, trust.reasons, trust.lateness_p99_us, unfit) == ("good", (), 4_999, frozenset())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lateness_p99_us": 7_500}, "a: 1 % sent 7.5 ms late or more (limit 5 ms)"),
        ({"throttled_us": 80_000}, "a: CPU throttled for 80 ms"),
        ({"loop_lag_max_us": 400_000}, "a: stood still for 400 ms"),
        ({"socket_drops": 3}, "a: 3 packets dropped in its own sockets"),
        ({"unsent": 12}, "a: 12 requests not sent"),
        ({"achieved_rate": 60.0}, "a: 60 of 100 requests/s reached"),
    ],
)
def test_each_weakness_degrades_the_round_with_its_number(changes: dict[str, Any], reason: str) -> None:
    trust, unfit = grade([fit(**changes), fit(agent="b", node="node-2")])
    assert trust.grade == "degraded"
    assert trust.reasons == (reason,)
    assert unfit == {"node-1"}


def test_rates_of_all_agents_are_summed_and_the_worst_lateness_shown() -> None:
    trust, _ = grade([fit(lateness_p99_us=10), fit(agent="b", lateness_p99_us=900)])
    assert (trust.asked_rate, trust.achieved_rate, trust.lateness_p99_us) == (200.0, 200.0, 900)


def test_a_round_without_agents_is_not_degraded() -> None:
    assert grade([])[0].grade == "good"
