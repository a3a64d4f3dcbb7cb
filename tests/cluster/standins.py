"""Kubelets that only stand in: many nodes of a real API server in one thread, whose pods run nothing and answer `exec`.

They register their nodes and keep them Ready, bind a DaemonSet's pods and make them Ready, end pods that are deleted,
and serve `exec` over a WebSocket as a kubelet does. What answers there is an agent in words only: it takes memberships
and rounds, and gives a batch with every request answered, and its account.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from kpatrol.check.manifests import LABEL
from producers.batches import Batches
from producers.config import Identity, Serving
from producers.rows import Row, sealed
from tests.cluster.apiserver import ApiServer
from topics import agent_reports, mesh_members, probe_results, round_progress, task_rounds, wire
from topics.mesh_members import Memberships
from topics.outcome import Outcome
from topics.probe_results import TYPECODES
from topics.round_progress import AgentFinished
from topics.share import Stream, share
from topics.task_rounds import RoundScheduled

PROTOCOL = "v4.channel.k8s.io"
_LOOK_S, _HEARTBEAT_S, _AT_ONCE = 0.5, 6.0, 16
_STDIN, _STDOUT = 0, 1
_HOST = "127.0.0.1"
_JSON = {"Content-Type": "application/strategic-merge-patch+json"}


@dataclass(slots=True, kw_only=True)
class Standins:
    """What was seen: streams opened, and the most that were open at one time."""

    opened: int = 0
    open: int = 0
    most: int = 0


@contextmanager
def running_standins(api: ApiServer, *, nodes: int) -> Iterator[Standins]:
    """So many Ready nodes, `node-0` and on."""
    seen, ready, stop = Standins(), threading.Event(), threading.Event()
    trouble: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(_Kubelets(api=api, nodes=nodes, seen=seen).run(ready, stop))
        except BaseException as error:
            trouble.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=work, name="standins")
    thread.start()
    try:
        assert ready.wait(120), "the stand-ins did not come up"
        if trouble:
            raise trouble[0]
        yield seen
    finally:
        stop.set()
        thread.join(30)
    if trouble:
        raise trouble[0]


@dataclass(slots=True, kw_only=True)
class _Kubelets:
    api: ApiServer
    nodes: int
    seen: Standins
    port: int = 0
    session: aiohttp.ClientSession = field(init=False)
    addresses: dict[str, str] = field(default_factory=dict)

    async def run(self, ready: threading.Event, stop: threading.Event) -> None:
        tls = ssl.create_default_context(cafile=str(self.api.files.ca))
        tls.load_cert_chain(self.api.files.kubelet_client, self.api.files.kubelet_client_key)
        connector = aiohttp.TCPConnector(ssl=tls, limit=_AT_ONCE)
        async with self._exec_server(), aiohttp.ClientSession(self.api.url, connector=connector) as session:
            self.session = session
            await asyncio.gather(*(self._register(number) for number in range(self.nodes)))
            ready.set()
            beat = time.monotonic()
            while not stop.is_set():
                await self._look()
                if time.monotonic() - beat > _HEARTBEAT_S:
                    beat = time.monotonic()
                    await asyncio.gather(*(self._heartbeat(number) for number in range(self.nodes)))
                await asyncio.sleep(_LOOK_S)

    async def _ask(self, method: str, path: str, body: Any = None, *, patch: bool = False) -> Any:
        async with self.session.request(method, path, json=body, headers=_JSON if patch else None) as reply:
            # Gone meanwhile, or made already.
            if reply.status not in (200, 201, 202, 404, 409):
                raise RuntimeError(f"{method} {path}: {reply.status} {await reply.text()}")
            return await reply.json()

    async def _register(self, number: int) -> None:
        name = f"node-{number}"
        meta = {"name": name, "labels": {"kubernetes.io/os": "linux", "kubernetes.io/hostname": name}}
        await self._ask("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": meta})
        await self._heartbeat(number)

    async def _heartbeat(self, number: int) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        room = {"cpu": "4", "memory": "8Gi", "pods": "110"}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}
        status = {
            "conditions": [ready],
            "addresses": [{"type": "InternalIP", "address": _HOST}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}},
            "capacity": room,
            "allocatable": room,
        }
        await self._ask("PATCH", f"/api/v1/nodes/node-{number}/status", {"status": status}, patch=True)

    async def _look(self) -> None:
        pods = (await self._ask("GET", f"/api/v1/pods?labelSelector={LABEL}"))["items"]
        await asyncio.gather(*(self._serve(pod) for pod in pods))

    async def _serve(self, pod: Any) -> None:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        if "deletionTimestamp" in meta:
            await self._ask("DELETE", f"{path}?gracePeriodSeconds=0")
        elif "nodeName" not in pod["spec"]:
            await self._bind(pod, path)
        elif pod["status"].get("phase") != "Running":
            await self._start(pod, path)

    async def _bind(self, pod: Any, path: str) -> None:
        required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        (node,) = required["nodeSelectorTerms"][0]["matchFields"][0]["values"]
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]}, "target": target}
        await self._ask("POST", f"{path}/binding", body)

    async def _start(self, pod: Any, path: str) -> None:
        number = int(pod["spec"]["nodeName"].partition("-")[2])
        address = f"10.{number >> 8}.{number & 255}.5"
        self.addresses[pod["metadata"]["name"]] = address
        conditions = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Initialized", "Ready")]
        container = {"name": "agent", "ready": True, "started": True, "restartCount": 0, "image": "i", "imageID": "i",
                     "state": {"running": {}}}  # fmt: skip
        status = {"phase": "Running", "conditions": conditions, "podIP": address, "podIPs": [{"ip": address}],
                  "hostIP": _HOST, "containerStatuses": [container]}  # fmt: skip
        await self._ask("PATCH", f"{path}/status", {"status": status}, patch=True)

    @asynccontextmanager
    async def _exec_server(self) -> AsyncIterator[None]:
        pair = self.api.access.server_certificate(name="node", addresses=[_HOST])
        crt, key = (Path(self.api.folder) / f"standin.{kind}" for kind in ("crt", "key"))
        crt.write_text(pair.certificate_pem)
        key.write_text(pair.key_pem)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.api.files.ca))
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.load_cert_chain(crt, key)
        app = web.Application()
        app.router.add_get("/exec/{namespace}/{pod}/{container}", self._exec)
        runner = web.AppRunner(app, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, _HOST, 0, ssl_context=tls)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield
        finally:
            await runner.cleanup()

    async def _exec(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=[PROTOCOL], max_msg_size=0)
        await socket.prepare(request)
        self.seen.opened += 1
        self.seen.open += 1
        self.seen.most = max(self.seen.most, self.seen.open)
        pod = request.match_info["pod"]
        try:
            await _Agent(socket=socket, pod=pod, address=self.addresses[pod]).run()
        finally:
            self.seen.open -= 1
        return socket


@dataclass(slots=True, kw_only=True)
class _Agent:
    """An agent in words only."""

    socket: web.WebSocketResponse
    pod: str
    address: str
    members: Memberships = field(default_factory=Memberships)
    said: int = 0
    rest: bytes = b""
    node: str = ""

    async def run(self) -> None:
        await self._say(agent_reports.TOPIC.name, agent_reports.TOPIC.encode(agent_reports.EXAMPLE))
        with contextlib.suppress(ConnectionError):
            async for message in self.socket:
                if message.type is aiohttp.WSMsgType.BINARY and message.data[:1] == bytes([_STDIN]):
                    *whole, self.rest = (self.rest + message.data[1:]).split(b"\n")
                    for line in whole:
                        await self._take(wire.decode(line + b"\n"))

    async def _say(self, topic: str, value: bytes) -> None:
        self.said += 1
        line = wire.encode(wire.Frame(number=self.said, topic=topic, value=value))
        await self.socket.send_bytes(bytes([_STDOUT]) + line)

    async def _take(self, frame: wire.Frame) -> None:
        if frame.topic == mesh_members.TOPIC.name:
            chunk = mesh_members.TOPIC.decode(frame.value)
            assert isinstance(chunk, mesh_members.MembersChunk)
            self.members.add(chunk)
        elif frame.topic == task_rounds.TOPIC.name:
            round_ = task_rounds.TOPIC.decode(frame.value)
            assert isinstance(round_, RoundScheduled)
            await self._answer(round_)

    async def _answer(self, round_: RoundScheduled) -> None:
        which = round_.members
        members = self.members.get(group=which.group, epoch=which.epoch, digest=which.digest)
        assert members is not None
        streams = share(round_=round_, members=members, agent=self.pod)
        self.node = next(member.node for member in members if member.agent == self.pod)
        rows = [row for target, stream in enumerate(streams) for row in _rows(target, stream)]
        rows = [(seq, *row[1:]) for seq, row in enumerate(rows)]  # type: ignore[misc]
        identity = Identity(agent=self.pod, node=self.node, pod=self.pod)
        batches = Batches(
            round_=round_, streams=streams, identity=identity, serving=Serving(ipv4=self.address), incarnation=1,
            trace_id=bytes(16), version="",
        )  # fmt: skip
        size = probe_results.BATCH_ROWS
        parts = [sealed(rows[first : first + size]) for first in range(0, len(rows), size)]
        for number, part in enumerate(parts):
            envelope = batches.envelope(batch=part, batch_seq=number, shift_us=0)
            await self._say(envelope.topic, envelope.value)
        done = AgentFinished(
            task_uid=round_.task_uid, round_id=round_.round_id, agent=self.pod, node=self.node, incarnation=1,
            at_us=round_.start_us, planned=len(rows), sent=len(rows), unsent=0, batches=len(parts), rows=len(rows),
            asked_rate=1.0, achieved_rate=1.0,
        )  # fmt: skip
        await self._say(round_progress.TOPIC.name, round_progress.TOPIC.encode(done))


def _rows(target: int, stream: Stream) -> list[Row]:
    """Every request answered after 300 µs."""
    values = dict.fromkeys(TYPECODES, 0) | {"target": target, "dur_us": 300, "ttfb_us": 300, "sent": 1}
    values |= {"outcome": Outcome.ok.value, "error": "", "peer": ""}  # type: ignore[dict-item]
    return [tuple(values.values())] * stream.requests  # type: ignore[list-item]
