"""Lists of reports: which, in what order, in which pieces, and as a table. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.report_api.document import labels
from controller.report_api.live import LiveTask
from controller.report_api.material import API_VERSION, KIND, Material
from controller.report_api.names import report_name
from controller.report_api.refusals import bad_request
from controller.report_api.store import TaskLine
from controller.status import rfc3339

Json = dict[str, Any]


def known_tasks(history: Iterable[TaskLine], live: Iterable[LiveTask]) -> dict[str, Material]:
    """``kind/name`` → what is known of the task: the one that exists, else the one that ran last under that name.

    A task that exists but has not begun has no report, as in kdoctor.
    """
    lines: dict[str, dict[str, TaskLine]] = {}
    for line in history:
        lines.setdefault(line.task, {})[line.uid] = line
    found = {
        task: Material(name=report_name(task), history=list(by_uid.values())[-1], live=None)
        for task, by_uid in lines.items()
    }
    for task in live:
        begun = lines.get(task.task, {}).get(task.uid)
        if begun is not None or task.status.get("history"):
            found[task.task] = Material(name=report_name(task.task), history=begun, live=task)
    return dict(sorted(found.items(), key=lambda item: item[1].name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a list is asked for. ``after`` is the name behind which this piece begins; ``limit`` 0 is no limit."""

    limit: int = 0
    after: str = ""
    name: str = ""
    labels: Mapping[str, str] | None = None

    def takes(self, material: Material) -> bool:
        """Whether a report is asked for."""
        held = labels(material.task)
        wanted = self.labels or {}
        return (not self.name or material.name == self.name) and all(held.get(k) == v for k, v in wanted.items())


def selection(query: Mapping[str, str]) -> Selection:
    """Reads the list parameters. Raises Refusal (400) for those that cannot be served."""
    return Selection(
        limit=number(query, "limit"),
        after=_decoded(query.get("continue", "")),
        name=_field(query.get("fieldSelector", "")),
        labels=_labels(query.get("labelSelector", "")),
    )


def number(query: Mapping[str, str], name: str) -> int:
    """A whole number from 0 of the query, 0 where it is not given. Raises Refusal (400)."""
    text = query.get(name, "") or "0"
    if not text.isdigit() or len(text) > 9:
        raise bad_request(f"{name}: found {text!r}, allowed: a whole number from 0")
    return int(text)


def _field(text: str) -> str:
    if not text:
        return ""
    field, _, value = text.replace("==", "=").partition("=")
    if field != "metadata.name" or "," in value or field.endswith("!"):
        raise bad_request(f"fieldSelector: found {text!r}, allowed: metadata.name=<name>")
    return value


def _labels(text: str) -> dict[str, str]:
    wanted = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.replace("==", "=").partition("=")
        if not equals or name.endswith("!") or " " in part.strip():
            raise bad_request(f"labelSelector: found {part!r}, allowed: <label>=<value>")
        wanted[name.strip()] = value.strip()
    return wanted


def _encoded(after: str) -> str:
    return base64.urlsafe_b64encode(json.dumps({"v": 1, "after": after}).encode()).decode()


def _decoded(token: str) -> str:
    if not token:
        return ""
    try:
        return str(json.loads(base64.urlsafe_b64decode(token))["after"])
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise bad_request(f"continue: found {token!r}, expected what an earlier piece of the list said") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a list, and what its metadata says."""

    reports: Sequence[Material]
    metadata: Mapping[str, Any]


def piece(found: Iterable[Material], selected: Selection, *, most: int = 0) -> Piece:
    """The part of the list that is asked for, of at most ``most`` reports where the caller takes it in parts."""
    every = [material for material in found if selected.takes(material)]
    newest_ms = max((m.history.last_ms for m in every if m.history), default=0)
    rest = [material for material in every if material.name > selected.after]
    limit = min(selected.limit, most) if selected.limit and most else selected.limit
    shown = rest[:limit] if limit else rest
    metadata: Json = {"resourceVersion": str(newest_ms)}
    if len(shown) < len(rest):
        metadata |= {"continue": _encoded(shown[-1].name), "remainingItemCount": len(rest) - len(shown)}
    return Piece(reports=shown, metadata=metadata)


def as_list(items: Sequence[Json], metadata: Mapping[str, Any]) -> Json:
    """A KdoctorReportList."""
    return {"apiVersion": API_VERSION, "kind": f"{KIND}List", "metadata": dict(metadata), "items": list(items)}


_COLUMNS = (
    ("Name", "string", "name", 0, "Name of the report: kind and name of its task."),
    ("Created At", "date", "", 0, "When the task was made."),
    ("Kind", "string", "", 1, "Kind of the task."),
    ("Rounds", "integer", "", 1, "Rounds that are over."),
    ("Last Result", "string", "", 1, "What the last of them came to."),
    ("Task", "string", "", 1, "Present, or gone: reports outlive their task."),
)


def table(reports: Sequence[Material], metadata: Mapping[str, Any], objects: Sequence[Json]) -> Json:
    """The table that kubectl prints; ``objects`` stand in the rows in the reports' order (may be empty)."""
    rows = [
        {"cells": _cells(material), **({"object": objects[i]} if objects else {})} for i, material in enumerate(reports)
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(metadata),
        "columnDefinitions": [
            {"name": name, "type": kind, "format": form, "description": text, "priority": priority}
            for name, kind, form, priority, text in _COLUMNS
        ],
        "rows": rows,
    }


def _cells(material: Material) -> list[Any]:
    line = material.history
    return [
        material.name,
        rfc3339(material.created_us) if material.created_us else "<unknown>",
        material.kind,
        material.done_rounds,
        line.verdict if line is not None else "",
        "present" if material.live is not None else "gone",
    ]


def partial(material: Material, metadata: Json) -> Json:
    """The metadata alone, as tables and metadata clients take it."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
