"""What the API server holds, kept up to date by list and watch: level-triggered, one thread for each kind of object."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.kubernetes.door import Door
from controller.kubernetes.errors import Unreachable

log = logging.getLogger(__name__)

WATCH_S = 240
PAGE = 500
PAUSE_LEAST_S, PAUSE_MOST_S = 0.5, 20.0
GONE = 410
Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A kind of objects to keep: its path, a selection, and what of an object is worth its memory."""

    path: str
    labels: str = ""
    keep: Callable[[Object], Object] = lambda found: found


def name_of(found: Mapping[str, Any]) -> str:
    """``namespace/name``, or the name of what has no namespace."""
    metadata = found["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else str(metadata["name"])


@dataclass(slots=True)
class Kept:
    """One kind of objects. ``version`` grows with every change."""

    resource: Resource
    version: int = 0
    objects: Mapping[str, Object] = field(default_factory=dict)
    listed: threading.Event = field(default_factory=threading.Event)

    def replace(self, items: Sequence[Object]) -> None:
        """Takes a whole list."""
        self.objects = {name_of(item): self.resource.keep(item) for item in items}
        self.version += 1
        self.listed.set()

    def take(self, event: Mapping[str, Any]) -> None:
        """Takes one event of a watch. The mapping is replaced, so who reads it never sees it change."""
        found = event["object"]
        objects = {name: known for name, known in self.objects.items() if name != name_of(found)}
        if event["type"] != "DELETED":
            objects[name_of(found)] = self.resource.keep(found)
        self.objects = objects
        self.version += 1


class Cache:
    """Keeps resources by name while the block runs."""

    def __init__(self, door: Door, resources: Mapping[str, Resource]) -> None:
        self._door = door
        self._kept = {name: Kept(resource) for name, resource in resources.items()}
        self._stop = threading.Event()

    def start(self) -> None:
        """Begins; the threads end with the process."""
        for name, kept in self._kept.items():
            threading.Thread(target=self._keep, args=(name, kept), name=f"watch-{name}", daemon=True).start()

    def stop(self) -> None:
        """Ends after the event that comes next."""
        self._stop.set()

    def listed(self, *, timeout_s: float) -> bool:
        """Waits until everything was listed once; false when time ran out."""
        return all(kept.listed.wait(timeout_s) for kept in self._kept.values())

    def objects(self, name: str) -> Mapping[str, Object]:
        """namespace/name → object, as known now."""
        return self._kept[name].objects

    def version(self, *names: str) -> int:
        """Grows when one of these changes."""
        return sum(self._kept[name].version for name in names)

    def _keep(self, name: str, kept: Kept) -> None:
        pause_s = PAUSE_LEAST_S
        while not self._stop.is_set():
            try:
                self._list_and_watch(kept)
                pause_s = PAUSE_LEAST_S
            except Unreachable as error:
                log.warning("%s: %s; listing again in %g s", name, error, pause_s)
                self._stop.wait(pause_s)
                pause_s = min(PAUSE_MOST_S, pause_s * 2)

    def _list_and_watch(self, kept: Kept) -> None:
        version = self._list(kept)
        selection = [("labelSelector", kept.resource.labels)] if kept.resource.labels else []
        while not self._stop.is_set():
            query = (*selection, ("resourceVersion", version), ("timeoutSeconds", str(WATCH_S)))
            for event in self._door.watch(kept.resource.path, query=query, silence_s=WATCH_S + 30):
                if event["type"] == "ERROR":
                    if event["object"].get("code") == GONE:
                        version = self._list(kept)
                        break
                    raise Unreachable(str(event["object"].get("message", event)))
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    kept.take(event)

    def _list(self, kept: Kept) -> str:
        selection = [("labelSelector", kept.resource.labels)] if kept.resource.labels else []
        items: list[Object] = []
        following = ""
        while True:
            query = [*selection, ("limit", str(PAGE)), *([("continue", following)] if following else [])]
            page = self._door.request("GET", kept.resource.path, query=query)
            items += page["items"]
            following = page["metadata"].get("continue", "")
            if not following:
                kept.replace(items)
                return str(page["metadata"]["resourceVersion"])
