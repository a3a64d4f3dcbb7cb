"""The endpoint's own pages: /livez, /readyz (the engine answers a query), /metrics (Prometheus text)."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

_PATIENCE_S = 5.0
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Pages:
    """Counts statements, and shows the three pages. `answers` runs a query in the engine, raising where it cannot."""

    def __init__(self, *, answers: Callable[[], object]) -> None:
        self._answers = answers
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._statements = Counter(
            "kpatrol_endpoint_statements", "Statements answered, by HTTP status", ("code",), registry=self._registry
        )
        self._seconds = Histogram(
            "kpatrol_endpoint_statement_seconds", "How long they took", buckets=_SECONDS, registry=self._registry
        )
        self._running = Gauge("kpatrol_endpoint_statements_running", "Under way or waiting", registry=self._registry)

    def add_routes(self, app: web.Application) -> None:
        """The three pages."""
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)

    def counted(self, handler: Handler) -> Handler:
        """The handler of statements, counted."""

        async def count(request: web.Request) -> web.StreamResponse:
            began_s, code = time.monotonic(), "gone"
            self._running.inc()
            try:
                response = await handler(request)
                code = str(response.status)
                return response
            finally:
                self._running.dec()
                self._statements.labels(code).inc()
                self._seconds.observe(time.monotonic() - began_s)

        return count

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await asyncio.to_thread(self._answers)
        except Exception as error:  # whatever it is, the engine does not answer
            return web.Response(status=503, text=f"the engine does not answer: {type(error).__name__}\n")
        return web.Response(text="ok\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": "text/plain; version=0.0.4"})
