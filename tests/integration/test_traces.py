"""The traces service between a real Kafka and an OTLP receiver: every span in both, through an outage of the receiver.

Takes about 15 s, most of it the start of Kafka and of the service.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.integration.test_sink_with_kafka import running_kafka
from tests.unit.streams.test_otlp import FINISHED, LATE, OK, batch
from topics import otlp_spans, probe_results, round_progress, round_verdicts
from topics.apply import apply
from topics.connection import KafkaConnection
from topics.ids import share_span_id, span_id

TRACE = bytes.fromhex(FINISHED.trace_id)
# Both requests of the batch, the share, and the verdict's name.
REQUESTS = {span_id(trace_id=TRACE, seq=0), span_id(trace_id=TRACE, seq=7)}
ROOT = share_span_id(trace_id=TRACE)


class Receiver:
    """An OTLP receiver that is away for its first call of spans."""

    def __init__(self) -> None:
        self.calls = 0
        self.spans: dict[str, str] = {}
        self.metrics: set[str] = set()

    async def traces(self, request: web.Request) -> web.Response:
        self.calls += 1
        if self.calls == 1:
            return web.Response(status=503)
        self.spans |= names(await request.read())
        return web.Response()

    async def own(self, request: web.Request) -> web.Response:
        told = ExportMetricsServiceRequest.FromString(await request.read())
        self.metrics |= {m.name for r in told.resource_metrics for s in r.scope_metrics for m in s.metrics}
        return web.Response()


def names(data: bytes) -> dict[str, str]:
    told = ExportTraceServiceRequest.FromString(data)
    return {s.span_id.hex(): s.name for r in told.resource_spans for scope in r.scope_spans for s in scope.spans}


def test_every_span_reaches_the_topic_and_the_receiver(tmp_path: Path) -> None:
    asyncio.run(_scenario(tmp_path))


async def _scenario(folder: Path) -> None:
    receiver, log = Receiver(), folder / "traces.log"
    pages = web.Application()
    pages.router.add_post("/v1/traces", receiver.traces)
    pages.router.add_post("/own/v1/metrics", receiver.own)
    runner = web.AppRunner(pages, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    at = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with running_kafka(folder) as kafka:
            connection = KafkaConnection(bootstrap=kafka.bootstrap())
            await apply(kafka=connection)
            environment = {
                **os.environ,
                "KPATROL_KAFKA_BOOTSTRAP": connection.bootstrap,
                "KPATROL_SESSION_TIMEOUT_S": "6",
                "KPATROL_TRACES_TOPIC": "true",
                "KPATROL_TRACES_ENDPOINT": at,
                "KPATROL_TRACES_RECORDS": "all",
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{at}/own/v1/metrics",
                "OTEL_METRIC_EXPORT_INTERVAL": "500",
            }
            await _say(connection)
            with log.open("a") as out:
                command = [sys.executable, "-m", "streams", "traces"]
                process = await asyncio.to_thread(
                    lambda: subprocess.Popen(command, env=environment, stdout=out, stderr=out)
                )
            try:
                in_topic = await _read(connection, len(REQUESTS) + 2)
                await _until(lambda: len(receiver.spans) >= len(in_topic), what="spans", log=log)
                await _until(lambda: "kpatrol.span_requests" in receiver.metrics, what="metrics", log=log)
            finally:
                process.terminate()
                await asyncio.to_thread(process.wait, 60)
    finally:
        await runner.cleanup()
    assert receiver.spans == in_topic
    assert {i for i, name in in_topic.items() if name == "HTTP"} == REQUESTS
    assert in_topic[ROOT] == "kpatrol.share netreach/reach-task"
    assert "kpatrol.round netreach/reach-task" in in_topic.values()


async def _say(connection: KafkaConnection) -> None:
    async with AIOKafkaProducer(**connection.producer_options()) as producer:
        results, progress, verdicts = probe_results.TOPIC, round_progress.TOPIC, round_verdicts.TOPIC
        await producer.send_and_wait(results.name, results.encode(batch(OK, LATE)), key=b"node-1")
        await producer.send_and_wait(results.name, b"junk", key=b"node-1")
        await producer.send_and_wait(progress.name, progress.encode(FINISHED), key=b"4b2f")
        await producer.send_and_wait(verdicts.name, verdicts.encode(verdicts.example), key=b"4b2f")


async def _read(connection: KafkaConnection, count: int) -> dict[str, str]:
    found: dict[str, str] = {}
    options = {"auto_offset_reset": "earliest", "enable_auto_commit": False, **connection.client_options()}
    async with AIOKafkaConsumer(otlp_spans.TOPIC.name, **options) as consumer, asyncio.timeout(120):
        while len(found) < count:
            found |= names((await consumer.getone()).value)
    return found


async def _until(holds: Callable[[], bool], *, what: str, log: Path, timeout_s: float = 90) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            said = await asyncio.to_thread(log.read_text)
            raise AssertionError(f"{what}: not so after {timeout_s} s\n{said[-3000:]}")
        await asyncio.sleep(0.1)
