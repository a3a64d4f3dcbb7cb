"""Maintenances: alarms that begin while one lasts are recorded as ever, and told to nobody.

The file (YAML), read again whenever it changes:

    silences:
      - reason: switch replaced
        from: 2026-11-21T22:00:00Z
        until: 2026-11-22T02:00:00Z
        match: {element: 'rack r7', direction: '*'}
"""

import datetime
import fnmatch
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from topics.connection import BadConfiguration

LABELS = ("task", "element", "direction", "kind", "severity")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """One maintenance: shell patterns by label, all of which must fit, from `from_us` until before `until_us`."""

    reason: str
    from_us: int
    until_us: int
    match: Mapping[str, str]

    def covers(self, labels: Mapping[str, str], at_us: int) -> bool:
        """Whether it is for an alarm of these labels at that time."""
        inside = self.from_us <= at_us < self.until_us
        return inside and all(fnmatch.fnmatchcase(labels[name], pattern) for name, pattern in self.match.items())


def reason_of(silences: Sequence[Silence], *, labels: Mapping[str, str], at_us: int) -> str:
    """Why an alarm is silent; empty where it is not. Pure."""
    return next((silence.reason for silence in silences if silence.covers(labels, at_us)), "")


def parse(document: Any, *, where: str) -> tuple[Silence, ...]:
    """A parsed file. Raises BadConfiguration, naming the field, what was found and what is allowed."""
    whole = _table(document, where, ("silences",))
    items = whole["silences"]
    if not isinstance(items, list):
        raise BadConfiguration(f"{where}: silences: found {items!r}, expected a list")
    return tuple(_silence(item, f"{where}: silences[{index}]") for index, item in enumerate(items))


def _silence(item: Any, where: str) -> Silence:
    table = _table(item, where, ("reason", "from", "until", "match"))
    match = _table(table["match"], f"{where}.match", (), LABELS)
    for label, pattern in match.items():
        if not isinstance(pattern, str) or not pattern:
            raise BadConfiguration(f"{where}.match.{label}: found {pattern!r}, expected a shell pattern")
    if not match:
        raise BadConfiguration(f"{where}.match: is empty, expected one or more of: {', '.join(LABELS)}")
    if not isinstance(table["reason"], str) or not table["reason"]:
        raise BadConfiguration(f"{where}.reason: found {table['reason']!r}, expected text")
    from_us, until_us = (_time_us(table[name], f"{where}.{name}") for name in ("from", "until"))
    if until_us <= from_us:
        raise BadConfiguration(f"{where}.until: found {table['until']!s}, expected a time after `from`")
    return Silence(reason=table["reason"], from_us=from_us, until_us=until_us, match=match)


def _table(value: Any, where: str, required: Sequence[str], allowed: Sequence[str] = ()) -> dict[str, Any]:
    names = allowed or required
    if not isinstance(value, dict):
        raise BadConfiguration(f"{where}: found {value!r}, expected a table of: {', '.join(names)}")
    for key in value:
        if key not in names:
            raise BadConfiguration(f"{where}: found {key!r}, allowed: {', '.join(names)}")
    for key in required:
        if key not in value:
            raise BadConfiguration(f"{where}: {key} is missing")
    return value


def _time_us(value: Any, where: str) -> int:
    when = value
    if isinstance(value, str):
        try:
            when = datetime.datetime.fromisoformat(value)
        except ValueError:
            when = None
    if not isinstance(when, datetime.datetime) or when.tzinfo is None:
        raise BadConfiguration(f"{where}: found {value!s}, expected a time with its zone: 2026-11-21T22:00:00Z")
    return int(when.timestamp() * 1_000_000)


@dataclass(slots=True)
class SilencesFile:
    """The file, read when first asked for and whenever it changed; a bad one leaves the last good one in force."""

    path: Path | None
    say: Callable[[str], None] = log.error
    _stamp: tuple[int, int] | None = field(default=None, init=False)
    _silences: tuple[Silence, ...] = field(default=(), init=False)

    def now(self) -> tuple[Silence, ...]:
        """The silences in force."""
        if self.path is None:
            return ()
        try:
            stat = self.path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if stamp != self._stamp:
                self._stamp = stamp
                self._silences = parse(yaml.safe_load(self.path.read_text(encoding="utf-8")), where=str(self.path))
        except (BadConfiguration, yaml.YAMLError, OSError) as error:
            self.say(f"silences: {error}; the last good ones hold")
        return self._silences
