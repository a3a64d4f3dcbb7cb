"""A task model as a structural OpenAPI v3 schema with CEL rules: what the API server checks and fills in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

from controller.tasks.schema import (
    INT64_MAX,
    TEXT_MAX,
    FieldSchema,
    ListOf,
    MapOf,
    Nested,
    Opaque,
    Rule,
    Scalar,
    Shape,
    fields_of,
)

Schema = dict[str, Any]


def schema_of(model: type[Any]) -> Schema:
    """The schema of an object: properties with defaults, the required ones, the rules over several of them."""
    fields = fields_of(model)
    schema: Schema = {"type": "object", "properties": {field.name: _property(field) for field in fields}}
    required = [field.name for field in fields if field.required]
    if required:
        schema["required"] = required
    if model.RULES:
        schema["x-kubernetes-validations"] = [_validation(rule) for rule in model.RULES]
    return schema


def _property(field: FieldSchema) -> Schema:
    schema = {"description": field.description} | of_shape(field.shape)
    default = default_of(field)
    return schema if default is None else schema | {"default": default}


def default_of(field: FieldSchema) -> Any:
    """What stands for a field that nobody wrote, whole: the API server checks rules on defaults as they are written."""
    if isinstance(field.shape, Nested):
        return None if field.shape.absent is None else _whole(field.shape.model, field.shape.absent)
    if isinstance(field.shape, MapOf | Opaque) or field.default in (None, ()):
        return None
    return list(field.default) if isinstance(field.default, tuple) else field.default


def _whole(model: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    values = ((field.name, given.get(field.name, default_of(field))) for field in fields_of(model))
    return {name: value for name, value in values if value is not None}


def of_shape(shape: Shape) -> Schema:  # noqa: PLR0911 - one answer for each shape
    """The schema of a value of this shape."""
    match shape:
        case Scalar(type="boolean"):
            return {"type": "boolean"}
        case Scalar(type="string"):
            return _string(shape)
        case Scalar():
            return _number(shape)
        case Nested(model=model):
            return schema_of(model)
        case ListOf():
            return _list(shape)
        case MapOf(value=value):
            return {"type": "object", "additionalProperties": of_shape(value)}
        case Opaque(keys=keys):
            return _opaque(keys)
        case _:
            assert_never(shape)


def _string(shape: Scalar) -> Schema:
    if shape.enum:
        return {"type": "string", "enum": list(shape.enum)}
    if shape.syntax is None:
        return {"type": "string", "maxLength": TEXT_MAX}
    schema: Schema = {"type": "string", "maxLength": shape.syntax.max_length}
    first, *further = shape.syntax.patterns
    schema["pattern"] = first
    conditions = [f"self.matches({_quoted(pattern)})" for pattern in further]
    conditions += [shape.syntax.cel] if shape.syntax.cel else []
    if conditions:
        allowed = f"allowed: {shape.syntax.allowed}"
        schema["x-kubernetes-validations"] = [{"rule": rule, "message": allowed} for rule in conditions]
    return schema


def _quoted(pattern: str) -> str:
    """A raw CEL string literal."""
    quote = "'" if "'" not in pattern else '"'
    return f"r{quote}{pattern}{quote}"


def _number(shape: Scalar) -> Schema:
    schema: Schema = {"type": shape.type, "format": "int64" if shape.type == "integer" else "double"}
    if shape.minimum is not None:
        schema["minimum"] = shape.minimum
    if shape.maximum is not None and shape.maximum != INT64_MAX:
        schema["maximum"] = shape.maximum
    if shape.excluded:
        words = ", ".join(map(str, shape.excluded))
        rules = " && ".join(f"self != {value}" for value in shape.excluded)
        schema["x-kubernetes-validations"] = [{"rule": rules, "message": f"allowed: not {words}"}]
    return schema


def _list(shape: ListOf) -> Schema:
    schema: Schema = {"type": "array", "items": of_shape(shape.item), "maxItems": shape.max_items}
    if shape.min_items:
        schema["minItems"] = shape.min_items
    return schema


def _opaque(keys: tuple[str, ...]) -> Schema:
    """Kubernetes' own objects: their members are known by name, and checked where they are used."""
    anything: Schema = {"x-kubernetes-preserve-unknown-fields": True}
    if not keys:
        return {"type": "object"} | anything
    return {"type": "object", "properties": {key: dict(anything) for key in keys}}


def _validation(rule: Rule) -> Schema:
    validation = {"rule": rule.cel, "message": f"allowed: {rule.allowed}"}
    return validation | ({"fieldPath": f".{rule.field}"} if rule.field else {})
