"""Task files: YAML documents in, tasks out, or every problem of all of them at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from controller.tasks import yamlnodes
from controller.tasks.apphttphealthy import AppHttpHealthy
from controller.tasks.netdns import Netdns
from controller.tasks.netpatrol import NetPatrol
from controller.tasks.netreach import NetReach
from controller.tasks.problems import Problem, TaskFileErrors
from controller.tasks.read import Reading, read_object, show, suggest
from controller.tasks.schema import Limits
from controller.tasks.yamlnodes import BadYaml, MapNode, Node, ScalarNode

Task = NetReach | AppHttpHealthy | Netdns | NetPatrol

KINDS: Mapping[tuple[str, str], type[Task]] = {
    (model.API_VERSION, model.KIND): model for model in (NetReach, AppHttpHealthy, Netdns, NetPatrol)
}
FILE_MAX_BYTES = 1 << 20
SUFFIXES = (".yaml", ".yml", ".json")
_METADATA_NOT_READ = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "namespace",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
    }
)
_TOP_NOT_READ = frozenset({"apiVersion", "kind", "status"})


def task_key(task: Task) -> str:
    """What a task is known by: kind and name, so that one name may be used in several kinds. E.g. ``netreach/cni``."""
    return f"{task.KIND.lower()}/{task.metadata.name}"


def load_tasks(source: Path | str, *, limits: Limits | None = None, file: str = "") -> list[Task]:
    """The tasks of one file (a path) or of YAML text (a string, named ``file`` in messages). Raises TaskFileErrors."""
    name = file or (str(source) if isinstance(source, Path) else "text")
    return _load([(name, source)], limits or Limits())


def load_paths(paths: Iterable[Path], *, limits: Limits | None = None) -> list[Task]:
    """The tasks of several files and folders (their .yaml, .yml and .json files), as one set. Raises TaskFileErrors."""
    return _load([(str(path), path) for path in expand(paths)], limits or Limits())


def expand(paths: Iterable[Path]) -> list[Path]:
    """Files as they are, folders as the task files in them by name; hidden ones (editors' and mounts' own) left out."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            members = (p for p in path.iterdir() if p.suffix in SUFFIXES and not p.name.startswith("."))
            found += sorted(p for p in members if p.is_file())
        else:
            found.append(path)
    return found


def _load(sources: list[tuple[str, Path | str]], limits: Limits) -> list[Task]:
    problems: list[Problem] = []
    tasks: list[Task] = []
    seen: dict[str, tuple[str, int]] = {}
    for file, source in sources:
        try:
            nodes = list(yamlnodes.documents(_text(file, source)))
        except BadYaml as bad:
            found = f"broken YAML ({bad.reason})"
            problems.append(
                Problem(file=file, line=bad.line, task="", field="", found=found, allowed="well-formed YAML")
            )
            continue
        except TaskFileErrors as errors:
            problems += errors.problems
            continue
        for index, node in enumerate(nodes, start=1):
            task = _document(file, index, node, limits, problems)
            if task is not None and _first_of_its_key(task, file, node.line, seen, problems):
                tasks.append(task)
    if problems:
        raise TaskFileErrors(problems)
    return tasks


def _text(file: str, source: Path | str) -> str:
    def refuse(found: str, allowed: str) -> TaskFileErrors:
        return TaskFileErrors([Problem(file=file, line=1, task="", field="", found=found, allowed=allowed)])

    try:
        data = source.encode() if isinstance(source, str) else source.read_bytes()
    except OSError as error:
        raise refuse(f"{error.strerror or error}".lower(), "a readable file") from error
    if len(data) > FILE_MAX_BYTES:
        raise refuse(f"{len(data)} bytes", f"at most {FILE_MAX_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refuse(f"byte 0x{data[error.start]:02x} at {error.start}", "UTF-8 text") from error


def _document(file: str, index: int, node: Node, limits: Limits, problems: list[Problem]) -> Task | None:
    label = f"document {index}"

    def report(line: int, field: str, found: str, allowed: str) -> None:
        problems.append(Problem(file=file, line=line, task=label, field=field, found=found, allowed=allowed))

    if not isinstance(node, MapNode):
        report(node.line, "", show(node), "an object with apiVersion, kind, metadata, spec")
        return None
    model = _model(node, report)
    if model is None:
        return None
    label = f"{model.KIND}/{_name(node)}"
    reading = Reading(kind=model.KIND, limits=limits, report=report)
    made: Task | None = read_object(node=_without_unread(node), model=model, path="", reading=reading)
    return made


def _model(node: MapNode, report: Any) -> type[Task] | None:
    given = [node.members.get(name, (node.line, None)) for name in ("apiVersion", "kind")]
    (version_line, version), (kind_line, kind) = given
    versions = sorted({key[0] for key in KINDS})
    kinds = [key[1] for key in KINDS]
    kind_text = kind.value if isinstance(kind, ScalarNode) else None
    version_text = version.value if isinstance(version, ScalarNode) else None
    known = [model for key, model in KINDS.items() if key[1] == kind_text]
    if not known:
        report(kind_line, "kind", "nothing" if kind is None else show(kind), suggest(str(kind_text), kinds))
    if version_text not in versions or (known and version_text != known[0].API_VERSION):
        allowed = known[0].API_VERSION if known else ", ".join(versions)
        report(version_line, "apiVersion", "nothing" if version is None else show(version), allowed)
        return None
    return known[0] if known else None


def _name(node: MapNode) -> str:
    _, metadata = node.members.get("metadata", (0, None))
    if isinstance(metadata, MapNode):
        _, name = metadata.members.get("name", (0, None))
        if isinstance(name, ScalarNode) and isinstance(name.value, str) and name.value:
            return name.value[:63]
    return "?"


def _without_unread(node: MapNode) -> MapNode:
    """The document without the members that the API server keeps and a task does not need."""
    members = {key: member for key, member in node.members.items() if key not in _TOP_NOT_READ}
    line, metadata = members.get("metadata", (0, None))
    if isinstance(metadata, MapNode):
        kept = {key: member for key, member in metadata.members.items() if key not in _METADATA_NOT_READ}
        members["metadata"] = (line, MapNode(line=metadata.line, members=kept, twice=metadata.twice))
    return MapNode(line=node.line, members=members, twice=node.twice)


def _first_of_its_key(
    task: Task, file: str, line: int, seen: dict[str, tuple[str, int]], problems: list[Problem]
) -> bool:
    key = task_key(task)
    if key not in seen:
        seen[key] = (file, line)
        return True
    first_file, first_line = seen[key]
    first = f"line {first_line}" if first_file == file else f"{first_file}:{first_line}"
    problems.append(
        Problem(
            file=file,
            line=line,
            task=f"{task.KIND}/{task.metadata.name}",
            field="metadata.name",
            found=f'"{task.metadata.name}" a second time, first in {first}',
            allowed="each name once in a kind",
        )
    )
    return False
