"""What the controller counts, for Prometheus: verdicts and answers of its APIs; the loop's own figures: health."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Middleware
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PREFIX = "kpatrol_controller_"
_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(slots=True)
class Metrics:
    """The families of one process, in a registry of their own."""

    registry: CollectorRegistry = field(default_factory=lambda: CollectorRegistry(auto_describe=False))
    verdicts: Counter = field(init=False)
    requests: Counter = field(init=False)
    request_seconds: Histogram = field(init=False)

    def __post_init__(self) -> None:
        ours = self.registry
        ProcessCollector(registry=ours)
        GCCollector(registry=ours)
        self.verdicts = Counter(
            f"{_PREFIX}verdicts", "Verdicts heard by what they say", ("verdict", "final"), registry=ours
        )
        self.requests = Counter(
            f"{_PREFIX}api_requests", "Requests answered, by API and status", ("api", "method", "code"), registry=ours
        )
        self.request_seconds = Histogram(
            f"{_PREFIX}api_request_seconds", "How long answers took", ("api",), buckets=_REQUEST_SECONDS, registry=ours
        )

    def add(self, collector: Collector) -> None:
        """Others' families, made when scraped."""
        self.registry.register(collector)

    def text(self) -> str:
        """Prometheus' text, format 0.0.4."""
        return generate_latest(self.registry).decode()


def counted(api: str, metrics: Metrics) -> Middleware:
    """Middleware that counts what an API answers."""

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        began_s = time.monotonic()
        code = 500
        try:
            response = await handler(request)
            code = response.status
            return response
        except web.HTTPException as answer:
            code = answer.status
            raise
        finally:
            metrics.requests.labels(api, request.method, code).inc()
            metrics.request_seconds.labels(api).observe(time.monotonic() - began_s)

    return count
