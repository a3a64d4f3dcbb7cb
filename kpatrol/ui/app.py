"""`kpatrol ui`: the page and its documents over HTTP, read-only, nothing from outside.

By default it listens on loopback. A request whose Host is neither an address nor the name it was started with is
refused, so no page of somebody else can reach it by rebinding a name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

import msgspec
from aiohttp import web
from aiokafka.errors import KafkaError

from kpatrol.reading.store import CannotRead, Store
from kpatrol.ui import facts
from kpatrol.ui.page import ASSETS, page
from topics import alarms
from topics.connection import KafkaConnection
from topics.follow import follow

log = logging.getLogger(__name__)

STORE: web.AppKey[Store] = web.AppKey("store", Store)
KAFKA: web.AppKey[Any] = web.AppKey("kafka", object)
HOSTS: web.AppKey[Any] = web.AppKey("hosts", object)
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
PING_S = 15.0
READY = b"event: ready\ndata: {}\n\n"
POLL_S = 2.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(*, store: Store, kafka: KafkaConnection | None, hosts: frozenset[str] = frozenset()) -> web.Application:
    """The application. Without ``kafka`` live alarms are asked of the view every two seconds instead of followed."""
    app = web.Application(middlewares=[_guard])
    app[STORE], app[KAFKA], app[HOSTS] = store, kafka, hosts | {"localhost"}
    app.router.add_get("/", _page)
    app.router.add_static("/assets/", ASSETS)
    app.router.add_get("/livez", _alive)
    for name, handler in _DOCUMENTS.items():
        app.router.add_get(f"/api/{name}", handler)
    app.router.add_get("/api/alarms/stream", _stream)
    return app


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    if not _is_ours(request.host, request.app[HOSTS]):
        return web.json_response(
            {"error": f"Host: found {request.host!r}, expected this server's own name"}, status=421
        )
    try:
        response = await handler(request)
    except CannotRead as error:
        return web.json_response({"error": str(error)}, status=502)
    except (KeyError, ValueError) as error:
        return web.json_response({"error": f"{request.path}: missing or bad parameter: {error}"}, status=400)
    if not response.prepared:
        response.headers.update(HEADERS)
    return response


def _is_ours(host: str, names: frozenset[str]) -> bool:
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name in names
    return True


async def _page(request: web.Request) -> web.Response:
    return web.Response(text=page(), content_type="text/html")


async def _alive(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


def _document(ask: Callable[[Store, web.Request], Any]) -> Handler:
    """A handler that asks the store in a thread and answers as JSON, compressed where the browser takes it."""

    async def handler(request: web.Request) -> web.Response:
        found = await asyncio.to_thread(ask, request.app[STORE], request)
        response = web.Response(body=json.dumps(found, separators=(",", ":")).encode(), content_type="application/json")
        response.enable_compression()
        return response

    return handler


def _round(request: web.Request) -> dict[str, Any]:
    return {"round_id": int(request.query["round_id"]), "round_at": request.query["round_at"]}


_DOCUMENTS: dict[str, Handler] = {
    "tasks": _document(lambda store, _: facts.tasks(store)),
    "agents": _document(lambda store, _: facts.agents(store)),
    "alarms": _document(lambda store, _: facts.alarms(store)),
    "rounds": _document(lambda store, request: facts.rounds(store, task=request.query["task"])),
    "findings": _document(lambda store, request: facts.findings(store, task=request.query["task"])),
    "protocols": _document(lambda store, request: facts.protocols(store, **_round(request))),
    "mesh": _document(
        lambda store, request: facts.mesh(store, **_round(request), via=request.query.get("via", "")),
    ),
    "pair": _document(
        lambda store, request: facts.pair(
            store, **{name: request.query[name] for name in ("task", "src", "dst", "since")}
        )
    ),
}


async def _stream(request: web.Request) -> web.StreamResponse:
    """Server-sent events: `ready` once nothing more will be missed, then each transition of an alarm as `alarm`."""
    response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
    await response.prepare(request)
    source = _told(request.app[KAFKA]) if request.app[KAFKA] else _asked(request.app[STORE])
    try:
        async with aclosing(source) as events:
            async for event in events:
                await response.write(event)
    except (ConnectionResetError, KafkaError, CannotRead) as error:
        log.info("live alarms ended: %s", error)
    return response


async def _told(kafka: KafkaConnection) -> AsyncGenerator[bytes, None]:
    """From alarms-v1, beginning at its end; a comment now and then keeps proxies from closing the connection."""
    records = cast(Any, follow(alarms.TOPIC, kafka=kafka, from_start=False, client_id="kpatrol-ui"))
    waiting: asyncio.Future[Any] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(records))
            done, _ = await asyncio.wait({waiting}, timeout=PING_S)
            if not done:
                yield b": still here\n\n"
                continue
            followed, waiting = waiting.result(), None
            record = followed.record
            if record is None:
                yield READY
            else:
                yield b"event: alarm\ndata: " + msgspec.json.encode(record) + b"\n\n"
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.wait({waiting})
        await records.aclose()


async def _asked(store: Store) -> AsyncGenerator[bytes, None]:
    """From the view: whatever was not there at the last look."""
    seen = {(a["alarm_id"], a["transition"]) for a in await asyncio.to_thread(facts.alarms, store)}
    yield READY
    while True:
        await asyncio.sleep(POLL_S)
        news = [a for a in await asyncio.to_thread(facts.alarms, store) if (a["alarm_id"], a["transition"]) not in seen]
        seen |= {(a["alarm_id"], a["transition"]) for a in news}
        yield b": looked\n\n"
        for alarm in news:
            yield b"event: alarm\ndata: " + json.dumps(alarm).encode() + b"\n\n"


def serve(
    *,
    store: Store,
    kafka: KafkaConnection | None,
    host: str,
    port: int,
    tell: Callable[[str], None],
    names: tuple[str, ...],
) -> None:
    """Serve until interrupted; ``tell`` gets the address once it answers. Raises OSError where it cannot listen."""
    asyncio.run(_serve(make_app(store=store, kafka=kafka, hosts=frozenset(names)), host, port, tell))


async def _serve(app: web.Application, host: str, port: int, tell: Callable[[str], None]) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        shown = f"[{host}]" if ":" in host else host
        tell(f"http://{shown}:{runner.addresses[0][1]}/")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
