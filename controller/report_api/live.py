"""What the source of tasks knows of those that exist now. ClickHouse knows the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveTask:
    """A task that exists: ``task`` is ``kind/name``, ``spec`` and ``status`` as in the custom resource."""

    task: str
    kind: str
    uid: str
    created_us: int = 0
    spec: Mapping[str, Any] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)


class LiveTasks(Protocol):
    """The tasks of a cluster, or of a folder."""

    def live_tasks(self) -> Sequence[LiveTask]:
        """All tasks as they are known now; no call to anybody."""
        ...
