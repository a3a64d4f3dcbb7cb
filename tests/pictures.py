"""The pictures of README and docs/page.md, from a real lab and the real page: python -m tests.pictures

Starts a lab with a fault and keeps it, serves the page, walks the four steps in a headless Chromium, writes PNG files
to docs/images and ends everything. Needs what `make demo` and the page's tests need.
"""

from __future__ import annotations

import asyncio
import html
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kpatrol.lab.addresses import Addresses, running_labs
from tests.integration.browser import Browser, browse

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
KEEP = ["lab", "-f", "docs/examples/reach-task.yaml", "--fault", "ingress node-3 loss=2%", "--keep"]
SQL = (
    "SELECT ts, src_node, dst, outcome, lost, total_us, src_port FROM v_probe\n"
    "WHERE ts > now() - INTERVAL 1 HOUR AND dst = 'node-3' AND (outcome != 'ok' OR lost > 0)\n"
    "ORDER BY ts LIMIT 12"
)
GOAL = re.compile("→ node-3 ")
LOSES = re.compile("→ node-3 .*packets lost [1-9]")
MOST_STEPS = 10
LAB_LINES = 26
START_S = 300.0
LARGEST_BYTES = 200_000
TERMINAL = (
    "<body style='margin:0;background:#10151b;color:#d7dee6'><pre style='margin:0;padding:14px;"
    'font:14px/1.35 "DejaVu Sans Mono",monospace;white-space:pre\'>{}</pre></body>'
)


@contextmanager
def kept_lab(environment: Mapping[str, str], told: Path) -> Iterator[Addresses]:
    """A lab whose rounds are over and which stays up; its words are in `told`."""
    with told.open("w") as out:
        command = [sys.executable, "-m", "kpatrol", *KEEP, "--rounds", "3", "--minute-s", "8"]
        lab = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=out, stderr=out)
    try:
        end = time.monotonic() + START_S
        while "the lab stays up" not in told.read_text():
            if lab.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the lab did not come up:\n{told.read_text()}")
            time.sleep(0.5)
        yield running_labs(environment)[0]
    finally:
        lab.send_signal(signal.SIGTERM)
        lab.wait(60)


@contextmanager
def served(environment: Mapping[str, str]) -> Iterator[str]:
    """`kpatrol ui`: the page's address."""
    command = [sys.executable, "-m", "kpatrol", "ui", "--port", "0"]
    page = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert page.stdout is not None
    try:
        yield page.stdout.readline().strip()
    finally:
        page.terminate()
        page.wait(30)
        page.stdout.close()


async def keep(tab: Browser, name: str, *, of: str) -> None:
    """A picture of one element."""
    box = await tab.evaluate(
        f"(() => {{ const e = document.querySelector('{of}'); e.scrollIntoView(); const b = e.getBoundingClientRect();"
        " return { x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height, scale: 1 }; })()"
    )
    data = await tab.picture(clip=box)
    if len(data) > LARGEST_BYTES:
        raise SystemExit(f"{name}: {len(data)} bytes, at most {LARGEST_BYTES}")
    (IMAGES / name).write_bytes(data)
    print(f"{name}: {len(data)} bytes")


async def terminal(name: str, command: str, said: str) -> None:
    """A picture of a command and its output."""
    text = html.escape(f"$ {command}\n{said}".rstrip())
    with tempfile.TemporaryDirectory(prefix="kpatrol-picture-") as folder:
        page = Path(folder) / "page.html"
        page.write_text(TERMINAL.format(text), encoding="utf-8")
        async with browse(page.as_uri(), width=1250, height=900) as tab:
            await tab.until("document.querySelector('pre') !== null")
            await keep(tab, name, of="pre")


async def walk(address: str) -> None:
    """Steps two and three: the matrix, and the pair that loses most."""
    async with browse(f"{address}#theme=light", width=1250, height=1100) as tab:
        await tab.until("(document.querySelector('#mesh-size') || {textContent: ''}).textContent.includes('pairs')")
        await asyncio.sleep(1.5)
        await keep(tab, "step-matrix.png", of="body")
        await tab.evaluate("document.querySelector('#scroller').focus()")
        # Along the first row to the column of node-3, then down it to a pair that lost something.
        for key, wanted in (("ArrowRight", GOAL), ("ArrowDown", LOSES)):
            for _ in range(MOST_STEPS):
                if wanted.search(await tab.evaluate("document.querySelector('#cell').textContent")):
                    break
                await tab.press(key)
        await tab.press("Enter")
        await tab.until("document.querySelectorAll('#pair-requests tbody tr').length > 0")
        await asyncio.sleep(1.0)
        await keep(tab, "step-pair.png", of="#pair")


def main() -> int:
    """All four."""
    with tempfile.TemporaryDirectory(prefix="kpatrol-pictures-") as folder:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KPATROL_")}
        environment |= {"XDG_RUNTIME_DIR": folder, "COLUMNS": "125", "NO_COLOR": "1"}
        told = Path(folder) / "lab.txt"
        with kept_lab(environment, told) as lab:
            words = told.read_text().replace(lab.clickhouse_password, "********").replace(folder, "/run/user/1000")
            asyncio.run(
                terminal("step-lab.png", f"kpatrol {shlex.join(KEEP)}", "\n".join(words.splitlines()[-LAB_LINES:]))
            )
            with served(environment) as address:
                asyncio.run(walk(address))
            asked = [sys.executable, "-m", "kpatrol", "sql", SQL]
            rows = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True).stdout
            asyncio.run(terminal("step-sql.png", f'kpatrol sql "{SQL}"', rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
