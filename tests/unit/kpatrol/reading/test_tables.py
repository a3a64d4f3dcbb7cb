"""What a person sees: golden text of a small report."""

import re
from typing import Any

import msgspec
from rich.console import Console

from kpatrol.reading import words
from kpatrol.reading.document import exit_code, report_json
from kpatrol.reading.store import Cell
from kpatrol.reading.tables import task_report
from topics.round_progress import Hop, HopTrace
from topics.round_verdicts import EXAMPLE, AgentAccount, Finding, Loss
from topics.task_rounds import FOLLOW_UP


def render(*parts: object) -> str:
    console = Console(width=190, no_color=True, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    return captured.get()


def test_units_fit_the_number() -> None:
    assert [words.delay(v) for v in (None, 312.4, 4100, 1_200_000)] == ["–", "312 µs", "4.1 ms", "1.20 s"]
    shares = (None, 0, 0.021, 0.00013, 0.316, 0.9992, 0.9995, 0.99999, 1)
    assert [words.percent(v) for v in shares] == [
        "–", "0 %", "2.1 %", "0.013 %", "31.6 %", "99.9 %", "99.95 %", "99.999 %", "100 %",
    ]  # fmt: skip
    assert words.interval(0.0171, 0.0262) == "[1.7–2.6]"
    assert words.interval(0.96, 1.0) == "[96–100]"


def test_findings_and_matrix_point_at_the_node() -> None:
    loss = Loss(sent=800, lost=17, rate=0.02125, low=0.0133, high=0.0338)
    finding = Finding(
        element="node-3",
        direction="ingress",
        kind="loss",
        sentence="node-3 loses 2.1 % [1.3–3.4] of what it receives",
        loss=loss,
        confidence=0.999,
    )
    verdict = msgspec.structs.replace(EXAMPLE, findings=(finding,), loss=loss, verdict="fail")
    cells = [
        Cell(src="node-1", dst="node-3", requests=100, ok=98, packets_sent=200, packets_lost=4),
        Cell(src="node-3", dst="node-1", requests=100, ok=100, packets_sent=200, packets_lost=0),
    ]
    text = render(task_report("netreach/reach-task", [verdict], cells))
    assert "node-3 ingress: in round 1" in text
    assert "round 1: node-3 loses 2.1 % [1.3–3.4] of what it receives" in text
    assert "17 of 800 = 2.1 % [1.3–3.4]" in text
    assert "2.0 ✗2" in text
    assert "fail" in text


def test_nothing_found_is_said() -> None:
    assert "findings: none" in render(task_report("netreach/reach-task", [EXAMPLE], []))


def test_a_closer_look_stands_below_what_it_looks_at_and_is_no_task_of_its_own() -> None:
    spec = {
        **{"task": "netpatrol/mesh", "round": 3, "sentence": "node-3 loses 20 %", "suspects": ["node-3"]},
        **{"controls": ["node-1", "node-2"], "hostCounters": {"node-3": {"softnet_drops": 7}}},
        "clusterEvents": [{"object": "Node/node-3", "reason": "NotReady", "message": "kubelet stopped"}],
    }
    closer = msgspec.structs.replace(
        EXAMPLE, task="followup/mesh-ab", round_id=8, kind=FOLLOW_UP, spec=spec, verdict="fail"
    )
    text = render(task_report(closer.task, [closer], []))
    assert "a closer look at netpatrol/mesh, round 3: node-3 loses 20 %" in text
    assert "node-3 beside node-1, node-2" in text
    assert "node-3, its own kernel in that round: softnet drops 7" in text
    assert "before it: Node/node-3 NotReady: kubelet stopped" in text
    document = report_json([EXAMPLE, closer])
    assert [t["task"] for t in document["tasks"]] == [EXAMPLE.task]
    assert [r["task"] for r in document["follow_ups"]] == [closer.task]
    assert "follow_ups" not in report_json([EXAMPLE])
    assert exit_code([EXAMPLE, closer]) == 0


def test_a_closer_look_names_the_hops_and_where_a_way_ends() -> None:
    def way(node: str, *addresses: str, **values: Any) -> HopTrace:
        hops = tuple(Hop(limit=n, address=a, sent=3, answered=3 if a else 0) for n, a in enumerate(addresses, start=1))
        return HopTrace(agent=node, node=node, address="10.9.9.9", hops=hops, asked=24, **values)

    own = (
        way("node-1", "10.0.0.1", "", "10.3.0.2", reached=True),
        way("node-2", "10.0.0.1"),
        way("node-4", "10.0.0.1", error="prohibited"),
        way("node-5"),
    )
    counts = {"planned": 1, "stored": 1, "unsent": 0, "declared_missing": 0, "unexplained": 0}
    accounts = (
        AgentAccount(agent="node-3", node="node-3", traces=own, **counts),
        AgentAccount(
            agent="node-1", node="node-1", traces=(way("node-3", reached=True), way("node-2", reached=True)), **counts
        ),
    )
    spec = {"task": "netpatrol/mesh", "round": 3, "sentence": "…", "suspects": ["node-3"], "controls": ["node-1"]}
    closer = msgspec.structs.replace(
        EXAMPLE, task="followup/mesh-ab", round_id=8, kind=FOLLOW_UP, spec=spec, accounts=accounts
    )
    text = render(task_report(closer.task, [closer], []))
    assert "node-3 > node-1: 10.0.0.1 * 10.3.0.2 (there after 3 hops)" in text
    assert "node-3 > node-2: 10.0.0.1 (ends behind hop 1: nothing beyond answered, up to hop 24)" in text
    assert "node-3 > node-4: 10.0.0.1 (ends behind hop 1: it says prohibited)" in text
    assert "node-3 > node-5: nothing answered up to hop 24" in text
    assert "node-1 > node-3:" in text
    assert "node-1 > node-2:" not in text, "two controls"
    assert "ways among the others: 1 of 1 there" in text
    assert re.search(r"\bsucceed\b", text) is None, "a closer look asks nothing"
    told = report_json([EXAMPLE, closer])["follow_ups"][0]["accounts"][0]["traces"][0]
    assert [hop["address"] for hop in told["hops"]] == ["10.0.0.1", "", "10.3.0.2"]
