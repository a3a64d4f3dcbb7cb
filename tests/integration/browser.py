"""A headless Chromium driven over its debugging socket: open a page, evaluate, press keys, take pictures."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

START_S = 60.0


class Browser:
    """One tab. ``complaints``: errors that the page wrote to its console; ``asked``: the addresses it fetched."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.complaints: list[str] = []
        self.asked: list[str] = []

    async def listen(self) -> None:
        """Hand answers to their askers until the socket closes."""
        async for message in self._socket:
            event = json.loads(message.data)
            if "id" in event:
                self._answers.pop(event["id"]).set_result(event)
            elif event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints.append(json.dumps(event["params"]))
            elif event["method"] == "Network.requestWillBeSent":
                self.asked.append(event["params"]["request"]["url"])

    async def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol; its result."""
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        event = await asyncio.wait_for(answer, START_S)
        assert "error" not in event, event
        return event["result"]

    async def evaluate(self, script: str) -> Any:
        """The value of a script; promises are awaited."""
        result = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, script: str, *, patience_s: float = START_S) -> Any:
        """Waits for a script to give something true; that value."""
        deadline = asyncio.get_running_loop().time() + patience_s
        while not (value := await self.evaluate(script)):
            assert asyncio.get_running_loop().time() < deadline, f"never became true: {script}"
            await asyncio.sleep(0.1)
        return value

    async def press(self, key: str) -> None:
        """A key, down and up."""
        text = {"text": "\r"} if key == "Enter" else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    async def picture(self, clip: dict[str, float] | None = None) -> bytes:
        """What the tab shows, or the page's `clip` (x, y, width, height, scale), as a PNG."""
        more = {"clip": clip, "captureBeyondViewport": True} if clip else {}
        shot = await self.call("Page.captureScreenshot", format="png", **more)
        return base64.b64decode(shot["data"])


@asynccontextmanager
async def browse(address: str, *, width: int = 1400, height: int = 1000) -> AsyncGenerator[Browser, None]:
    """A tab on ``address``. The browser, its processes and its folder are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="kpatrol-browser-"))
    process = _started(folder, f"{width},{height}")
    try:
        port = await _port(folder, process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [page for page in await answer.json() if page["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                browser = Browser(socket)
                listening = asyncio.create_task(browser.listen())
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await browser.call(f"{domain}.enable")
                await browser.call(
                    "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
                )
                await browser.call("Page.navigate", url=address)
                yield browser
                listening.cancel()
                await asyncio.wait({listening})
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _started(folder: Path, size: str) -> subprocess.Popen[bytes]:
    binary = shutil.which("chromium")
    assert binary is not None, "chromium is not installed"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"]
    flags += [f"--user-data-dir={folder}", f"--window-size={size}", "--disable-dev-shm-usage"]
    return subprocess.Popen(
        [binary, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


async def _port(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """The debugging port, as the browser writes it once it listens."""
    deadline = asyncio.get_running_loop().time() + START_S
    while not (told := _read(folder / "DevToolsActivePort")):
        assert process.poll() is None, f"chromium ended with {process.returncode}"
        assert asyncio.get_running_loop().time() < deadline, "chromium did not start"
        await asyncio.sleep(0.1)
    return told.splitlines()[0]


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
