"""What the documents show is true: YAML validates, commands and their options exist, the topics page is fresh."""

import re
import shlex
from pathlib import Path

import click
import pytest

from controller.tasks import load_tasks
from kpatrol.cli import cli
from kpatrol.reading.topics_page import page

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    found = []
    for path in PAGES:
        for text in re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL):
            found.append((path.name, text))
    return found


def commands() -> list[tuple[str, str]]:
    found = []
    for path in PAGES:
        for line in path.read_text().splitlines():
            for text in re.findall(r"(?:^ {4}|^|`|<\()(kpatrol [^`#)]+)", line):
                found.append((path.name, text.strip()))
    return found


@pytest.mark.parametrize(("page_name", "text"), blocks("yaml"))
def test_yaml_is_a_valid_task(page_name: str, text: str) -> None:
    assert load_tasks(text, file=page_name)


def test_the_examples_are_valid_tasks() -> None:
    for path in (ROOT / "docs" / "examples").glob("*.yaml"):
        assert load_tasks(path)


@pytest.mark.parametrize(("page_name", "text"), commands())
def test_commands_and_their_options_exist(page_name: str, text: str) -> None:
    words = shlex.split(text)[1:]
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        inner = command.get_command(context, words[0].split("|")[0])
        assert inner is not None, f"{page_name}: no command {words[0]}"
        command, words = inner, words[1:]
    known = {name for parameter in command.params for name in parameter.opts}
    for word in words:
        if re.match(r"-{1,2}[a-z]", word):
            assert word in known, f"{page_name}: {text}: no option {word}"


def test_the_documents_show_commands_at_all() -> None:
    assert len(commands()) >= 10


def test_the_topics_page_is_fresh() -> None:
    assert (ROOT / "docs" / "topics.md").read_text() == page()


def test_links_lead_somewhere() -> None:
    for path in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_files_that_the_architecture_names_exist() -> None:
    named = re.findall(r"`([a-z_/0-9]+(?:\.py|\.sql|/))`", (ROOT / "ARCHITECTURE.md").read_text())
    assert len(named) > 20
    folders = [ROOT, ROOT / "streams", ROOT / "kpatrol"]
    assert [name for name in named if not any((folder / name).exists() for folder in folders)] == []
