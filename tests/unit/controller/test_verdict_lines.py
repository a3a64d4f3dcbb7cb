"""Verdicts as lines and files: kdoctor's keys, rotation by age and size."""

import io
import json
from pathlib import Path

import msgspec

from controller.verdict_lines import Kept, VerdictLines, kept, summary, to_remove
from topics.round_verdicts import EXAMPLE

NOW_US = EXAMPLE.start_us + 20_000_000


def test_a_line_has_kdoctors_keys() -> None:
    out = io.StringIO()
    VerdictLines(out=out).tell(EXAMPLE, now_us=NOW_US)
    (line,) = out.getvalue().splitlines()
    said = json.loads(line)
    assert {
        *(
            "TaskName",
            "TaskSpec",
            "RoundNumber",
            "RoundResult",
            "NodeName",
            "PodName",
            "FailedReason",
            "StartTimeStamp",
        ),
        *("EndTimeStamp", "RoundDuraiton", "ReportType", "Detail"),
    } <= set(said)
    assert (said["TaskName"], said["RoundResult"], said["RoundDuraiton"]) == ("netreach.reach-task", "succeed", "10.4s")
    assert said["Detail"]["roundNumber"] == 1
    assert summary(msgspec.structs.replace(EXAMPLE, verdict="fail", why="w"))["FailedReason"] == "w"


def test_a_file_is_replaced_by_the_next_revision(tmp_path: Path) -> None:
    lines = VerdictLines(out=io.StringIO(), folder=tmp_path, age_days=1)
    lines.tell(EXAMPLE, now_us=NOW_US)
    lines.tell(msgspec.structs.replace(EXAMPLE, revision=2), now_us=NOW_US)
    (path,) = tmp_path.iterdir()
    assert path.name == "NetReach_reach-task_round1_summary_2026-09-22T14:13:20Z"
    assert json.loads(path.read_text())["Revision"] == 2
    assert path.read_text().startswith("{\n\t")


def test_expired_files_go_and_others_stay(tmp_path: Path) -> None:
    lines = VerdictLines(out=io.StringIO(), folder=tmp_path, age_days=1)
    lines.tell(EXAMPLE, now_us=NOW_US)
    (tmp_path / "notes.txt").write_text("mine")
    assert lines.clean(now_us=NOW_US) == []
    assert len(lines.clean(now_us=NOW_US + 2 * 86_400_000_000)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_too_much_goes_oldest_first_but_never_the_newest() -> None:
    files = [
        Kept(name=f"f{day}", round=f"r{day}", expiry=f"2026-01-0{day}T00:00:00Z", size_bytes=100) for day in (3, 2, 4)
    ]
    assert to_remove(files, now="2026-01-01T00:00:00Z", most_bytes=250) == ["f2"]
    assert to_remove(files, now="2026-01-01T00:00:00Z", most_bytes=1) == ["f2", "f3"]
    assert to_remove(files, now="2026-01-03T00:00:00Z", most_bytes=1000) == ["f2", "f3"]


def test_a_folder_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    out = io.StringIO()
    VerdictLines(out=out, folder=tmp_path / "gone").tell(EXAMPLE, now_us=NOW_US)
    assert out.getvalue()
    assert kept(tmp_path) == []
