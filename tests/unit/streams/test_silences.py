"""The file of maintenances: what it covers, what is refused, and that a bad one does not end the last good one."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from streams.silences import SilencesFile, parse, reason_of
from topics.connection import BadConfiguration

FROM = "2026-11-21T22:00:00Z"
GOOD: dict[str, Any] = {
    "silences": [
        {"reason": "switch", "from": FROM, "until": "2026-11-22T02:00:00+01:00", "match": {"element": "rack *"}}
    ]
}
LABELS = {"task": "t", "element": "rack r7", "direction": "egress", "kind": "loss", "severity": "critical"}
AT_US = int(datetime.datetime(2026, 11, 21, 22, tzinfo=datetime.UTC).timestamp()) * 1_000_000


def test_it_covers_what_fits_from_its_beginning_until_before_its_end() -> None:
    silences = parse(GOOD, where="f")
    end_us = AT_US + 3 * 3600 * 1_000_000
    reasons = [reason_of(silences, labels=LABELS, at_us=at) for at in (AT_US - 1, AT_US, end_us - 1, end_us)]
    assert reasons == ["", "switch", "switch", ""]
    assert reason_of(silences, labels=LABELS | {"element": "node-1"}, at_us=AT_US) == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"until": FROM}, "until: found .*, expected a time after `from`"),
        ({"from": "tomorrow"}, "from: found tomorrow, expected a time with its zone"),
        ({"from": "2026-11-21T22:00:00"}, "expected a time with its zone"),
        ({"match": {}}, "match: is empty, expected one or more of: task, element"),
        ({"match": {"node": "x"}}, "match: found 'node', allowed: task, element"),
        ({"match": {"task": 3}}, "match.task: found 3, expected a shell pattern"),
        ({"reason": ""}, "reason: found '', expected text"),
        ({"why": "x"}, "found 'why', allowed: reason, from, until, match"),
    ],
)
def test_what_cannot_be_used_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfiguration, match=message):
        parse({"silences": [GOOD["silences"][0] | change]}, where="f")


def test_a_changed_file_is_read_again_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    path, said = tmp_path / "silences.yaml", []
    file = SilencesFile(path=path, say=said.append)
    assert file.now() == ()
    assert "No such file" in said.pop()
    path.write_text(
        "silences: [{reason: works, from: 2026-11-21T22:00:00Z, until: 2026-11-22T22:00:00Z, match: {task: '*'}}]"
    )
    assert [s.reason for s in file.now()] == ["works"]
    path.write_text("silences: [")
    assert [s.reason for s in file.now()] == ["works"]
    assert "the last good ones hold" in said[0]
    assert SilencesFile(path=None).now() == ()
