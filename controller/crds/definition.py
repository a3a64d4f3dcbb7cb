"""A custom resource definition of each kind. Names, columns and categories are kdoctor's, word for word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.crds.status_schema import STATUS
from controller.crds.structural import default_of, schema_of
from controller.tasks import AppHttpHealthy, Netdns, NetPatrol, NetReach, Task
from controller.tasks.schema import fields_of

PART_OF = {"app.kubernetes.io/part-of": "kpatrol"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How kubectl lets a kind be called, and whether its spec may change."""

    short: tuple[str, ...]
    categories: tuple[str, ...]
    schedule_column: Mapping[str, str]
    immutable: bool


_SCHEDULE = {"name": "schedule", "type": "string", "jsonPath": ".spec.schedule.schedule"}
_KDOCTOR = ("kdoctor", "kpatrol")
NAMING: Mapping[type[Task], Naming] = {
    NetReach: Naming(short=("nr",), categories=_KDOCTOR, schedule_column=_SCHEDULE, immutable=True),
    AppHttpHealthy: Naming(short=("ahh",), categories=_KDOCTOR, schedule_column=_SCHEDULE, immutable=True),
    Netdns: Naming(short=(), categories=_KDOCTOR, schedule_column=_SCHEDULE, immutable=True),
    NetPatrol: Naming(
        short=("patrol",),
        categories=("kpatrol",),
        schedule_column={"name": "intervalSecond", "type": "integer", "jsonPath": ".spec.intervalSecond"},
        # A standing patrol is tuned while it runs; each round is made from the spec that holds then.
        immutable=False,
    ),
}


def definition(model: type[Task]) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    group, _, version = model.API_VERSION.partition("/")
    naming = NAMING[model]
    names: dict[str, Any] = {
        "kind": model.KIND,
        "listKind": f"{model.KIND}List",
        "plural": model.PLURAL,
        "singular": model.KIND.lower(),
        "categories": list(naming.categories),
    }
    if naming.short:
        names["shortNames"] = list(naming.short)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{model.PLURAL}.{group}", "labels": dict(PART_OF)},
        "spec": {
            "group": group,
            "names": names,
            "scope": "Cluster",
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _object(model, immutable=naming.immutable)},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(naming),
                }
            ],
        },
    }


def _object(model: type[Task], *, immutable: bool) -> dict[str, Any]:
    (spec_field,) = (field for field in fields_of(model) if field.name == "spec")
    spec = {"description": spec_field.description} | schema_of(spec_field.shape.model)  # type: ignore[union-attr]
    default = default_of(spec_field)
    if default is not None:
        spec["default"] = default
    if immutable:
        rule = {"rule": "self == oldSelf", "message": "a task's spec does not change: delete it and make it anew"}
        spec["x-kubernetes-validations"] = [*spec.get("x-kubernetes-validations", []), rule]
    return {
        "type": "object",
        "description": (model.__doc__ or "").split("\n")[0],
        # As in kdoctor, a spec that nobody wrote is filled in where that is possible.
        "required": ["metadata", *(["spec"] if spec_field.required else [])],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": STATUS,
        },
    }


def _columns(naming: Naming) -> list[dict[str, str]]:
    return [
        {"name": "finish", "type": "boolean", "jsonPath": ".status.finish"},
        {"name": "expectedRound", "type": "integer", "jsonPath": ".status.expectedRound"},
        {"name": "doneRound", "type": "integer", "jsonPath": ".status.doneRound"},
        {"name": "lastRoundStatus", "type": "string", "jsonPath": ".status.lastRoundStatus"},
        dict(naming.schedule_column),
    ]
