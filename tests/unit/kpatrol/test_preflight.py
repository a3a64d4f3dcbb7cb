"""What a goal needs is named before anything is fetched."""

from pathlib import Path

import pytest

from kpatrol import preflight


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(preflight, "SBIN", str(tmp_path))
    monkeypatch.setattr(preflight, "GO_FOLDERS", str(tmp_path))
    return tmp_path


def program(folder: Path, name: str, says: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)


def test_every_program_of_a_goal_has_a_package_and_a_purpose() -> None:
    named = {name for programs in preflight.GOALS.values() for name in programs} - {preflight.GO}
    assert named <= set(preflight.PROGRAMS)


def test_what_is_not_there_is_named(only: Path) -> None:
    program(only, "ip", "")
    assert preflight.missing_programs("demo") == ["java", "mvn", "nft", "nsenter"]


@pytest.mark.parametrize(
    ("says", "expected"),
    [("go1.25.3", ""), ("go1.26rc1", ""), ("go1.19.8", "Go go1.19.8 found at"), ("", "Go of an unknown version")],
)
def test_an_old_go_is_told_by_its_version(only: Path, says: str, expected: str) -> None:
    program(only, "go", says)
    found = preflight.missing_go("cluster")
    assert found.startswith(expected)
    assert bool(found) == bool(expected)


def test_no_go_is_told_where_it_is_needed_and_only_there(only: Path) -> None:
    assert preflight.missing_go("test").startswith("missing Go 1.25 or later")
    assert preflight.missing_go("test-without-cluster") == ""
