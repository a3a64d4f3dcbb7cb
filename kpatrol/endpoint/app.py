"""The routes: HTTP in, a thread of the pool for the engine, HTTP out. A client that goes away takes its query along."""

import asyncio
import logging
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from kpatrol.endpoint import request as requests
from kpatrol.endpoint.auth import Account, authenticate, credentials
from kpatrol.endpoint.engine import EngineError
from kpatrol.endpoint.pages import Pages
from kpatrol.endpoint.request import Asked
from kpatrol.endpoint.serve import Limits, Reply, Service, error_reply
from kpatrol.endpoint.sql_tokens import Refused

log = logging.getLogger(__name__)


class Routes:
    """Handlers over a Service. `workers` calls run at once, `waiting` more may wait; the rest gets 503."""

    def __init__(
        self, *, service: Service, accounts: tuple[Account, ...], limits: Limits, workers: int, waiting: int
    ) -> None:
        self._service = service
        self._accounts = accounts
        self._limits = limits
        self._slots = asyncio.Semaphore(workers)
        self._admitted = 0
        self._max_admitted = workers + waiting
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="query")
        # Killing must not wait behind the queries it is to end.
        self._killer = ThreadPoolExecutor(1, thread_name_prefix="kill")
        self._running: dict[str, asyncio.Future[Reply]] = {}

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=self._limits.max_body_bytes)
        app.router.add_get("/ping", self.ping)
        pages = Pages(answers=self._service.answers)
        pages.add_routes(app)
        app.router.add_get("/", pages.counted(self.query))
        app.router.add_post("/", pages.counted(self.query))
        return app

    async def ping(self, _: web.Request) -> web.Response:
        """Answers while the process lives and the engine is open."""
        return web.Response(text="Ok.\n")

    async def query(self, request: web.Request) -> web.Response:
        """One statement."""
        default_id = str(uuid.uuid4())
        query_id = requests.header_safe(request.query.get("query_id") or default_id)
        try:
            if request.method == "GET" and "query" not in request.query:
                return web.Response(text="Ok.\n")
            user, password = credentials(request.headers, request.query)
            account = authenticate(user=user, password=password, accounts=self._accounts)
            reply = await self._answer(request, account, default_id)
        except web.HTTPRequestEntityTooLarge:
            reply = self._error(requests.too_large(self._limits.max_body_bytes), query_id)
        except (Refused, EngineError, ValueError) as error:
            log.info("query %s of %s: %s", query_id, request.remote, error)
            reply = self._error(error, query_id)
        return web.Response(status=reply.status, body=reply.body, headers=_safe(reply.headers))

    def _error(self, error: Refused | EngineError | ValueError, query_id: str) -> Reply:
        return error_reply(error, version=self._service.version, query_id=query_id)

    async def _answer(self, request: web.Request, account: Account, default_id: str) -> Reply:
        if self._admitted >= self._max_admitted:
            raise Refused(
                f"Too many simultaneous queries. Maximum: {self._max_admitted}",
                code=202,
                name="TOO_MANY_SIMULTANEOUS_QUERIES",
                status=503,
            )
        self._admitted += 1
        try:
            form, body = await _read(request)
            async with self._slots:
                return await self._in_thread(request, account, form, body, default_id)
        finally:
            self._admitted -= 1

    async def _in_thread(
        self, request: web.Request, account: Account, form: Mapping[str, str], body: bytes, default_id: str
    ) -> Reply:
        tag = uuid.uuid4().hex
        encoding = request.headers.get("Content-Encoding", "")

        def work() -> Reply:
            plain = requests.decompressed(body, encoding=encoding, limit_bytes=self._limits.max_body_bytes)
            asked: Asked = requests.asked(
                url=request.query, form=form, headers=request.headers, body=plain, default_id=default_id
            )
            return self._service.serve(asked=asked, account=account, get=request.method == "GET", tag=tag)

        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        self._running[tag] = future
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # The slot stays taken until the engine has really let go of the query.
            await self._end(tag, future)
            raise
        finally:
            del self._running[tag]

    async def _end(self, tag: str, future: asyncio.Future[Reply]) -> None:
        for _ in range(40):
            if future.done():
                break
            try:
                await asyncio.get_running_loop().run_in_executor(self._killer, self._service.kill, tag)
            except EngineError as error:
                log.warning("could not end query %s: %s", tag, error)
            # Killed before the engine knew it: ask again.
            await asyncio.wait((future,), timeout=0.25)
        if future.done() and not future.cancelled():
            future.exception()  # the client is gone: nobody else will look at it

    async def stop(self, *, grace_s: float) -> None:
        """Waits for running queries, ends those that take longer, and stops the threads."""
        running = dict(self._running)
        if running:
            await asyncio.wait(running.values(), timeout=grace_s)
            await asyncio.gather(*(self._end(tag, future) for tag, future in running.items()))
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._killer.shutdown(wait=True)


async def _read(request: web.Request) -> tuple[dict[str, str], bytes]:
    """(form fields, body). Only multipart is a form: a urlencoded body (curl -d) is SQL as it stands."""
    if request.content_type != "multipart/form-data":
        return {}, await request.read()
    fields: dict[str, str] = {}
    for name, value in (await request.post()).items():
        if isinstance(value, str):
            fields[name] = value
        elif isinstance(value, web.FileField) and (name == "query" or name.startswith("param_")):
            fields[name] = value.file.read().decode()
        else:
            raise Refused("external tables are not supported", code=48, name="NOT_IMPLEMENTED", status=501)
    return fields, b""


def _safe(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: requests.header_safe(value) for name, value in headers.items()}
