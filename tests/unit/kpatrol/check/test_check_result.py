"""From rows to exit codes, JSON, JUnit, and what changed since the last run."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from xml.etree import ElementTree

import pytest
from rich.console import Console

from kpatrol.check import words
from kpatrol.check.nodes import NodeState
from kpatrol.check.pairs import REASONS, PairRow
from kpatrol.check.result import TASK, Apart, Result, as_json, as_junit, compared, kept
from kpatrol.check.show import show
from topics.round_verdicts import Loss

GOOD = PairRow(
    cluster="cluster", src="a", dst="b", proto="tcp", address="10.0.0.2", status="good", reason="", detail="",
    requests=10, ok=10, loss=Loss(sent=30, lost=0, rate=0.0, low=0.0, high=0.11), p50_us=300.0,
)  # fmt: skip
BAD = replace(GOOD, dst="c", status="bad", reason="refused", detail="10 of 10: refused", ok=0, p50_us=None)
UNKNOWN = replace(GOOD, src="c", status="unknown", reason="not_heard", detail="nothing was heard", requests=0, ok=0)
ABSENT = Apart(cluster="cluster", state=NodeState(node="d", standing="absent", why="ErrImageNeverPull"))
LEFT_OUT = Apart(cluster="cluster", state=NodeState(node="e", standing="left_out", why="the node is NotReady"))


@pytest.mark.parametrize(
    ("rows", "apart", "strict", "code"),
    [
        ([GOOD], [], False, 0),
        ([GOOD, BAD, UNKNOWN], [ABSENT], False, 1),
        ([GOOD, UNKNOWN], [], False, 2),
        ([GOOD], [ABSENT], False, 2),
        ([GOOD], [LEFT_OUT], False, 0),
        ([GOOD], [LEFT_OUT], True, 2),
        ([], [], False, 2),
    ],
)
def test_unknown_is_never_green(rows: list[PairRow], apart: list[Apart], strict: bool, code: int) -> None:
    result = Result(rows=rows, apart=apart, verdicts=())
    assert result.exit_code(strict=strict) == code
    assert as_json(result, strict=strict)["exit_code"] == code


def test_what_is_kept_and_what_has_changed() -> None:
    before = kept(Result(rows=[GOOD, BAD, UNKNOWN], apart=[ABSENT, LEFT_OUT], verdicts=()))
    assert before.pairs == (("a", "c", "tcp"), ("c", "b", "tcp"))
    assert before.nodes == (("cluster", "d"),)
    now = [replace(BAD, status="good"), replace(GOOD, status="bad")]
    assert compared(before, now) == {
        ("a", "c", "tcp"): "fixed", ("c", "b", "tcp"): "gone", ("a", "b", "tcp"): "newly_bad",
    }  # fmt: skip


def test_what_became_of_a_node_in_a_task() -> None:
    rows = [replace(BAD, src=node, dst="*", proto=TASK, reason="task") for node in ("a", "b")]
    before = kept(Result(rows=rows, apart=(), verdicts=()))
    assert (before.pairs, before.nodes) == ((), (("cluster", "a"), ("cluster", "b")))
    now = [replace(rows[0], status="good"), rows[1], replace(rows[1], src="c")]
    assert compared(before, now) == {
        ("a", "*", TASK): "fixed", ("b", "*", TASK): "still_bad", ("c", "*", TASK): "newly_bad",
    }  # fmt: skip


def test_what_cannot_be_asked_again_is_not_gone_and_never_green() -> None:
    before = kept(Result(rows=[BAD, UNKNOWN], apart=(), verdicts=()))
    away = Apart(cluster="cluster", state=NodeState(node="a", standing="left_out", why="the node is NotReady"))
    changes = compared(before, [], apart=[away])
    assert changes == {("a", "c", "tcp"): "not_asked", ("c", "b", "tcp"): "gone"}
    result = Result(rows=(), apart=[away], verdicts=(), changes=changes)
    assert result.exit_code(strict=False) == 2
    assert kept(result).pairs == (("a", "c", "tcp"),), "for the next time"


def test_a_resume_after_which_nothing_is_left_is_good() -> None:
    assert Result(rows=(), apart=(), verdicts=(), changes={}).exit_code(strict=False) == 0


def test_junit_has_a_case_a_pair_and_a_node() -> None:
    text = as_junit(Result(rows=[GOOD, BAD, UNKNOWN], apart=[ABSENT, LEFT_OUT], verdicts=()))
    suite = ElementTree.fromstring(text)
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("5", "1", "2")
    assert [case[0].tag if len(case) else "" for case in suite] == ["", "failure", "error", "error", "skipped"]


@pytest.mark.parametrize(("lang", "expected"), [("en", "1 good, 1 bad, 1 not known"), ("zh", "正常 1，异常 1，未知 1")])
def test_tables_in_both_languages(lang: words.Language, expected: str) -> None:
    out = StringIO()
    result = Result(rows=[BAD, UNKNOWN, GOOD], apart=[ABSENT], verdicts=(), changes={BAD.key: "still_bad"})
    show(result, console=Console(file=out, width=160), lang=lang, all_rows=False)
    text = out.getvalue()
    assert expected in text
    assert "ErrImageNeverPull" in text
    assert words.reason("refused", lang) in text
    assert words.say("still_bad", lang) in text


def test_every_reason_and_standing_has_words() -> None:
    for lang in ("en", "zh"):
        assert all(words.reason(reason, lang) for reason in REASONS if reason)
        assert all(words.say(name, lang) for name in ("absent", "waiting", "left_out"))
    assert all(len(pair) == 2 and all(pair) for pair in words.WORDS.values())
    assert words.language({"LANG": "zh_CN.UTF-8"}) == "zh"
    assert words.language({"LC_ALL": "C", "LANG": "zh_CN"}) == "en"
