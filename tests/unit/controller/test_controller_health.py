"""The controller's pages: when it is alive, when ready, what its metrics say."""

import asyncio
import urllib.error
import urllib.request

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from controller.health import SILENCE_S, Pulse, pages, serving


def test_ready_with_the_first_comparison_dead_when_they_cease() -> None:
    now = [100.0]
    pulse = Pulse(clock=lambda: now[0])
    assert (pulse.alive, pulse.ready) == (True, False)
    now[0] += 10 * SILENCE_S
    assert pulse.alive, "Kafka may take its time at the start"
    pulse.beat(tasks=2)
    assert (pulse.alive, pulse.ready) == (True, True)
    now[0] += SILENCE_S
    assert (pulse.alive, pulse.ready) == (False, False)


def test_the_pages_answer() -> None:
    pulse = Pulse()

    def get(port: int, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    async def ask() -> None:
        async with serving(pulse, listen=("127.0.0.1", 0)) as port:
            assert (await asyncio.to_thread(get, port, "/livez"))[0] == 200
            assert await asyncio.to_thread(get, port, "/readyz") == (503, "the topics are being read\n")
            pulse.beat(tasks=3, agents_heard=5)
            assert (await asyncio.to_thread(get, port, "/readyz"))[0] == 200
            text = (await asyncio.to_thread(get, port, "/metrics"))[1]
            assert "kpatrol_controller_tasks 3\n" in text
            assert "kpatrol_controller_ready 1\n" in text

    asyncio.run(ask())


class Beside:
    """Shares the port and does not serve all it ought to yet."""

    missing = "something does not listen yet"

    def application(self) -> web.Application:
        return web.Application()

    def metrics_text(self) -> str:
        return ""


def test_what_does_not_listen_yet_keeps_it_from_being_ready() -> None:
    async def ask() -> list[tuple[int, str]]:
        pulse, beside = Pulse(), Beside()
        pulse.beat()
        async with TestClient(TestServer(pages(pulse, beside))) as client:
            before = await client.get("/readyz")
            beside.missing = ""
            after = await client.get("/readyz")
            return [(reply.status, await reply.text()) for reply in (before, after)]

    assert asyncio.run(ask()) == [(503, "something does not listen yet\n"), (200, "ok\n")]
