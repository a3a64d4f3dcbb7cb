from typing import Any

import pytest

from streams.judging.trust import Fitness, believable, grade
from topics.round_progress import NodeCounters
from topics.round_verdicts import Finding, Loss


def fit(**changes: Any) -> Fitness:
    return Fitness(**{"agent": "a", "node": "node-1", "asked_rate": 100.0, "achieved_rate": 100.0} | changes)


def finding(element: str) -> Finding:
    loss = Loss(sent=100, lost=10, rate=0.1, low=0.05, high=0.17)
    return Finding(element=element, direction="ingress", kind="loss", sentence="", loss=loss, confidence=1.0)


def test_a_fit_agent_is_good() -> None:
    trust, unfit = grade([fit(lateness_p99_us=9_999)])
    assert (trust.grade, trust.reasons, trust.lateness_p99_us, unfit) == ("good", (), 9_999, frozenset())


@pytest.mark.parametrize(
    ("timeout_ms", "limit_us"),
    [(100, 10_000), (200, 10_000), (300, 15_000), (500, 25_000), (1500, 50_000), (10_000, 50_000)],
)
def test_lateness_is_measured_by_the_timeout_within_bounds(timeout_ms: int, limit_us: int) -> None:
    asked = {"timeout_us": timeout_ms * 1000}
    assert grade([fit(lateness_p99_us=limit_us, **asked)])[0].grade == "good"
    assert grade([fit(lateness_p99_us=limit_us + 1, **asked)])[0].grade == "degraded"


def test_a_quota_reached_now_and_then_in_a_long_round_does_no_harm() -> None:
    assert grade([fit(throttled_us=300_000, duration_us=60_000_000)])[0].grade == "good"
    assert grade([fit(throttled_us=700_000, duration_us=60_000_000)])[0].grade == "degraded"
    assert grade([fit(loop_lag_max_us=300_000, timeout_us=1_500_000)])[0].grade == "good"


def test_a_small_lab_on_two_cores_is_healthy_and_a_starved_agent_never() -> None:
    asked = {"timeout_us": 1_500_000, "duration_us": 5_000_000}
    lab = [fit(agent=f"node-{i}", lateness_p99_us=3_000 + 500 * i, loop_lag_max_us=40_000, **asked) for i in range(5)]
    assert grade(lab)[0].grade == "good"
    starved = fit(
        lateness_p99_us=96_000, loop_lag_max_us=97_000, throttled_us=2_800_000, cpu_wait_us=2_700_000, **asked
    )
    assert grade([*lab, starved])[0].reasons == (
        "a: 1 % sent 96.0 ms late or more (limit 50 ms; waited 2700 ms for a CPU), CPU throttled for 2800 ms",
    )


def test_what_was_taken_back_is_no_weakness_and_the_rest_is_with_its_causes() -> None:
    stopped = fit(unsent=50, unsent_causes={"cancelled": 50}, achieved_rate=10.0)
    assert grade([stopped])[0].grade == "good"
    mixed = fit(unsent=62, unsent_causes={"cancelled": 50, "late": 2, "over_the_cap": 10})
    assert grade([mixed])[0].reasons == ("a: 12 requests not sent (over the cap: 10, late: 2)",)


def test_what_a_nodes_own_kernel_dropped_is_told_and_lowers_no_grade() -> None:
    own = NodeCounters(tcp_segments_out=900, tcp_retransmits=4, softnet_drops=7, conntrack_insert_failed=2)
    trust, unfit = grade([fit(node_counters=own), fit(agent="b", node="node-2", node_counters=NodeCounters())])
    assert (trust.grade, unfit) == ("good", frozenset())
    (note,) = trust.notes
    assert note.startswith("node-1, ")
    assert "7 dropped before the network stack (softnet), 2 not entered in connection tracking" in note


def test_no_finding_rests_on_an_agent_that_was_not_fit() -> None:
    nodes = frozenset({"node-1", "node-2", "node-3"})
    found = [finding("node-1"), finding("node-1>node-2"), finding("node-3>node-2"), finding("node-3")]
    kept = believable(found, unfit=frozenset({"node-1"}), nodes=nodes)
    assert [f.element for f in kept] == ["node-3>node-2", "node-3"]
    assert believable([finding("http/pod")], unfit=nodes, nodes=nodes) == ()
    assert len(believable(found, unfit=frozenset(), nodes=frozenset())) == 4


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lateness_p99_us": 12_500}, "a: 1 % sent 12.5 ms late or more (limit 10 ms)"),
        ({"throttled_us": 80_000}, "a: CPU throttled for 80 ms"),
        ({"loop_lag_max_us": 400_000}, "a: stood still for 400 ms"),
        ({"socket_drops": 3}, "a: 3 packets dropped in its own sockets"),
        ({"unsent": 12}, "a: 12 requests not sent"),
        ({"conntrack_share": 0.97}, "a: connection tracking 97 % full"),
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
