"""YAML documents as plain nodes that remember their line.

Scalars are resolved as kubectl resolves them (YAML 1.1 booleans, no base-60 numbers), not as PyYAML's loader would.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

NODES_MAX = 20_000
_NULL = ("", "~", "null", "Null", "NULL")
_TRUE = ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")
_FALSE = ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")
_WORDS: Mapping[str, bool | None] = (
    dict.fromkeys(_NULL, None) | dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False)
)
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]{0,40})")
_OCTAL = re.compile(r"([-+]?)0o?([0-7]{1,40})")
_HEX = re.compile(r"[-+]?0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,3})?")

ScalarValue = str | int | float | bool | None


class BadYaml(Exception):
    """Text that is not YAML. ``line`` counts from 1."""

    def __init__(self, *, line: int, reason: str) -> None:
        self.line = line
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarNode:
    """A value without parts. ``text`` is as written, ``plain`` true where it stood without quotes."""

    line: int
    value: ScalarValue
    text: str
    plain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ListNode:
    """A sequence."""

    line: int
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapNode:
    """A mapping: members in order, each with the line of its key; ``twice`` are keys that occur again."""

    line: int
    members: dict[str, tuple[int, Node]]
    twice: tuple[tuple[int, str], ...]


Node = ScalarNode | ListNode | MapNode


def documents(text: str) -> Iterator[Node]:
    """Every document of ``text`` that is not empty. Raises BadYaml."""
    try:
        for node in yaml.compose_all(text, Loader=yaml.BaseLoader):
            budget = [NODES_MAX]
            found = _node(node, budget)
            if not (isinstance(found, ScalarNode) and found.value is None):
                yield found
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadYaml(line=mark.line + 1 if mark else 1, reason=error.problem or "broken YAML") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise BadYaml(line=line, reason=f"character U+{code:04X}") from error
    except RecursionError as error:
        raise BadYaml(line=1, reason="nesting too deep") from error


def _node(node: yaml.Node, budget: list[int]) -> Node:
    line = node.start_mark.line + 1
    budget[0] -= 1
    if budget[0] < 0:
        raise BadYaml(line=line, reason=f"more than {NODES_MAX} values")
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, line, budget)
    if isinstance(node, yaml.SequenceNode):
        return ListNode(line=line, items=tuple(_node(item, budget) for item in node.value))
    assert isinstance(node, yaml.ScalarNode)
    plain = node.style is None
    value = resolve(node.value) if plain and node.tag.endswith(":str") else node.value
    return ScalarNode(line=line, value=value, text=node.value, plain=plain)


def _mapping(node: yaml.MappingNode, line: int, budget: list[int]) -> MapNode:
    members: dict[str, tuple[int, Node]] = {}
    merged: dict[str, tuple[int, Node]] = {}
    twice: list[tuple[int, str]] = []
    for key_node, value_node in node.value:
        key_line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise BadYaml(line=key_line, reason="a key that is not text")
        value = _node(value_node, budget)
        if key_node.value == "<<" and key_node.style is None:
            merged = _merge(value, key_line) | merged
        elif key_node.value in members:
            twice.append((key_line, key_node.value))
        else:
            members[key_node.value] = (key_line, value)
    return MapNode(line=line, members=merged | members, twice=tuple(twice))


def _merge(value: Node, line: int) -> dict[str, tuple[int, Node]]:
    if isinstance(value, MapNode):
        return dict(value.members)
    if isinstance(value, ListNode) and all(isinstance(item, MapNode) for item in value.items):
        maps = [item for item in value.items if isinstance(item, MapNode)]
        return {key: member for item in reversed(maps) for key, member in item.members.items()}
    raise BadYaml(line=line, reason='"<<" with something that is not an object')


def resolve(text: str) -> ScalarValue:
    """The value of a scalar written without quotes."""
    if text in _WORDS:
        return _WORDS[text]
    return _number(text)


def _number(text: str) -> ScalarValue:
    if _INTEGER.fullmatch(text):
        return int(text.replace("_", ""))
    if octal := _OCTAL.fullmatch(text):
        return int(octal[1] + octal[2], 8)
    if _HEX.fullmatch(text):
        return int(text, 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def to_plain(node: Node) -> object:
    """The node as JSON-like data."""
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, ListNode):
        return [to_plain(item) for item in node.items]
    return {key: to_plain(item) for key, (_, item) in node.members.items()}
