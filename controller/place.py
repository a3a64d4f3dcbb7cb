"""Where tasks come from and where their statuses go: a folder of files, or Kubernetes. One loop serves both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from controller.addressbook import AddressBook
from controller.members import Site
from controller.plan import Ground
from controller.status import Document
from controller.tasks import Problem, Task
from topics.cluster_events import ClusterEvent


class TaskSource(Protocol):
    """What is wanted, and what the place offers."""

    def fingerprint(self) -> object:
        """Changes when a task does."""
        ...

    def tasks(self) -> dict[str, Task]:
        """Task key → task, each with its uid. Raises TaskFileErrors when the set is refused as a whole."""
        ...

    def book(self) -> AddressBook | None:
        """The addresses as they are now; None: those of the settings hold."""
        ...

    def sites(self) -> Mapping[str, Site]:
        """Node → where it stands."""
        ...

    def grounds(self, tasks: Sequence[Task], *, finished: Mapping[str, str]) -> Mapping[str, Ground]:
        """Task uid → agents of its own, for tasks that need them; ``finished`` is uid → end of the last round."""
        ...

    def cluster_events(self, at_us: int) -> Sequence[ClusterEvent]:
        """What changed since the last call."""
        ...


class StatusSink(Protocol):
    """What is told about tasks. Calls return at once; writing may take longer."""

    def write(self, key: str, document: Document) -> None:
        """The status of a task has changed."""
        ...

    def remove(self, key: str) -> None:
        """A task is gone."""
        ...

    def read(self) -> dict[str, Document]:
        """Task key → status written earlier."""
        ...

    def write_problems(self, problems: Sequence[Problem]) -> None:
        """Why the set of tasks is refused; with none, that it is not."""
        ...

    def write_controller(self, facts: Mapping[str, Any]) -> None:
        """How the controller itself is."""
        ...


class Lead(Protocol):
    """Who acts, where several controllers run."""

    @property
    def leading(self) -> bool:
        """True while this one may act."""
        ...

    @property
    def silent_since_s(self) -> float:
        """Monotonic seconds of the last sign of life of the one that led before this one took over."""
        ...

    async def keep(self) -> None:
        """Runs beside the loop; raises when what was held is lost."""
        ...
