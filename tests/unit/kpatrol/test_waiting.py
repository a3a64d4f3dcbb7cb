"""`kpatrol wait`: what is needed, what is missing, when the patience ends."""

import pytest

from kpatrol.waiting import NotReady, missing_tables, topics_of, wait


def test_a_role_needs_what_it_reads_and_writes_and_its_changelogs() -> None:
    assert "probe-results-v1" in topics_of("sink")
    assert "kpatrol-judge-rounds-changelog" in topics_of("judge")
    assert "kpatrol-judge-rounds-changelog" not in topics_of("sink")
    with pytest.raises(ValueError, match=r"allowed: .*controller"):
        topics_of("nobody")


def test_a_database_of_a_newer_version_is_ready() -> None:
    rows = [
        {"file": "0001.sql", "kind": "table", "state": "applied"},
        {"file": "0099_?.sql", "kind": "table", "state": "unknown"},
        {"file": "v.sql", "kind": "view", "state": "changed"},
    ]
    assert missing_tables(rows) == []
    rows.append({"file": "0002.sql", "kind": "table", "state": "pending"})
    rows.append({"file": "0003.sql", "kind": "table", "state": "changed"})
    assert missing_tables(rows) == ["0002.sql (pending)", "0003.sql (changed)"]


def test_it_looks_until_nothing_is_missing_and_says_each_thing_once() -> None:
    left, said, now = [["a", "b"], ["a", "b"], ["b"], []], [], [0.0]
    wait(looks=[lambda: left.pop(0)], patience_s=60, say=said.append, clock=lambda: now[0], sleep=lambda _: None)
    assert said == ["waiting for a, b", "waiting for b"]


def test_patience_ends_with_what_was_missing() -> None:
    now = iter(range(100))
    with pytest.raises(NotReady, match="not there after 3 s: x"):
        wait(looks=[lambda: ["x"]], patience_s=3, say=lambda _: None, clock=lambda: next(now), sleep=lambda _: None)
