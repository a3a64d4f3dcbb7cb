"""`kpatrol validate`: the API server's answer without one."""

import io
import json
from pathlib import Path

import pytest

from controller.tasks import Limits
from kpatrol.validate import validate

GOOD = "apiVersion: kdoctor.io/v1beta1\nkind: NetReach\nmetadata: {name: a}\n"


def run(*paths: Path, as_json: bool = False, limits: Limits | None = None) -> tuple[int, str]:
    out = io.StringIO()
    return validate(paths, json=as_json, limits=limits, out=out), out.getvalue()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_text(GOOD + "spec: {request: {qps: 21}}\n")
    return path


def test_a_good_file_is_valid(good: Path) -> None:
    assert run(good) == (0, "netreach/a: valid\n")


def test_a_bad_file_gets_the_line_and_exit_code_2(bad: Path) -> None:
    code, text = run(bad)
    assert code == 2
    assert text == (
        f"{bad}:4: NetReach/a: spec.request.qps: found 21, allowed: whole number from 1 to 20\n"
        "1 problem, nothing would be scheduled\n"
    )


def test_the_ceiling_can_be_raised(bad: Path) -> None:
    assert run(bad, limits=Limits.with_max_qps(21))[0] == 0


def test_json_names_the_same_things(good: Path, bad: Path) -> None:
    code, text = run(good, as_json=True)
    assert code == 0
    assert json.loads(text) == {
        "valid": True,
        "tasks": [{"task": "netreach/a", "kind": "NetReach", "name": "a"}],
        "problems": [],
    }
    code, text = run(bad, as_json=True)
    assert code == 2
    (problem,) = json.loads(text)["problems"]
    assert (problem["line"], problem["field"], problem["found"]) == (4, "spec.request.qps", "21")


def test_nothing_to_check_is_not_good(tmp_path: Path) -> None:
    assert run(tmp_path) == (2, "no task in these files\n")
