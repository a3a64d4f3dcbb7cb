"""The controller's plain HTTP port: /livez, /readyz, /metrics (Prometheus text), and what else is put there."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from aiohttp import web

# Comparisons follow each other several times a second; one that Kafka keeps waiting may take a minute and more.
SILENCE_S = 180.0


class Pulse:
    """What the running controller says of itself. `beat` is called with every comparison."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat_s: float | None = None
        self.figures: Mapping[str, float] = {}

    def beat(self, **figures: float) -> None:
        """The loop has gone round once more; `figures` become metrics named kpatrol_controller_…"""
        self._beat_s = self._clock()
        self.figures = figures

    @property
    def ready(self) -> bool:
        """Whether the topics have been read to their end and the loop goes round."""
        return self._beat_s is not None and self.alive

    @property
    def alive(self) -> bool:
        """False when the loop went round once and does not any more."""
        return self._beat_s is None or self._clock() - self._beat_s < SILENCE_S

    def metrics(self) -> str:
        """Prometheus text."""
        values = {"ready": float(self.ready), **self.figures}
        lines = (
            f"# TYPE kpatrol_controller_{name} gauge\nkpatrol_controller_{name} {value:g}\n"
            for name, value in sorted(values.items())
        )
        return "".join(lines)


class Beside(Protocol):
    """What shares the port: routes of its own, metrics of its own."""

    def application(self) -> web.Application:
        """An application with the routes."""
        ...

    def metrics_text(self) -> str:
        """Prometheus text."""
        ...

    @property
    def missing(self) -> str:
        """What does not serve yet though it ought to; empty when all does."""
        ...


def pages(pulse: Pulse, beside: Beside | None = None) -> web.Application:
    """The three routes, and those of ``beside``."""

    def answer(good: bool, bad: str) -> web.Response:
        return web.Response(text="ok\n") if good else web.Response(status=503, text=bad)

    async def livez(_: web.Request) -> web.Response:
        return answer(pulse.alive, f"no comparison for {SILENCE_S:g} s\n")

    async def readyz(_: web.Request) -> web.Response:
        missing = beside.missing if beside is not None else ""
        return answer(pulse.ready and not missing, f"{missing or 'the topics are being read'}\n")

    async def metrics(_: web.Request) -> web.Response:
        text = pulse.metrics() + (beside.metrics_text() if beside is not None else "")
        return web.Response(body=text.encode(), headers={"Content-Type": "text/plain; version=0.0.4"})

    application = beside.application() if beside is not None else web.Application()
    application.router.add_get("/livez", livez)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", metrics)
    return application


@asynccontextmanager
async def serving(pulse: Pulse, *, listen: tuple[str, int] | None, beside: Beside | None = None) -> AsyncIterator[int]:
    """Serves while the block runs; yields the port (0: not served). Raises OSError when it is taken."""
    if listen is None:
        yield 0
        return
    runner = web.AppRunner(pages(pulse, beside), access_log=None, shutdown_timeout=2)
    await runner.setup()
    try:
        await web.TCPSite(runner, listen[0] or None, listen[1]).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
