"""OpenAPI of the report API, v2 (Swagger) and v3, made from ``fields.yaml``. Pure but for reading that file."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml

from controller.report_api.discovery import SINGULAR
from controller.report_api.material import GROUP, KIND, VERSION
from controller.report_api.refusals import RESOURCE

Json = dict[str, Any]

_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_OWN = "io.kdoctor.system.v1beta1"
_BASE = f"/apis/{GROUP}/{VERSION}"
_SHARED = {
    "ObjectMeta": {"type": "object", "description": "Standard object's metadata."},
    "ListMeta": {"type": "object", "description": "Standard list metadata."},
}
_SCALARS: Mapping[str, Json] = {
    "string": {"type": "string"},
    "integer": {"type": "integer", "format": "int64"},
    "number": {"type": "number", "format": "double"},
    "boolean": {"type": "boolean"},
    "time": {"type": "string", "format": "date-time"},
    "object": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "map(integer)": {"type": "object", "additionalProperties": {"type": "integer", "format": "int64"}},
}
_LIST_PARAMETERS = (
    ("limit", "integer", "At most this many reports (or targets of a single report) in one answer."),
    ("continue", "string", "Where the list, or the targets of a single report, go on."),
    ("labelSelector", "string", "kpatrol.io/kind=<kind>, kpatrol.io/task=<name>."),
    ("fieldSelector", "string", "metadata.name=<name>."),
    ("round", "integer", "Of a single report: another round than the newest."),
    ("agent", "string", "Of a single report: this agent's targets only."),
)


@functools.cache
def fields() -> Mapping[str, Any]:
    """Definition → ``about`` and ``fields`` (name → type, description)."""
    text = files("controller.report_api").joinpath("fields.yaml").read_text()
    loaded: Mapping[str, Any] = yaml.safe_load(text)
    return loaded


def definitions(prefix: str) -> Json:
    """Every schema by its full name; references begin with ``prefix``."""
    found: Json = {f"{_META}.{name}": shape for name, shape in _SHARED.items()}
    for name, described in fields().items():
        properties = {field: _field(kind, text, prefix) for field, (kind, text) in described["fields"].items()}
        shape: Json = {"type": "object", "description": described["about"], "properties": properties}
        if name in (KIND, f"{KIND}List"):
            shape["x-kubernetes-group-version-kind"] = [_gvk(name)]
        found[f"{_OWN}.{name}"] = shape
    return found


def _field(kind: str, text: str, prefix: str) -> Json:
    if kind.startswith("["):
        return {"description": text, "type": "array", "items": _type(kind.strip("[]"), prefix)}
    shape = _type(kind, prefix)
    # A reference may have no siblings but by way of allOf.
    return {"description": text, "allOf": [shape]} if "$ref" in shape else {"description": text, **shape}


def _type(kind: str, prefix: str) -> Json:
    if kind in _SCALARS:
        return dict(_SCALARS[kind])
    return {"$ref": f"{prefix}{_META if kind in _SHARED else _OWN}.{kind}"}


def _gvk(kind: str) -> Json:
    return {"group": GROUP, "version": VERSION, "kind": kind}


def _operations(answer: Any, parameter: Any) -> Json:
    """The paths; ``answer`` and ``parameter`` turn names into what the version of OpenAPI wants."""
    query = [parameter(name, kind, text, "query") for name, kind, text in _LIST_PARAMETERS]
    namespace = parameter("namespace", "string", "Any: reports have none.", "path")
    name = parameter("name", "string", "Name of the report.", "path")

    def read(operation: str, action: str, kind: str, text: str) -> Json:
        return {
            "description": text,
            "tags": ["systemKdoctorIo_v1beta1"],
            "operationId": operation,
            "responses": {"200": {"description": "OK", **answer(kind)}, "401": {"description": "Unauthorized"}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": _gvk(KIND),
        }

    listed = f"list objects of kind {KIND}"
    return {
        f"{_BASE}/{RESOURCE}": {
            "get": read("listSystemKdoctorIoV1beta1KdoctorReportForAllNamespaces", "list", f"{KIND}List", listed),
            "parameters": query,
        },
        f"{_BASE}/namespaces/{{namespace}}/{RESOURCE}": {
            "get": read("listSystemKdoctorIoV1beta1NamespacedKdoctorReport", "list", f"{KIND}List", listed),
            "parameters": [namespace, *query],
        },
        f"{_BASE}/namespaces/{{namespace}}/{RESOURCE}/{{name}}": {
            "get": read("readSystemKdoctorIoV1beta1NamespacedKdoctorReport", "get", KIND, f"read a {SINGULAR}"),
            "parameters": [namespace, name, *query],
        },
    }


@functools.cache
def v2() -> Json:
    """/openapi/v2"""
    return {
        "swagger": "2.0",
        "info": {"title": "kpatrol report API", "version": VERSION},
        "paths": _operations(
            lambda kind: {"schema": {"$ref": f"#/definitions/{_OWN}.{kind}"}},
            lambda name, kind, text, where: {
                **{"name": name, "in": where, "type": kind, "description": text},
                **({"required": True} if where == "path" else {"uniqueItems": True}),
            },
        ),
        "definitions": definitions("#/definitions/"),
    }


@functools.cache
def v3() -> Json:
    """/openapi/v3/apis/system.kdoctor.io/v1beta1"""

    def answer(kind: str) -> Json:
        shape = {"schema": {"$ref": f"#/components/schemas/{_OWN}.{kind}"}}
        return {"content": {"application/json": shape, "application/yaml": shape}}

    return {
        "openapi": "3.0.0",
        "info": {"title": "kpatrol report API", "version": VERSION},
        "paths": _operations(
            answer,
            lambda name, kind, text, where: {
                **{"name": name, "in": where, "description": text, "schema": {"type": kind}},
                **({"required": True} if where == "path" else {}),
            },
        ),
        "components": {"schemas": definitions("#/components/schemas/")},
    }


def v3_paths() -> Json:
    """/openapi/v3: where the documents are; the hash changes with them."""
    path = f"apis/{GROUP}/{VERSION}"
    digest = hashlib.sha256(json.dumps(v3(), sort_keys=True).encode()).hexdigest().upper()
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}}}
