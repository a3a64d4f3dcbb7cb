"""Keeps agents of tasks' own as they ought to be: applied where they differ, deleted after the task's grace."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from controller.kubernetes import workload
from controller.kubernetes.book import Where, book, interfaces
from controller.kubernetes.cache import Cache
from controller.kubernetes.door import APPLY, Door
from controller.kubernetes.errors import Unreachable
from controller.plan import Ground
from controller.tasks import Task

log = logging.getLogger(__name__)

GRACE_MINUTE = 60
_AGAIN_S = 5.0
_FIELD_MANAGER = (("fieldManager", "kpatrol-controller"), ("force", "true"))


class OwnAgents:
    """Reads the cache, writes in a thread of its own."""

    def __init__(self, door: Door, cache: Cache, *, where: Where) -> None:
        self._door = door
        self._cache = cache
        self._where = where
        self._writes: queue.Queue[tuple[str, str, Mapping[str, Any] | None]] = queue.Queue()
        # What is on its way, by path: asked for once, until the cache shows it or it failed.
        self._under_way: set[str] = set()

    def start(self) -> None:
        """Begins to write; the thread ends with the process."""
        threading.Thread(target=self._write_for_ever, name="own-agents", daemon=True).start()

    def grounds(self, tasks: Sequence[Task], *, finished: Mapping[str, str]) -> dict[str, Ground]:
        """Task uid → its own agents, of tasks that have some."""
        own = [task for task in tasks if workload.needs_own(task)]
        return {task.metadata.uid: self._ground(task, finished.get(task.metadata.uid, "")) for task in own}

    def _ground(self, task: Task, finished: str) -> Ground:
        kind = "daemonsets" if workload.agent_spec(task).kind == "DaemonSet" else "deployments"
        key = f"{self._where.namespace}/{workload.name_of(task)}"
        known = self._cache.objects(kind).get(key)
        if finished and _over(task, finished):
            if known is not None:
                self._ask("DELETE", self._path(kind, task), None)
            return self._made(task, known=None, status="deleted")
        self._keep(task)
        return self._made(task, known=known, status="created" if workload.ready(known) else "creating")

    def _path(self, kind: str, task: Task) -> str:
        return f"/apis/apps/v1/namespaces/{self._where.namespace}/{kind}/{workload.name_of(task)}"

    def _keep(self, task: Task) -> None:
        space, agents = self._where.namespace, self._where.agents
        template = self._cache.objects("daemonsets").get(f"{space}/{agents}")
        if template is None:
            log.warning("%s: no DaemonSet %s to make its own agents from", task.metadata.name, agents)
            return
        all_services = self._cache.objects("services")
        services = [s for f in ("4", "6") if (s := all_services.get(f"{space}/{agents}-ipv{f}")) is not None]
        ingress = self._cache.objects("ingresses").get(f"{space}/{agents}")
        wanted = workload.desired(task, template=template, services=services, namespace=space, ingress=ingress)
        for document in wanted:
            known = self._cache.objects(workload.KEPT[document["kind"]]).get(f"{space}/{document['metadata']['name']}")
            mark = document["metadata"]["annotations"][workload.SHAPE]
            if known is None or (known["metadata"].get("annotations") or {}).get(workload.SHAPE) != mark:
                self._ask("PATCH", workload.path_of(document), document)

    def _made(self, task: Task, *, known: Mapping[str, Any] | None, status: str) -> Ground:
        name = workload.name_of(task)
        where = Where(namespace=self._where.namespace, agents=name, multus_annotations=self._where.multus_annotations)
        services = self._cache.objects("services")
        shared = book(where=where, services=services, ingresses=self._cache.objects("ingresses"), pods=())
        pods = self._cache.objects("pods").values()
        ours = [p for p in pods if (p["metadata"].get("labels") or {}).get(workload.TASK_LABEL) == task.metadata.uid]
        multus = {p["metadata"]["name"]: i for p in ours if (i := interfaces(p, where.multus_annotations))}
        # A pod mounts Secrets and ConfigMaps of its own namespace alone; another's stays unresolved and is named so.
        here = f"{self._where.namespace}/"
        secrets = {key: files for key, files in workload.secret_files(task).items() if key.startswith(here)}
        bodies = {key: folder for key, folder in workload.body_folders(task).items() if key.startswith(here)}
        resource = {
            "runtimeName": name,
            "runtimeType": workload.agent_spec(task).kind,
            "runtimeStatus": status,
        }
        for family in ("4", "6"):
            if f"{self._where.namespace}/{name}-ipv{family}" in services:
                resource[f"serviceNameV{family}"] = f"{name}-ipv{family}"
        return Ground(
            group=task.metadata.uid,
            expected=workload.ready(known),
            book=replace(shared, multus=multus, secrets=secrets, bodies=bodies),
            resource=resource,
        )

    def _ask(self, method: str, path: str, document: Mapping[str, Any] | None) -> None:
        if path not in self._under_way:
            self._under_way.add(path)
            self._writes.put((method, path, document))

    def _write_for_ever(self) -> None:
        while True:
            method, path, document = self._writes.get()
            query = _FIELD_MANAGER if method == "PATCH" else (("propagationPolicy", "Background"),)
            pause_s = 1.0
            try:
                self._door.request(method, path, query=query, body=document, content_type=APPLY)
                log.info("%s %s", method, path)
            except Unreachable as error:
                log.warning("%s", error)
                pause_s = _AGAIN_S
            # The cache has the time to show it before it is asked for again.
            threading.Timer(pause_s, self._under_way.discard, (path,)).start()


def _over(task: Task, finished: str) -> bool:
    """Whether the grace after the last round has passed."""
    minutes = workload.agent_spec(task).termination_grace_minute
    grace = timedelta(minutes=GRACE_MINUTE if minutes is None else minutes)
    return datetime.now(UTC) > datetime.fromisoformat(finished.replace("Z", "+00:00")) + grace
