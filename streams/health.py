"""The service's own small web pages: /livez, /readyz, /metrics (Prometheus text). Faust's web server is never used."""

from collections.abc import Callable
from typing import Any

import mode
from aiohttp import web

from streams.config import Listen
from streams.metrics import Metrics


class Health(mode.Service):  # type: ignore[misc]
    """Serves the pages while it runs; without an address it does nothing.

    A hung event loop answers nothing, which is what a liveness probe is for.
    """

    def __init__(self, *, listen: Listen | None, metrics: Metrics, ready: Callable[[], bool], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._listen = listen
        self._metrics = metrics
        self._ready = ready
        self._runner: web.AppRunner | None = None

    async def on_start(self) -> None:
        """Open the port. Raises OSError when it is taken."""
        if self._listen is None:
            return
        pages = web.Application()
        pages.router.add_get("/livez", self._livez)
        pages.router.add_get("/readyz", self._readyz)
        pages.router.add_get("/metrics", self._show_metrics)
        self._runner = web.AppRunner(pages, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._listen.host, self._listen.port).start()

    async def on_stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n") if self._ready() else web.Response(status=503, text="not ready\n")

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render().encode(), headers={"Content-Type": "text/plain; version=0.0.4"})
