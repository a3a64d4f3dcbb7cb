"""The JSON keeps its names, and the exit code never turns the unknown green."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kpatrol.reading.document import exit_code, newest, report_json, tasks_in_order
from topics.round_verdicts import EXAMPLE, RoundVerdict
from topics.task_rounds import FOLLOW_UP

STABLE = {
    "round", "verdict", "why", "revision", "final", "success_rate", "mean_us", "p50_us", "p99_us", "planned", "stored",
    "unsent", "declared_missing", "unexplained", "duplicates", "verdict_delay_s", "trust", "requests", "loss",
    "findings",
}  # fmt: skip


def verdict(**changes: Any) -> RoundVerdict:
    return msgspec.structs.replace(EXAMPLE, **changes)


def test_stable_names_are_there() -> None:
    document = json.loads(json.dumps(report_json([verdict()])))
    assert document["task"] == "netreach/reach-task"
    (round_,) = document["rounds"]
    assert set(round_) >= STABLE
    assert set(round_["requests"]) >= {"sent", "ok", "failed"}
    assert set(round_["loss"]) == {"sent", "lost", "rate", "low", "high"}
    assert document["tasks"][0]["rounds"] == document["rounds"]


def test_several_tasks_stand_side_by_side() -> None:
    other = verdict(task="netdns/names", round_id=8)
    document = report_json([verdict(), other])
    assert [t["task"] for t in document["tasks"]] == ["netdns/names", "netreach/reach-task"]
    assert "rounds" not in document


def test_the_highest_revision_counts() -> None:
    first, second = verdict(revision=1, final=False, verdict="fail"), verdict(revision=2)
    assert newest([second, first]) == [second]
    assert exit_code([first, second]) == 0


@pytest.mark.parametrize(
    ("verdicts", "expected", "code"),
    [
        ([], None, 2),
        ([verdict()], None, 0),
        ([verdict()], 2, 2),
        ([verdict(final=False)], None, 2),
        ([verdict(verdict="unknown")], None, 2),
        ([verdict(verdict="fail")], None, 1),
        ([verdict(verdict="unknown"), verdict(verdict="fail", round_id=8)], None, 1),
    ],
)
def test_exit_codes(verdicts: list[RoundVerdict], expected: int | None, code: int) -> None:
    assert exit_code(verdicts, expected_rounds=expected) == code


def test_every_field_is_there_even_when_empty() -> None:
    (round_,) = report_json([verdict()])["rounds"]
    assert round_["not_reported_nodes"] == round_["findings"] == round_["missing_causes"] == []
    assert set(round_["loss"]) == {"sent", "lost", "rate", "low", "high"}


def test_documented_fields_exist() -> None:
    page = (Path(__file__).parents[4] / "docs" / "report.md").read_text().split("| field of a round")[1]
    named = set(
        re.findall(
            r"`([a-z][a-z_0-9]+)`",
            "\n".join(line.split("|")[1] for line in page.splitlines()[2:] if line.startswith("|")),
        )
    )
    (round_,) = report_json([verdict()])["rounds"]
    assert named - set(round_) == set()


def test_a_closer_look_comes_next_to_the_task_it_looks_at() -> None:
    told = [
        verdict(task="followup/b-1", kind=FOLLOW_UP, spec={"task": "netpatrol/b"}),
        verdict(task="followup/gone-1", kind=FOLLOW_UP, spec={"task": "netpatrol/gone"}),
        verdict(task="netpatrol/a"),
        verdict(task="netpatrol/b"),
        verdict(task="netreach/c"),
    ]
    assert tasks_in_order(told) == ["netpatrol/a", "netpatrol/b", "followup/b-1", "netreach/c", "followup/gone-1"]
