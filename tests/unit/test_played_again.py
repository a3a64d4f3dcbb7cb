"""What is played again, and what is not: a run of pytest with tests that fail once, always, or in their set-up."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest

TRIED = []

@pytest.fixture(scope="module")
def part():
    TRIED.append("part")
    assert TRIED.count("part") > 1, "the part did not come up"

def test_set_up_again(part):
    pass

def test_fails_once(part):
    TRIED.append("once")
    assert TRIED.count("once") > 1, "now and then"

def test_fails_always():
    TRIED.append("always")
    assert False, f"tried {TRIED.count('always')} times"

def test_fails_once_after_three_others():
    TRIED.append("after")
    assert TRIED.count("after") > 1, "too many"
"""


def run(folder: str, tmp_path: Path, *more: str) -> tuple[str, str]:
    """(what was said, its last line) of a run of TESTS as tests of this folder."""
    tests = tmp_path / "tests"
    (tests / folder).mkdir(parents=True)
    (tests / folder / "test_some.py").write_text(TESTS)
    for name in ("conftest.py", "paced.py"):
        (tests / name).write_text((ROOT / "tests" / name).read_text())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [*command, *more, f"--rootdir={tmp_path}", str(tests / folder)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    return done.stdout, done.stdout.splitlines()[-1]


# A virtual environment of before has no xdist yet; `make` brings it up to date.
SEVERAL = [("-n", "1")] if find_spec("xdist") else []


@pytest.mark.parametrize("more", [(), *SEVERAL], ids=str)
def test_tests_of_real_parts_are_played_once_more_and_named(tmp_path: Path, more: tuple[str, ...]) -> None:
    said, end = run("integration", tmp_path, *more)
    assert "2 failed, 2 passed" in end, said
    assert said.count("played again (once more)") == 3
    assert "the part did not come up" in said
    assert "now and then" in said
    assert "tried 2 times" in said
    assert "too many" in said


def test_unit_tests_are_not_played_again(tmp_path: Path) -> None:
    said, end = run("unit", tmp_path)
    assert "2 failed, 2 errors" in end, said
    assert "played again" not in said
