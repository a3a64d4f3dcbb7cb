"""The hooks between a real Kafka and real receivers: told again after failures and a kill -9; refused ones set aside.

Takes about 30 s, most of it two starts of the app and the wait for the killed one.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from streams.delivery.webhook import KEY, SIGNATURE, TIMESTAMP, signature
from tests.integration.test_sink_with_kafka import running_kafka
from topics import alarms
from topics.alarms import AlarmClosed, AlarmOpened, AlarmRecord, AlarmUpdated
from topics.apply import apply
from topics.connection import KafkaConnection

SECRET = b"a secret of both"
ALARM_ID = "netreach/reach:node-3:ingress:loss"
VALUES: dict[str, Any] = {
    "alarm_id": ALARM_ID,
    "since_us": 1_790_000_000_000_000,
    "task": "netreach/reach",
    "element": "node-3",
    "direction": "ingress",
    "kind": "loss",
    "severity": "critical",
    "sentence": 'node-3 loses "2 %"',
    "round_id": 7,
}
HOOKS = """
hooks:
  - name: chat
    webhook:
      url: 'http://127.0.0.1:{port}/chat'
      secretFile: {secret}
      template: '{{"text": "${{state}}: ${{sentence}}"}}'
  - name: manager
    alertmanager: {{url: 'http://127.0.0.1:{port}', labels: {{cluster: test}}}}
  - name: strict
    webhook: {{url: 'http://127.0.0.1:{port}/strict'}}
    when: {{element: 'node-*'}}
  - name: others
    webhook: {{url: 'http://127.0.0.1:{port}/others'}}
    when: {{element: node-9}}
  - name: script
    command: [{python}, -c, 'import sys; open("{told}", "a").write(sys.stdin.read() + chr(10))']
"""


def transition(number: int, kind: type[AlarmRecord] = AlarmUpdated, **changes: Any) -> AlarmRecord:
    return kind(**{**VALUES, "transition": number, "at_us": 1_790_000_000_000_000 + number, **changes})


@dataclass
class Receiver:
    """Answers as told: `/chat` fails its first two calls and hangs on transition 2 until released."""

    calls: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    hang: asyncio.Event = field(default_factory=asyncio.Event)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.calls.append((request.path, dict(request.headers), body))
        if request.path == "/strict":
            return web.Response(status=400, text="no such field")
        if request.path == "/chat" and len(self.of("/chat")) <= 2:
            return web.Response(status=503, headers={"Retry-After": "0"})
        if request.path == "/chat" and request.headers[KEY].endswith(":2") and not self.hang.is_set():
            self.hanging.set()
            await self.hang.wait()
        return web.Response()

    def of(self, path: str) -> list[tuple[dict[str, str], bytes]]:
        return [(headers, body) for at, headers, body in self.calls if at == path]

    def keys(self, path: str) -> list[str]:
        return [headers[KEY] for headers, _ in self.of(path)]


@asynccontextmanager
async def receiving(receiver: Receiver) -> AsyncIterator[int]:
    application = web.Application()
    application.router.add_route("POST", "/{path:.*}", receiver.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def until(holds: Any, *, what: str, log: Path, timeout_s: float = 90) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            said = await asyncio.to_thread(log.read_text)
            raise AssertionError(f"{what}: not so after {timeout_s} s\n{said[-3000:]}")
        await asyncio.sleep(0.1)


async def say(kafka: KafkaConnection, records: list[AlarmRecord]) -> None:
    async with AIOKafkaProducer(**kafka.producer_options()) as producer:
        for record in records:
            await producer.send_and_wait(
                alarms.TOPIC.name, key=alarms.TOPIC.key(record), value=alarms.TOPIC.encode(record)
            )


async def set_aside(kafka: KafkaConnection, count: int) -> list[dict[str, str]]:
    """The headers of that many dead letters."""
    consumer = AIOKafkaConsumer(alarms.TOPIC.dlq, auto_offset_reset="earliest", **kafka.client_options())
    await consumer.start()
    try:
        found: list[dict[str, str]] = []
        async with asyncio.timeout(90):
            while len(found) < count:
                message = await consumer.getone()
                found.append({name: value.decode() for name, value in message.headers})
        return found
    finally:
        await consumer.stop()


def test_every_transition_arrives_with_its_key_through_failures_and_a_kill(tmp_path: Path) -> None:
    asyncio.run(_scenario(tmp_path))


async def _scenario(folder: Path) -> None:
    receiver, log, told = Receiver(), folder / "hooks.log", folder / "told"
    log.touch()
    (folder / "secret").write_bytes(SECRET + b"\n")
    async with running_kafka(folder) as kafka, receiving(receiver) as port:
        connection = KafkaConnection(bootstrap=kafka.bootstrap())
        await apply(kafka=connection)
        file = folder / "hooks.yaml"
        file.write_text(HOOKS.format(port=port, secret=folder / "secret", python=sys.executable, told=told))
        environment = {
            **os.environ,
            "KPATROL_KAFKA_BOOTSTRAP": connection.bootstrap,
            "KPATROL_HOOKS_FILE": str(file),
            "KPATROL_HOOKS_PATIENCE_S": "60",
            "KPATROL_SESSION_TIMEOUT_S": "6",
        }
        process = _start(environment, log)
        try:
            await say(connection, [transition(1, AlarmOpened), transition(2), transition(3, silenced="works")])
            await asyncio.wait_for(receiver.hanging.wait(), 90)
            process.kill()
            process.wait(30)
            process = _start(environment, log)
            receiver.hang.set()
            await say(connection, [transition(4, AlarmClosed)])
            await until(lambda: f"{ALARM_ID}:4" in receiver.keys("/chat"), what="all told", log=log)
            await until(lambda: len(keys_of(told)) >= 3, what="command ran", log=log)
            letters = await set_aside(connection, 3)
        finally:
            process.terminate()
            process.wait(60)
    _check(receiver, letters, told)


def keys_of(told: Path) -> set[str]:
    """The keys that the command was told; an empty line is of a call whose input the kill cut off, told again after."""
    whole = told.read_text().splitlines(keepends=True) if told.exists() else []
    return {json.loads(line)["idempotency_key"] for line in whole if line.endswith("\n") and line.strip()}


def _check(receiver: Receiver, letters: list[dict[str, str]], told: Path) -> None:
    chat = receiver.keys("/chat")
    assert list(dict.fromkeys(chat)) == [f"{ALARM_ID}:{n}" for n in (1, 2, 4)], "in order; the silenced one to nobody"
    assert chat.count(f"{ALARM_ID}:1") >= 3, "two failures, then delivered"
    assert chat.count(f"{ALARM_ID}:2") >= 2, "killed in the middle of it, told again under the same key"
    for headers, body in receiver.of("/chat"):
        assert headers[SIGNATURE] == signature(secret=SECRET, timestamp=int(headers[TIMESTAMP]), body=body)
    assert json.loads(receiver.of("/chat")[0][1]) == {"text": 'opened: node-3 loses "2 %"'}
    alerts = [json.loads(body) for _, body in receiver.of("/api/v2/alerts")]
    assert alerts[0][0]["labels"]["cluster"] == "test"
    assert alerts[-1][0]["endsAt"] == "2026-09-21T14:13:20.000Z"
    assert receiver.of("/others") == []
    assert {letter["hook"] for letter in letters} == {"strict"}
    assert all("400 Bad Request: no such field" in letter["error"] for letter in letters)
    assert keys_of(told) == {f"{ALARM_ID}:{n}" for n in (1, 2, 4)}


def _start(environment: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as out:
        return subprocess.Popen([sys.executable, "-m", "streams", "hooks"], env=environment, stdout=out, stderr=out)
