from typing import Any

from streams.judging.pair_table import PairTable
from streams.judging.trust import Fitness
from streams.judging.verdict import Facts, judge
from tests.unit.streams.judging.mesh import START_US, accounts, full_mesh, line, nodes, scheduled, table
from topics import round_verdicts
from topics.round_verdicts import RoundVerdict
from topics.task_rounds import Expect

FINISHED_US = START_US + 10_500_000


def verdict(pairs: PairTable | None, **changes: Any) -> RoundVerdict:
    values: dict[str, Any] = {
        **{"round": scheduled(), "accounts": accounts(), "fitness": (), "final": True},
        **{"last_result_us": FINISHED_US},
    }
    return judge(facts=Facts(**values | changes), pairs=pairs, revision=1, at_us=FINISHED_US + 200_000)


def mesh_with(bad: dict[str, Any], *, src: str = "node-1", dst: str = "node-3") -> PairTable:
    ends = [(a, b) for a in nodes(3) for b in nodes(3) if a != b]
    return table([line(a, b, **(bad if (a, b) == (src, dst) else {})) for a, b in ends])


def test_a_good_round_succeeds_with_its_numbers() -> None:
    made = verdict(full_mesh(3))
    assert (made.verdict, made.success_rate, made.verdict_delay_s) == ("succeed", 1.0, 0.2)
    assert made.why == "600 of 600 requests succeeded (asked: 100 %), mean 1 ms (allowed: 1500 ms)"
    assert (made.planned, made.stored, made.unexplained, made.duplicates) == (600, 600, 0, 0)
    assert (made.loss.sent, made.loss.lost, made.loss.low) == (1200, 0, 0.0)
    assert made.succeeded_nodes == ("node-1", "node-2", "node-3")
    assert made.delay.p50_us is not None
    assert abs(made.delay.p50_us / 1000 - 1) < 0.09
    assert round_verdicts.TOPIC.decode(round_verdicts.TOPIC.encode(made)) == made


def test_one_target_below_the_rate_fails_the_round_and_is_named() -> None:
    made = verdict(mesh_with({"failed": {"timeout": 8}}))
    assert made.verdict == "fail"
    assert made.why == (
        "1 of 6 pairs below the success rate asked (100 %): node-1 → node-3 http 92 % (8 timeout of 100); "
        "592 of 600 requests succeeded"
    )
    assert (made.failed_nodes, made.succeeded_nodes) == (("node-1",), ("node-2", "node-3"))
    assert made.worst[0].dst == "node-3"


def test_an_overall_rate_that_is_met_does_not_excuse_one_target() -> None:
    lenient = scheduled(expect=Expect(success_rate=0.95))
    assert verdict(mesh_with({"failed": {"timeout": 6}}), round=lenient).verdict == "fail"
    assert verdict(mesh_with({"failed": {"timeout": 5}}), round=lenient).verdict == "succeed"


def test_failures_do_not_lower_the_mean_delay() -> None:
    strict = scheduled(expect=Expect(success_rate=0.0, mean_delay_ms=100))
    slow = mesh_with({"failed": {"refused": 90}, "each_us": 150_000})
    made = verdict(slow, round=strict)
    assert made.verdict == "fail"
    assert "1 of 6 pairs slower than 100 ms on average: node-1 → node-3 http 150 ms" in made.why


def test_the_mean_is_compared_in_microseconds() -> None:
    strict = scheduled(expect=Expect(mean_delay_ms=100))
    assert verdict(mesh_with({"each_us": 100_000}), round=strict).verdict == "succeed"
    assert verdict(mesh_with({"each_us": 100_001}), round=strict).verdict == "fail"


def test_the_mean_counts_from_the_moment_of_sending() -> None:
    late = mesh_with({"total_us_sum": 100 * 5_000_000, "total_us_max": 5_000_000})
    assert verdict(late, round=scheduled(expect=Expect(mean_delay_ms=100))).verdict == "succeed"


def test_a_large_sum_of_delays_keeps_its_last_microsecond() -> None:
    n = 20_000_001
    huge = table([line("node-1", "node-2", n=n, each_us=1_500_001)])
    assert verdict(huge, round=scheduled(expect=Expect(mean_delay_ms=1500))).verdict == "fail"
    assert verdict(huge).delay.mean_us == 1_500_001


def test_requests_not_sent_are_no_success() -> None:
    made = verdict(full_mesh(3, n=90), accounts=accounts(node_1={"stored": 180, "unsent": 20}))
    assert made.verdict == "unknown"
    assert "the instrument could not send 20 requests (node-1)" in made.why
    assert (made.unsent, made.unexplained) == (20, 0)


def test_a_timeout_seen_by_an_unfit_agent_is_not_blamed_on_the_network() -> None:
    weak = Fitness(agent="node-1", node="node-1", lateness_p99_us=90_000)
    made = verdict(mesh_with({"failed": {"timeout": 8}}), fitness=[weak])
    assert (made.verdict, made.trust.grade) == ("unknown", "degraded")
    assert "the agents there were not fit to measure" in made.why


def test_a_refusal_is_certain_whoever_saw_it() -> None:
    weak = Fitness(agent="node-1", node="node-1", lateness_p99_us=90_000)
    assert verdict(mesh_with({"failed": {"refused": 8}}), fitness=[weak]).verdict == "fail"


def test_an_unfit_agent_elsewhere_excuses_nothing() -> None:
    weak = Fitness(agent="node-2", node="node-2", lateness_p99_us=90_000)
    assert verdict(mesh_with({"failed": {"timeout": 8}}), fitness=[weak]).verdict == "fail"


def test_agents_that_did_not_report_fail_the_round_by_name() -> None:
    gone = {"stored": 0, "declared_missing": 200, "cause": "no report for 15 s", "state": "gone"}
    pairs = table([line(a, b) for a in nodes(2) for b in nodes(3) if a != b])
    made = verdict(pairs, accounts=accounts(node_3=gone))
    assert made.verdict == "fail"
    assert "1 agent did not report: node-3 (no report for 15 s)" in made.why
    assert (made.not_reported_nodes, made.declared_missing) == (("node-3",), 200)
    assert made.missing_causes == ("no report for 15 s",)


def test_lost_records_that_could_have_decided_leave_it_open() -> None:
    died = {"stored": 150, "declared_missing": 50, "cause": "agent died"}
    pairs = table([line(a, b, n=75 if a == "node-1" else 100) for a in nodes(3) for b in nodes(3) if a != b])
    made = verdict(pairs, accounts=accounts(node_1=died))
    assert made.verdict == "unknown"
    assert "the record of 50 requests is lost (node-1: agent died)" in made.why
    lenient = scheduled(expect=Expect(success_rate=0.5))
    assert verdict(pairs, accounts=accounts(node_1=died), round=lenient).verdict == "succeed"


def test_anything_unexplained_is_never_a_success() -> None:
    made = verdict(full_mesh(3), accounts=accounts(node_1={"stored": 199, "unexplained": 1}))
    assert (made.verdict, made.unexplained) == ("unknown", 1)
    assert "1 request unexplained (node-1)" in made.why


def test_surplus_of_one_agent_does_not_hide_the_lack_of_another() -> None:
    odd = accounts(node_1={"stored": 190, "unexplained": 10}, node_2={"stored": 210, "unexplained": -10})
    made = verdict(full_mesh(3), accounts=odd)
    assert (made.verdict, made.unexplained) == ("unknown", 0)


def test_no_targets_no_agents_and_nothing_stored_are_never_a_success() -> None:
    empty = table([])
    assert verdict(empty, round=scheduled(planned=0), accounts=()).why == "nothing was planned: no agent takes part"
    idle = accounts(1)
    assert verdict(empty, round=scheduled(planned=0), accounts=idle).verdict == "unknown"
    assert "no result is stored" in verdict(empty).why
    assert verdict(empty).success_rate is None


def test_what_the_task_names_and_the_cluster_lacks_fails() -> None:
    made = verdict(full_mesh(3), round=scheduled(unresolved=("service shop/cart",)))
    assert made.verdict == "fail"
    assert "not found: service shop/cart" in made.why


def test_a_cancelled_round_is_unknown_whatever_it_saw() -> None:
    cut = accounts(node_1={"stored": 100, "declared_missing": 100, "cause": "cancelled"})
    made = verdict(mesh_with({"failed": {"refused": 8}}), accounts=cut, cancelled="stopped by hand")
    assert made.verdict == "unknown"
    assert made.why.startswith("cancelled: stopped by hand")


def test_a_provisional_verdict_says_so() -> None:
    late = accounts(node_1={"stored": 50, "unexplained": 150, "state": "unfinished"})
    made = verdict(full_mesh(3), accounts=late, final=False)
    assert (made.verdict, made.final) == ("fail", False)
    assert "provisional: judged at the deadline with what there is (450 of 600 stored)" in made.why


def test_a_result_after_the_deadline_is_mentioned() -> None:
    short = scheduled(deadline_us=START_US + 9_000_000)
    assert verdict(full_mesh(3), round=short).why.endswith("the last result came 1500 ms after the deadline")


def test_results_that_cannot_be_read_are_unknown() -> None:
    made = verdict(None, trouble="the stored results cannot be read: ClickHouse is away", final=False)
    assert made.verdict == "unknown"
    assert "ClickHouse is away" in made.why
    assert "no result is stored" not in made.why


def test_somebody_else_at_the_address_is_neither_success_nor_loss() -> None:
    made = verdict(mesh_with({"failed": {"wrong_peer": 10}, "packets_sent": 180}))
    assert made.verdict == "fail"
    assert made.requests.by_outcome == {"ok": 590, "wrong_peer": 10}
    assert (made.loss.sent, made.loss.lost, made.findings) == (1180, 0, ())


def test_the_worst_pairs_are_few_and_the_lossiest_come_first() -> None:
    made = verdict(full_mesh(8, lambda src, dst: 0.1 if dst == "node-8" else 0.0))
    assert len(made.worst) == 20
    assert [p.dst for p in made.worst[:7]] == ["node-8"] * 7
    assert made.worst[0].loss.lost == 20
    assert [f.element for f in made.findings] == ["node-8"]
