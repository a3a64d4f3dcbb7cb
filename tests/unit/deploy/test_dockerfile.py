"""The Dockerfile: parses, has the five images, none as root, nothing that moves under one's feet."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
ENTRY_POINTS = {
    "agent": ["python3", "-m", "producers"],
    "controller": ["python3", "-m", "controller"],
    "streams": ["python3", "-m", "streams"],
    "endpoint": ["python3", "-m", "kpatrol.endpoint"],
    "kafka": ["/opt/kafka/start.sh"],
}
KNOWN = {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "ENTRYPOINT"}


def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions by stage; FROM's own words first."""
    found: dict[str, list[tuple[str, str]]] = {}
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, rest = line.split(maxsplit=1)
        assert word in KNOWN, line
        if word == "FROM":
            match = re.fullmatch(r"(\S+) AS (\S+)", rest)
            assert match, f"every stage has a name: {line}"
            found[match[2]] = [(word, match[1])]
        else:
            found[list(found)[-1]].append((word, rest))
    return found


def chain(name: str) -> list[tuple[str, str]]:
    """A stage's instructions after those of the stages it stands on."""
    own = stages()[name]
    base = own[0][1]
    return [*(chain(base) if base in stages() else []), *own]


def last(name: str, word: str) -> str:
    return next(rest for instruction, rest in reversed(chain(name)) if instruction == word)


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_image_starts_its_service_as_nobody(name: str) -> None:
    assert json.loads(last(name, "ENTRYPOINT")) == ENTRY_POINTS[name]
    assert last(name, "USER") == "65532:65532"


def test_no_base_image_moves() -> None:
    all_stages = stages()
    bases = {own[0][1] for own in all_stages.values()} - set(all_stages)
    assert bases
    for base in bases:
        assert re.search(r":\d", base), f"{base}: a tag with a version"


def test_what_is_copied_exists() -> None:
    all_stages = stages()
    for own in all_stages.values():
        for word, rest in own:
            if word != "COPY":
                continue
            words = [w for w in rest.split() if not w.startswith("--chmod")]
            if words[0].startswith("--from="):
                assert words[0].removeprefix("--from=") in all_stages
                continue
            for source in words[:-1]:
                assert (ROOT / source).exists(), source
                top = "/".join(Path(source).parts[:2]) if source.startswith("deploy") else Path(source).parts[0]
                assert f"!{top}" in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines(), source


def test_the_packages_of_each_image_are_an_extra_of_the_project() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = re.findall(r"\.whl\)\[([a-z,]+)\]", (DEPLOY / "Dockerfile").read_text())
    assert len(asked) == 4
    assert {extra for words in asked for extra in words.split(",")} <= set(extras)


def test_kafkas_jars_are_those_of_the_lab() -> None:
    from kpatrol.lab.kafka_jars import KAFKA_VERSION

    assert f"<version>{KAFKA_VERSION}</version>" in (DEPLOY / "kafka" / "pom.xml").read_text()


def test_the_start_script_is_a_shell_script() -> None:
    script = DEPLOY / "kafka" / "start.sh"
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
    assert script.stat().st_mode & 0o111


def test_the_chart_carries_the_projects_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = (DEPLOY / "chart" / "Chart.yaml").read_text()
    assert f"\nversion: {project}\n" in chart
    assert f"\nappVersion: {project}\n" in chart
    assert f"kpatrol/agent:{project}" in (DEPLOY / "small.yaml").read_text()


def test_rules_speak_of_metrics_that_exist() -> None:
    from typing import get_args

    from producers.metrics import Metric
    from streams.metrics import Counter, Gauge

    known = {f"kpatrol_agent_{name}" for name in get_args(Metric)} | set(get_args(Counter)) | set(get_args(Gauge))
    named = set(re.findall(r"\bkpatrol_[a-z_]+", (DEPLOY / "chart" / "files" / "rules.yaml").read_text()))
    assert named
    assert named - known == set()
