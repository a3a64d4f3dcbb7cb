"""From a YAML node and a model to an object, or to every problem in it. Knows no kind in particular."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, assert_never

from controller.tasks import yamlnodes
from controller.tasks.schema import (
    INT64_MAX,
    TEXT_MAX,
    FieldSchema,
    Limits,
    ListOf,
    MapOf,
    Nested,
    Opaque,
    Rule,
    Scalar,
    Shape,
    fields_of,
)
from controller.tasks.yamlnodes import ListNode, MapNode, Node, ScalarNode

Report = Callable[[int, str, str, str], None]
_BAD: Any = object()
_CREDENTIALS = re.compile(r"//[^/\s]*@")


@dataclass(slots=True, kw_only=True)
class Reading:
    """One document being read: where problems go, and the line of every field met."""

    kind: str
    limits: Limits
    report: Report
    lines: dict[str, int] = field(default_factory=dict)


def read_object(*, node: MapNode, model: type[Any], path: str, reading: Reading) -> Any:
    """An object of ``model``, or ``None`` after at least one problem was reported."""
    reading.lines.setdefault(path, node.line)
    for line, key in node.twice:
        reading.report(line, _join(path, key), "the field a second time", "each field once")
    schemas = fields_of(model)
    good = _all_known(node, schemas, path, reading)
    given: dict[str, Any] = {}
    for schema in schemas:
        value = _member(node, schema, path, reading)
        if value is _BAD:
            good = False
        elif value is not None:
            given[schema.attribute] = value
    if not good:
        return None
    made = model(**given)
    return made if _rules_hold(made, model.RULES, path, reading) else None


def _all_known(node: MapNode, schemas: tuple[FieldSchema, ...], path: str, reading: Reading) -> bool:
    names = [schema.name for schema in schemas]
    good = True
    for key, (line, _) in node.members.items():
        if key not in names:
            good = False
            reading.report(line, _join(path, key), "an unknown field", suggest(key, names))
    return good


def suggest(key: str, names: list[str]) -> str:
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(key.lower(), list(lower), n=1, cutoff=0.6)
    known = ", ".join(names)
    return f"{known} (did you mean {lower[near[0]]}?)" if near else known


def _member(node: MapNode, schema: FieldSchema, path: str, reading: Reading) -> Any:
    """The value of a field, None where its default holds, _BAD after a report."""
    where = _join(path, schema.name)
    line, found = node.members.get(schema.name, (node.line, None))
    # The API server drops a null of a field that is not nullable before it fills in defaults.
    if found is None or (isinstance(found, ScalarNode) and found.value is None):
        if schema.required:
            reading.report(line, where, "nothing", _describe(schema.shape, reading))
            return _BAD
        reading.lines.setdefault(where, line)
        return None
    reading.lines[where] = line
    return _value(found, schema.shape, where, line, reading)


def _value(node: Node, shape: Shape, path: str, line: int, reading: Reading) -> Any:
    match shape:
        case Scalar():
            return _scalar(node, shape, path, line, reading)
        case Nested():
            if not isinstance(node, MapNode):
                return _wrong(node, shape, path, line, reading)
            made = read_object(node=node, model=shape.model, path=path, reading=reading)
            return _BAD if made is None else made
        case ListOf():
            return _list(node, shape, path, line, reading)
        case MapOf():
            return _map(node, shape, path, line, reading)
        case Opaque():
            return _opaque(node, shape, path, line, reading)
        case _:
            assert_never(shape)


def _scalar(node: Node, shape: Scalar, path: str, line: int, reading: Reading) -> Any:
    if not isinstance(node, ScalarNode):
        return _wrong(node, shape, path, line, reading)
    value = _typed(node.value, shape)
    if value is _BAD or not _in_range(value, shape, reading):
        return _wrong(node, shape, path, line, reading)
    return value


def _typed(value: Any, shape: Scalar) -> Any:
    """The value in the type of the shape, or _BAD: a string is no number, a boolean is neither."""
    if shape.type == "boolean":
        return value if isinstance(value, bool) else _BAD
    if shape.type == "string":
        return value if isinstance(value, str) else _BAD
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return _BAD
    if shape.type == "number":
        return float(value)
    return int(value) if value == int(value) else _BAD


def _in_range(value: Any, shape: Scalar, reading: Reading) -> bool:
    if isinstance(value, str):
        if shape.syntax is None:
            return value in shape.enum if shape.enum else len(value) <= TEXT_MAX
        return len(value) <= shape.syntax.max_length and shape.syntax.holds(value)
    if isinstance(value, bool):
        return True
    low, high = _range(shape, reading)
    return low <= value <= high and value not in shape.excluded


def _range(shape: Scalar, reading: Reading) -> tuple[float, float]:
    low = -INT64_MAX if shape.minimum is None else shape.minimum
    high = INT64_MAX if shape.maximum is None else shape.maximum
    if shape.ceiling:
        high = min(high, reading.limits.max_qps.get(reading.kind, INT64_MAX))
    return low, high


def _list(node: Node, shape: ListOf, path: str, line: int, reading: Reading) -> Any:
    if not isinstance(node, ListNode) or not shape.min_items <= len(node.items) <= shape.max_items:
        return _wrong(node, shape, path, line, reading)
    values = [_value(item, shape.item, f"{path}[{index}]", item.line, reading) for index, item in enumerate(node.items)]
    return _BAD if any(value is _BAD for value in values) else tuple(values)


def _map(node: Node, shape: MapOf, path: str, line: int, reading: Reading) -> Any:
    if not isinstance(node, MapNode) or node.twice:
        return _wrong(node, shape, path, line, reading)
    values = {
        key: _value(item, shape.value, _join(path, key), key_line, reading)
        for key, (key_line, item) in node.members.items()
    }
    return _BAD if any(value is _BAD for value in values.values()) else values


def _opaque(node: Node, shape: Opaque, path: str, line: int, reading: Reading) -> Any:
    if not isinstance(node, MapNode):
        return _wrong(node, shape, path, line, reading)
    unknown = [key for key in node.members if shape.keys and key not in shape.keys]
    for key in unknown:
        reading.report(node.members[key][0], _join(path, key), "an unknown field", suggest(key, list(shape.keys)))
    return _BAD if unknown else yamlnodes.to_plain(node)


def _wrong(node: Node, shape: Shape, path: str, line: int, reading: Reading) -> Any:
    reading.report(line, path, show(node), _describe(shape, reading) + _hint(node, shape))
    return _BAD


def _hint(node: Node, shape: Shape) -> str:
    if isinstance(node, ListNode) and isinstance(shape, ListOf) and len(node.items) > shape.max_items:
        return f"; at most {shape.max_items} items"
    if not isinstance(node, ScalarNode) or not isinstance(shape, Scalar):
        return ""
    if shape.type == "string" and node.plain and not isinstance(node.value, str):
        return f'; write "{node.text}" in quotes'
    longest = shape.syntax.max_length if shape.syntax is not None else TEXT_MAX
    if shape.type == "string" and isinstance(node.value, str) and len(node.value) > longest:
        return f"; at most {longest} characters, here {len(node.value)}"
    if shape.type != "string" and not node.plain and _typed(yamlnodes.resolve(node.text), shape) is not _BAD:
        return f"; write {node.text} without quotes"
    return ""


def show(node: Node) -> str:
    """What was found, for a person; long text is cut."""
    if isinstance(node, MapNode):
        return "an object"
    if isinstance(node, ListNode):
        return f"a list of {len(node.items)}"
    if isinstance(node.value, str):
        # What stands before an @ in a URL is a password as like as not.
        text = _CREDENTIALS.sub("//***@", node.value)
        text = text if len(text) <= 80 else text[:77] + "..."
        return f'"{text}"' if text.isprintable() else repr(text)
    if isinstance(node.value, bool):
        written = "" if node.text in ("true", "false") else f" (written {node.text})"
        return f"boolean {str(node.value).lower()}{written}"
    return node.text if len(node.text) <= 80 else node.text[:77] + "..."


def _describe(shape: Shape, reading: Reading) -> str:
    match shape:
        case Scalar(type="boolean"):
            return "true or false"
        case Scalar(type="string"):
            return _describe_string(shape)
        case Scalar():
            return _describe_number(shape, reading)
        case ListOf():
            return f"a list of at least {shape.min_items}" if shape.min_items else "a list"
        case Nested(model=model):
            needed = ", ".join(field.name for field in fields_of(model) if field.required)
            return f"an object with {needed}" if needed else "an object"
        case MapOf() | Opaque():
            return "an object"
        case _:
            assert_never(shape)


def _describe_string(shape: Scalar) -> str:
    if shape.enum:
        return "one of " + ", ".join(shape.enum)
    return shape.syntax.allowed if shape.syntax is not None else "text"


def _describe_number(shape: Scalar, reading: Reading) -> str:
    low, high = _range(shape, reading)
    noun = "whole number" if shape.type == "integer" else "number"
    but = "".join(f", but not {value}" for value in shape.excluded)
    if high >= INT64_MAX:
        return f"{noun}, at least {low:g}{but}"
    return f"{noun} from {low:g} to {high:.15g}{but}"


def _rules_hold(made: Any, rules: tuple[Rule, ...], path: str, reading: Reading) -> bool:
    good = True
    for rule in rules:
        if not rule.holds(made):
            good = False
            where = _join(path, rule.field) if rule.field else path
            reading.report(_line_of(where, reading), where, rule.found(made), rule.allowed)
    return good


def _line_of(path: str, reading: Reading) -> int:
    """The line of the field, or of the nearest object around it that was written."""
    while path and path not in reading.lines:
        path = path.rpartition(".")[0]
    return reading.lines.get(path, 1)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
