"""The words in which a kind is described: fields with type, default, range and meaning; rules over several fields.

Each model is a frozen dataclass whose fields are made by the functions below, so that the Python default and
the schema default cannot differ. :func:`fields_of` gives the description back, for the reader of files and for
the custom resource definitions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol

INT64_MAX = 2**63 - 1
# The API server weighs a rule by the most it may have to look at.
ITEMS_MAX = 1000
TEXT_MAX = 4096
_NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})

ScalarType = Literal["string", "integer", "number", "boolean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Ceilings an installation sets. A value equal to the ceiling is accepted."""

    max_qps: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {"NetReach": 20, "AppHttpHealthy": 100, "Netdns": 100, "NetPatrol": 100}
    )

    @classmethod
    def with_max_qps(cls, max_qps: int | None) -> Limits:
        """The default ceilings, or one ceiling for every kind."""
        return cls() if max_qps is None else cls(max_qps=dict.fromkeys(cls().max_qps, max_qps))


@dataclass(frozen=True, slots=True, kw_only=True)
class Syntax:
    """How a string must look. ``patterns`` are RE2 expressions, all of which a text that ``holds`` matches.

    ``cel`` says of ``self`` what no expression can. ``max_length`` counts characters.
    """

    allowed: str
    holds: Callable[[str], bool]
    patterns: tuple[str, ...] = ()
    max_length: int = 253
    cel: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A string, number or boolean."""

    type: ScalarType
    minimum: float | None = None
    maximum: float | None = None
    ceiling: Literal["", "max_qps"] = ""
    excluded: tuple[int, ...] = ()
    enum: tuple[str, ...] = ()
    syntax: Syntax | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nested:
    """An object with a model of its own. ``absent`` fills in for one that nobody wrote; None = it stays away."""

    model: type[Any]
    absent: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf:
    """A list of one sort of item."""

    item: Scalar | Nested | Opaque
    min_items: int = 0
    max_items: int = ITEMS_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOf:
    """An object with free keys."""

    value: Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Opaque:
    """An object of Kubernetes' own that is passed on as it is; ``keys`` are its known members (empty = any)."""

    keys: tuple[str, ...] = ()


Shape = Scalar | Nested | ListOf | MapOf | Opaque


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSchema:
    """One field: its name in YAML and in Python, its shape, and what it means."""

    name: str
    attribute: str
    shape: Shape
    required: bool
    default: Any
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A condition over several fields of one object, good when it holds.

    ``field`` is the member that an error points at ("" = the object), ``cel`` the same condition for the API server.
    """

    field: str
    cel: str
    holds: Callable[[Any], bool]
    found: Callable[[Any], str]
    allowed: str


class Model(Protocol):
    """A dataclass made with the functions of this module."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    RULES: ClassVar[tuple[Rule, ...]]


def _field(*, name: str, shape: Shape, required: bool, default: Any, description: str) -> Any:
    meta = {"name": name, "shape": shape, "required": required, "default": default, "description": description}
    if required:
        return dataclasses.field(metadata=meta)
    if isinstance(shape, Nested) and shape.absent is not None:
        return dataclasses.field(default_factory=lambda: from_plain(shape.model, shape.absent or {}), metadata=meta)
    if isinstance(shape, MapOf | Opaque) and default is not None:
        return dataclasses.field(default_factory=lambda: dict(default), metadata=meta)
    return dataclasses.field(default=default, metadata=meta)


def integer(
    name: str,
    description: str,
    *,
    default: int | None = None,
    minimum: int = 0,
    maximum: int = INT64_MAX,
    ceiling: Literal["", "max_qps"] = "",
    excluded: tuple[int, ...] = (),
    required: bool = False,
) -> Any:
    """A whole number from ``minimum`` to ``maximum``, without ``excluded``."""
    shape = Scalar(type="integer", minimum=minimum, maximum=maximum, ceiling=ceiling, excluded=excluded)
    return _field(name=name, shape=shape, required=required, default=default, description=description)


def number(name: str, description: str, *, default: float | None = None, minimum: float, maximum: float) -> Any:
    """A number from ``minimum`` to ``maximum``."""
    shape = Scalar(type="number", minimum=minimum, maximum=maximum)
    return _field(name=name, shape=shape, required=False, default=default, description=description)


def boolean(name: str, description: str, *, default: bool) -> Any:
    """true or false."""
    return _field(name=name, shape=Scalar(type="boolean"), required=False, default=default, description=description)


def string(
    name: str,
    description: str,
    *,
    default: str | None = None,
    enum: tuple[str, ...] = (),
    syntax: Syntax | None = None,
    required: bool = False,
) -> Any:
    """Text, one of ``enum`` or of the form of ``syntax`` where given."""
    shape = Scalar(type="string", enum=enum, syntax=syntax)
    return _field(name=name, shape=shape, required=required, default=default, description=description)


def nested(
    name: str, description: str, model: type[Any], *, absent: Mapping[str, Any] | None, required: bool = False
) -> Any:
    """An object; see :class:`Nested` for ``absent``."""
    shape = Nested(model=model, absent=absent)
    return _field(name=name, shape=shape, required=required, default=None, description=description)


def list_of(
    name: str,
    description: str,
    item: Scalar | Nested | Opaque,
    *,
    default: tuple[Any, ...] = (),
    min_items: int = 0,
    max_items: int = ITEMS_MAX,
) -> Any:
    """A list, kept as a tuple."""
    shape = ListOf(item=item, min_items=min_items, max_items=max_items)
    return _field(name=name, shape=shape, required=False, default=default, description=description)


def map_of_strings(name: str, description: str) -> Any:
    """An object whose values are text."""
    shape = MapOf(value=Scalar(type="string"))
    return _field(name=name, shape=shape, required=False, default=_NO_ATTRIBUTES, description=description)


def opaque(name: str, description: str, *, keys: tuple[str, ...] = ()) -> Any:
    """An object passed on unread."""
    return _field(name=name, shape=Opaque(keys=keys), required=False, default=None, description=description)


def fields_of(model: type[Any]) -> tuple[FieldSchema, ...]:
    """The description of every field of a model, in the order in which they are written."""
    return tuple(FieldSchema(attribute=field.name, **field.metadata) for field in dataclasses.fields(model))


def from_plain(model: type[Any], plain: Mapping[str, Any]) -> Any:
    """Builds a model from YAML names and values known to be good; what is not given takes its default."""
    given: dict[str, Any] = {}
    for field in fields_of(model):
        if field.name in plain:
            value = plain[field.name]
            given[field.attribute] = from_plain(field.shape.model, value) if isinstance(field.shape, Nested) else value
    return model(**given)


def to_plain(value: Any) -> Any:
    """The model as JSON-like data under its YAML names, with defaults filled in and absent optional fields left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((field.name, getattr(value, field.attribute)) for field in fields_of(type(value)))
        return {name: to_plain(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value
