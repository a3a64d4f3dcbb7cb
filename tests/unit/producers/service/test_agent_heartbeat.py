"""The heartbeat and the health pages."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from producers.config import Config, Identity, Serving
from producers.health import Answer, respond, serve_health
from producers.heartbeat import Heartbeat, look_up
from producers.metrics import Metrics
from producers.schedule import Clock
from producers.spool import Spool
from tests.unit.producers.service.agent_stage import FakeKafka, until
from topics import agent_reports
from topics.connection import KafkaConnection


def heartbeat(folder: Path, kafka: FakeKafka, *, every_s: float) -> Heartbeat:
    config = Config(
        identity=Identity(agent="node-1", node="n1", zone="z", pod="p"),
        serving=Serving(ipv4="10.0.0.1", http_port=8080, udp_port=862),
        kafka=KafkaConnection(bootstrap="nowhere:1"),
        spool_dir=folder,
        heartbeat_s=every_s,
        lookups=("localhost", "name.invalid"),
    )
    return Heartbeat(
        config=config,
        incarnation=5,
        version="1",
        publisher=kafka,
        spool=Spool(folder=folder, max_bytes=1 << 20),
        running=lambda: 2,
        clock=Clock(),
    )


def test_a_report_says_who_where_and_how(tmp_path: Path) -> None:
    async def scene() -> agent_reports.AgentReport:
        kafka = FakeKafka()
        kafka.up.set()
        await heartbeat(tmp_path, kafka, every_s=5).beat()
        assert kafka.records[0].key == b"n1/pod/node-1"
        return agent_reports.TOPIC.decode(kafka.records[0].value)

    report = asyncio.run(scene())
    assert (report.agent, report.node, report.incarnation, report.interval_s) == ("node-1", "n1", 5, 5.0)
    assert (report.ipv4, report.http_port, report.udp_port, report.running_rounds) == ("10.0.0.1", 8080, 862, 2)
    assert not report.leaving
    assert report.interfaces


@dataclass
class CountingKafka(FakeKafka):
    """Counts what was to be sent, too."""

    begun: int = 0

    async def send(self, *, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        self.begun += 1
        await super().send(topic=topic, key=key, value=value, headers=headers)


def test_in_an_outage_reports_do_not_pile_up(tmp_path: Path) -> None:
    async def scene() -> None:
        kafka = CountingKafka()
        beating = asyncio.create_task(heartbeat(tmp_path, kafka, every_s=0.005).run())
        await until(lambda: kafka.begun)
        await asyncio.sleep(0.05)
        assert (kafka.begun, kafka.records) == (1, [])
        kafka.up.set()
        await until(lambda: len(kafka.records) >= 3)
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)

    asyncio.run(scene())


def test_names_without_an_answer_are_reported_as_such() -> None:
    found = asyncio.run(look_up(["127.0.0.1", "no such name.invalid"]))
    assert found == {"127.0.0.1": ("127.0.0.1",), "no such name.invalid": ()}


PAGES = {"/livez": lambda: Answer("200 OK", "ok\n")}


@pytest.mark.parametrize(
    ("line", "status", "body"),
    [
        (b"GET /livez HTTP/1.1\r\n", b"HTTP/1.1 200 OK", b"ok\n"),
        (b"GET /livez?verbose HTTP/1.1\r\n", b"HTTP/1.1 200 OK", b"ok\n"),
        (b"HEAD /livez HTTP/1.0\r\n", b"HTTP/1.1 200 OK", b""),
        (b"GET /nothing HTTP/1.1\r\n", b"HTTP/1.1 404 Not Found", b"known: /livez\n"),
        (b"POST /livez HTTP/1.1\r\n", b"HTTP/1.1 405 Method Not Allowed", b"only GET\n"),
        (b"\xff\r\n", b"HTTP/1.1 405 Method Not Allowed", b"only GET\n"),
    ],
)
def test_pages(line: bytes, status: bytes, body: bytes) -> None:
    head, _, rest = respond(line, PAGES).partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == status
    assert rest == body


def test_pages_are_served() -> None:
    async def scene() -> bytes:
        server = await serve_health(host="127.0.0.1", port=0, pages=PAGES)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        said = await reader.read()
        writer.close()
        server.close()
        return said

    assert asyncio.run(scene()).endswith(b"\r\n\r\nok\n")


def test_metrics_are_prometheus_text() -> None:
    metrics = Metrics()
    metrics.add("rows_lost_total", 3)
    metrics.set("spool_bytes", 7)
    lines = metrics.text().splitlines()
    assert "# TYPE kpatrol_agent_rows_lost_total counter" in lines
    assert "kpatrol_agent_rows_lost_total 3" in lines
    assert "# TYPE kpatrol_agent_spool_bytes gauge" in lines
    assert "kpatrol_agent_spool_bytes 7" in lines
