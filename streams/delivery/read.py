"""The file of hooks (YAML): read whole, checked, turned into hooks.

hooks:
  - name: chat
    webhook: {url: 'https://…', secretFile: /etc/…, template: '{"text": "${severity}: ${sentence}"}'}
    when: {severity: critical, task: 'netreach/*'}
"""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

import yaml

from streams.delivery.alertmanager import Alertmanager
from streams.delivery.base import Hook, plain
from streams.delivery.command import Command
from streams.delivery.webhook import Webhook
from topics import alarms
from topics.alarms import AlarmRecord
from topics.connection import BadConfiguration

LABELS = ("task", "element", "direction", "kind", "severity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A hook and the alarms it is for: shell patterns by label, all of which must fit."""

    hook: Hook
    when: Mapping[str, str] = field(default_factory=dict)

    def takes(self, record: AlarmRecord) -> bool:
        """Whether this alarm is for this hook. A silenced one is for none."""
        return not record.silenced and matches(self.when, record)


def matches(when: Mapping[str, str], record: AlarmRecord) -> bool:
    """Whether every pattern fits the record's label of that name. Pure."""
    return all(fnmatch.fnmatchcase(str(getattr(record, label)), pattern) for label, pattern in when.items())


def read(path: Path) -> list[Route]:
    """The file's hooks. Raises BadConfiguration, naming file, field, what was found and what is allowed; OSError."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BadConfiguration(f"{path}: {error}") from error
    return routes(document, where=str(path))


def routes(document: Any, *, where: str) -> list[Route]:
    """A parsed file's hooks. Raises BadConfiguration."""
    whole = _table(document, where, allowed=("hooks",), required=("hooks",))
    found = whole["hooks"]
    if not isinstance(found, list):
        raise BadConfiguration(f"{where}: hooks: found {found!r}, expected a list")
    made = [_route(item, f"{where}: hooks[{index}]") for index, item in enumerate(found)]
    names = [route.hook.name for route in made]
    for name in names:
        if names.count(name) > 1:
            raise BadConfiguration(f"{where}: hooks: the name {name!r} stands twice")
    return made


def _route(item: Any, where: str) -> Route:
    table = _table(item, where, allowed=("name", "when", *KINDS), required=("name",))
    kinds = [kind for kind in KINDS if kind in table]
    if len(kinds) != 1:
        raise BadConfiguration(f"{where}: found {', '.join(kinds) or 'none'}, expected one of: {', '.join(KINDS)}")
    (kind,) = kinds
    name = _text(table, "name", where)
    when = patterns(table.get("when", {}), f"{where}.when")
    return Route(hook=KINDS[kind](name, table[kind], f"{where}.{kind}"), when=when)


def patterns(value: Any, where: str) -> dict[str, str]:
    """Label → shell pattern. Raises BadConfiguration."""
    table = _table(value, where, allowed=LABELS)
    return {label: _text(table, label, where) for label in table}


def _webhook(name: str, value: Any, where: str) -> Hook:
    table = _table(value, where, allowed=("url", "secretFile", "headers", "template"), required=("url",))
    return Webhook(
        name=name,
        url=_url(table, where),
        secret=_secret(table, where),
        headers=_texts(table.get("headers", {}), f"{where}.headers"),
        template=_template(table, where),
    )


def _alertmanager(name: str, value: Any, where: str) -> Hook:
    table = _table(value, where, allowed=("url", "headers", "labels"), required=("url",))
    return Alertmanager(
        name=name,
        url=_url(table, where),
        headers=_texts(table.get("headers", {}), f"{where}.headers"),
        labels=_texts(table.get("labels", {}), f"{where}.labels"),
    )


def _command(name: str, value: Any, where: str) -> Hook:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise BadConfiguration(f"{where}: found {value!r}, expected a list of words, the program first")
    return Command(name=name, command=tuple(value))


KINDS: Mapping[str, Callable[[str, Any, str], Hook]] = {
    "webhook": _webhook,
    "alertmanager": _alertmanager,
    "command": _command,
}


def _table(value: Any, where: str, *, allowed: Sequence[str], required: Sequence[str] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadConfiguration(f"{where}: found {value!r}, expected a table of: {', '.join(allowed)}")
    for key in value:
        if key not in allowed:
            raise BadConfiguration(f"{where}: found {key!r}, allowed: {', '.join(allowed)}")
    for key in required:
        if key not in value:
            raise BadConfiguration(f"{where}: {key} is missing")
    return value


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str) or not value:
        raise BadConfiguration(f"{where}.{key}: found {value!r}, expected text")
    return value


def _texts(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(k, str) and isinstance(v, str) for k, v in value.items()):
        raise BadConfiguration(f"{where}: found {value!r}, expected names with texts")
    return value


def _url(table: Mapping[str, Any], where: str) -> str:
    url = _text(table, "url", where)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadConfiguration(f"{where}.url: found {url!r}, expected http(s)://host…")
    return url


def _secret(table: Mapping[str, Any], where: str) -> bytes:
    if "secretFile" not in table:
        return b""
    path = Path(_text(table, "secretFile", where))
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise BadConfiguration(f"{where}.secretFile: {path}: {error.strerror}") from error
    if not secret:
        raise BadConfiguration(f"{where}.secretFile: {path}: is empty")
    return secret


def _template(table: Mapping[str, Any], where: str) -> Template | None:
    if "template" not in table:
        return None
    template = Template(_text(table, "template", where))
    known = plain(alarms.EXAMPLE)
    if not template.is_valid():
        raise BadConfiguration(f"{where}.template: found {template.template!r}, expected ${{name}}; a $ is written $$")
    for name in template.get_identifiers():
        if name not in known:
            raise BadConfiguration(f"{where}.template: found ${{{name}}}, allowed: {', '.join(sorted(known))}")
    return template
