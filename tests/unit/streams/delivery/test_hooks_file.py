"""The file of hooks: what is read, and the exact words for what cannot be used."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from streams.delivery.read import read, routes
from topics.alarms import EXAMPLE
from topics.connection import BadConfiguration

URL = "https://chat.example/x"
GOOD = {
    "hooks": [
        {"name": "chat", "webhook": {"url": URL, "template": '{"text": "${sentence}"}'}, "when": {"severity": "crit*"}},
        {"name": "manager", "alertmanager": {"url": URL, "labels": {"team": "net"}}},
        {"name": "script", "command": ["/bin/true", "x"]},
    ]
}


def test_each_kind_is_read_and_says_whom_it_is_for() -> None:
    chat, manager, script = routes(GOOD, where="f")
    assert [route.hook.name for route in (chat, manager, script)] == ["chat", "manager", "script"]
    warning = msgspec.structs.replace(EXAMPLE, severity="warning")
    assert (chat.takes(EXAMPLE), chat.takes(warning), manager.takes(warning)) == (True, False, True)
    assert not manager.takes(msgspec.structs.replace(EXAMPLE, silenced="works"))


def hook(**parts: Any) -> dict[str, Any]:
    return {"hooks": [{"name": "h", **parts}]}


BAD = [
    ([], r"f: found \[\], expected a table of: hooks"),
    ({"hooks": {}}, "f: hooks: found {}, expected a list"),
    ({"hooks": [], "hook": 1}, "f: found 'hook', allowed: hooks"),
    (hook(), "found none, expected one of: webhook, alertmanager, command"),
    (hook(command=["x"], webhook={"url": URL}), "found webhook, command, expected one of"),
    ({"hooks": [{"webhook": {"url": URL}}]}, r"hooks\[0\]: name is missing"),
    (hook(webhook={}), r"hooks\[0\].webhook: url is missing"),
    (hook(webhook={"url": "chat"}), r"webhook.url: found 'chat', expected http\(s\)://host"),
    (hook(webhook={"url": URL, "secret": "x"}), "found 'secret', allowed: url, secretFile, headers, template"),
    (hook(webhook={"url": URL, "secretFile": "/nowhere"}), "secretFile: /nowhere: No such file"),
    (hook(webhook={"url": URL, "template": "${sentense}"}), r"template: found \$\{sentense\}, allowed: .*sentence"),
    (hook(webhook={"url": URL, "template": "5 $"}), r"template: found '5 \$', expected"),
    (hook(webhook={"url": URL, "headers": {"a": 1}}), r"headers: found \{'a': 1\}, expected names with texts"),
    (hook(command="rm x"), "command: found 'rm x', expected a list of words"),
    (hook(command=["x"], when={"node": "a"}), "when: found 'node', allowed: task, element"),
    ({"hooks": [{"name": "a", "command": ["x"]}, {"name": "a", "command": ["y"]}]}, "the name 'a' stands twice"),
]


@pytest.mark.parametrize(("document", "message"), BAD)
def test_what_cannot_be_used_is_named(document: Any, message: str) -> None:
    with pytest.raises(BadConfiguration, match=message):
        routes(document, where="f")


def test_a_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "hooks.yaml"
    path.write_text("hooks: [")
    with pytest.raises(BadConfiguration, match=r"hooks.yaml"):
        read(path)
    path.write_text(yaml.safe_dump(GOOD))
    assert len(read(path)) == 3
