"""The routes of the report API: who asks, whether they may, what they get. What it says is made elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from controller.report_api import discovery, openapi
from controller.report_api.access import Access, CannotAsk
from controller.report_api.document import document, metadata
from controller.report_api.forms import Form, chosen
from controller.report_api.front_proxy import FrontProxy, caller
from controller.report_api.listing import Piece, as_list, known_tasks, number, partial, piece, selection, table
from controller.report_api.live import LiveTasks
from controller.report_api.material import GROUP, VERSION, Material, ends_us
from controller.report_api.names import hint, report_name, tasks_named
from controller.report_api.refusals import (
    RESOURCE,
    Refusal,
    ambiguous,
    away,
    forbidden,
    no_such_path,
    not_allowed,
    not_found,
)
from controller.report_api.store import CannotRead, History

log = logging.getLogger(__name__)

# Targets in one report, and in each report of a list: about 1.6 KB each. What is over comes by `continue`.
TARGETS_MOST = 5000
LIST_TARGETS_MOST = 200
# Whole reports in one piece of a list, where the caller takes it in pieces.
PIECE_MOST = 25
COMPRESS_FROM_BYTES = 128 << 10

_BASE = f"/apis/{GROUP}/{VERSION}"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True, kw_only=True)
class ReportApi:
    """Handlers over the history, the tasks that exist and Kubernetes' word on who may."""

    history: History
    live: LiveTasks
    access: Access
    rules: FrontProxy

    def application(self, *outer: Middleware) -> web.Application:
        """The aiohttp application; ``outer`` middleware sees every answer."""
        app = web.Application(middlewares=[*outer, _answers_refusals])
        for path in ("/livez", "/readyz", "/healthz"):
            app.router.add_get(path, _ok)
        app.router.add_get("/apis", self._groups)
        app.router.add_get(f"/apis/{GROUP}", self._fixed(discovery.group))
        app.router.add_get(_BASE, self._fixed(discovery.resource_list))
        app.router.add_get("/openapi/v2", self._fixed(openapi.v2))
        app.router.add_get("/openapi/v3", self._fixed(openapi.v3_paths))
        app.router.add_get(f"/openapi/v3{_BASE}", self._fixed(openapi.v3))
        for folder in (_BASE, f"{_BASE}/namespaces/{{namespace}}"):
            app.router.add_route("*", f"{folder}/{RESOURCE}", self._list)
            app.router.add_route("*", f"{folder}/{RESOURCE}/{{name}}", self._get)
        app.router.add_route("*", f"{_BASE}/watch/{{rest:.*}}", self._watched)
        app.router.add_route("*", "/{rest:.*}", self._elsewhere)
        return app

    def _fixed(self, make: Callable[[], Any]) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            self._caller(request)
            return _reply(request, make(), chosen(request.headers.get("Accept", ""), shapes=()))

        return answer

    async def _groups(self, request: web.Request) -> web.StreamResponse:
        self._caller(request)
        form = chosen(request.headers.get("Accept", ""), shapes=("APIGroupDiscoveryList",))
        if form.shape:
            form = replace(form, version=form.version if form.version == "v2beta1" else "v2")
        return _reply(request, discovery.aggregated(form.version) if form.shape else discovery.group_list(), form)

    async def _elsewhere(self, request: web.Request) -> web.StreamResponse:
        self._caller(request)
        raise no_such_path(request.path)

    async def _watched(self, request: web.Request) -> web.StreamResponse:
        self._caller(request)
        raise not_allowed("watch")

    async def _list(self, request: web.Request) -> web.StreamResponse:
        asks = self._caller(request)
        _read_only(request, "create")
        namespace = request.match_info.get("namespace", "")
        await self._admit(asks, verb="list", namespace=namespace, name="")
        form = chosen(request.headers.get("Accept", ""), shapes=("Table", "PartialObjectMetadataList"))
        selected = selection(request.query)
        found = (await self._known()).values()
        if form.shape == "Table":
            return _reply(request, _table(piece(found, selected), request.query.get("includeObject", "")), form)
        if form.shape:
            part = piece(found, selected)
            items = [partial(material, metadata(material)) for material in part.reports]
            kind = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            return _reply(request, {**kind, "metadata": dict(part.metadata), "items": items}, form)
        part = piece(found, selected, most=PIECE_MOST)
        items = [document(filled) for filled in await self._filled(part.reports, limit=LIST_TARGETS_MOST)]
        return _reply(request, as_list(items, part.metadata), form)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        asks = self._caller(request)
        _read_only(request, "modification")
        name = request.match_info["name"]
        await self._admit(asks, verb="get", namespace=request.match_info.get("namespace", ""), name=name)
        form = chosen(request.headers.get("Accept", ""), shapes=("Table", "PartialObjectMetadata"))
        material = replace(self._one(name, await self._known()), name=name)
        if form.shape == "Table":
            whole = Piece(reports=[material], metadata={"resourceVersion": ""})
            return _reply(request, _table(whole, request.query.get("includeObject", "")), form)
        if form.shape:
            return _reply(request, partial(material, metadata(material)), form)
        limit = min(number(request.query, "limit") or TARGETS_MOST, TARGETS_MOST)
        offset, round_number = number(request.query, "continue"), number(request.query, "round")
        agent = request.query.get("agent", "")
        (filled,) = await self._filled([material], limit=limit, offset=offset, round_number=round_number, agent=agent)
        if round_number and filled.verdict is None:
            raise not_found(name, f"round {round_number} is not known, the newest is {material.done_rounds}")
        return _reply(request, document(filled), form)

    def _one(self, name: str, known: dict[str, Material]) -> Material:
        tasks = tasks_named(name, known)
        if not tasks:
            raise not_found(name, hint(name, known))
        if len(tasks) > 1:
            raise ambiguous(name, [report_name(task) for task in tasks])
        return known[tasks[0]]

    async def _known(self) -> dict[str, Material]:
        return known_tasks(await self.history.tasks(), self.live.live_tasks())

    async def _filled(
        self, materials: Sequence[Material], *, limit: int, offset: int = 0, round_number: int = 0, agent: str = ""
    ) -> list[Material]:
        """The reports with their rounds; one of which none is over stays as it is."""
        tasks = [material.history for material in materials if material.history is not None]
        if not tasks:
            return list(materials)
        verdicts = await self.history.verdicts(tasks, number=round_number)
        failed = await self.history.failed_rounds(tasks)
        # One more than is shown says whether there are more.
        lines = await self.history.target_lines(list(verdicts.values()), limit=limit + 1, offset=offset, agent=agent)
        minutes = {ends_us(told, lines.get(told.round_id, ())) // 60_000_000 for told in verdicts.values()}
        beside = {minute: await self.history.beside(minute) for minute in sorted(minutes)}
        filled = []
        for material in materials:
            told = verdicts.get(material.uid)
            if told is None or material.history is None:
                filled.append(material)
                continue
            own = lines.get(told.round_id, ())
            filled.append(
                replace(
                    material,
                    verdict=told,
                    failed_rounds=failed.get(material.uid, ()),
                    lines=own[:limit],
                    beside=beside[ends_us(told, own) // 60_000_000],
                    offset=offset,
                    next_offset=offset + limit if len(own) > limit else 0,
                )
            )
        return filled

    def _caller(self, request: web.Request) -> Any:
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        return caller(certificate=certificate, headers=list(request.headers.items()), rules=self.rules)

    async def _admit(self, asks: Any, *, verb: str, namespace: str, name: str) -> None:
        decision = await self.access.may(asks, verb=verb, namespace=namespace, name=name)
        if not decision.allowed:
            raise forbidden(user=asks.user, verb=verb, namespace=namespace, name=name, why=decision.why)


def _read_only(request: web.Request, word: str) -> None:
    if request.method not in ("GET", "HEAD"):
        raise not_allowed({"DELETE": "delete", "PATCH": "patch", "PUT": "update", "POST": "create"}.get(
            request.method, word
        ))  # fmt: skip
    if request.query.get("watch", "").lower() in ("1", "true"):
        raise not_allowed("watch")


def _table(part: Piece, include: str) -> dict[str, Any]:
    """``includeObject`` is Metadata (default), None or Object; an object is metadata here, the report a GET away."""
    objects: Sequence[dict[str, Any]] = ()
    if include != "None":
        objects = [partial(material, metadata(material)) for material in part.reports]
    return table(part.reports, part.metadata, objects)


async def _ok(_: web.Request) -> web.StreamResponse:
    return web.Response(text="ok")


def _reply(request: web.Request, body: Any, form: Form, *, status: int = 200) -> web.StreamResponse:
    encoded = form.encode(body)
    headers = {"Content-Type": form.content_type(), "Cache-Control": "no-cache, private"}
    response = web.Response(status=status, body=encoded, headers=headers, zlib_executor_size=1 << 16)
    if len(encoded) >= COMPRESS_FROM_BYTES and "gzip" in request.headers.get("Accept-Encoding", ""):
        response.enable_compression(web.ContentCoding.gzip)
    return response


@web.middleware
async def _answers_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as refusal:
        response = _reply(request, refusal.status(), Form(), status=refusal.code)
        if refusal.retry_after_s:
            response.headers["Retry-After"] = str(refusal.retry_after_s)
        return response
    except (CannotRead, CannotAsk) as error:
        log.warning("%s %s: %s", request.method, request.path, error)
        unavailable = away(str(error))
        return _reply(request, unavailable.status(), Form(), status=unavailable.code)
