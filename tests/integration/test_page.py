"""The page over a real endpoint in a real browser; a mesh of 1,000 × 1,000; the page saved as one file."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from kpatrol.cli import cli
from kpatrol.reading.store import Store
from kpatrol.ui import facts
from kpatrol.ui.page import self_contained
from streams.clickhouse import ClickHouse
from streams.migrate import Migration, Values
from streams.rows import ROWS, Located, tables_of
from tests.integration.browser import Browser, browse
from tests.integration.endpoint_fixture import READER_PASSWORD, WRITER_PASSWORD, running_endpoint
from topics import agent_reports, alarms, round_verdicts

START_US = 1_790_000_000_000_000
MINUTE_US = 60_000_000
TASK = "netreach/reach-task"
NODES = 6
REQUESTS = 20
READY = "(document.querySelector('#mesh-size') || {textContent: ''}).textContent.includes('pairs')"

# Three rounds, all pairs of six nodes in two zones; every fifth request to node-3 loses a packet, one is refused.
SEED = f"""
INSERT INTO probe (round_id, round_number, round_at, ts, task, task_uid, proto, layer, src_node, src_zone, agent,
    incarnation, seq, target, dst, dst_node, dst_zone, outcome, status, lateness_us, dur_us, sent, lost)
SELECT 9007199254740993 + r, 1 + r, at, at + toIntervalMillisecond(n), '{TASK}', 'u', 'http', 'pod',
    concat('node-', toString(src)) AS source, concat('zone-', toString(src % 2)), source, 7, n * {NODES} + d,
    concat('node-', toString(d)) AS goal, goal, goal, concat('zone-', toString(d % 2)),
    if(d = 3 AND src = 0 AND n = 0, 'refused', 'ok'), 200, 20, 300 + d * 100, 3, d = 3 AND n % 5 = 0
FROM (
    SELECT number % 3 AS r, intDiv(number, 3) % {NODES} AS src, intDiv(number, 3 * {NODES}) % {NODES} AS d,
        intDiv(number, 3 * {NODES * NODES}) AS n,
        fromUnixTimestamp64Milli(toInt64({START_US // 1000} + r * 60000), 'UTC') AS at
    FROM numbers({3 * NODES * NODES * REQUESTS})
) WHERE src != d
"""


@dataclass(frozen=True, kw_only=True)
class Seeded:
    url: str
    writer: ClickHouse


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    with running_endpoint(tmp_path_factory.mktemp("page")) as endpoint:
        writer = ClickHouse(url=f"http://writer@127.0.0.1:{endpoint.port}/kpatrol", password=WRITER_PASSWORD)
        writer.wait_ready(timeout_s=60)
        Migration(clickhouse=writer, values=Values(raw_days=7300, minute_days=7300)).apply()
        writer.command(SEED)
        store_records(writer, round_verdicts.TOPIC.name, [verdict(number) for number in (1, 2, 3)])
        store_records(writer, agent_reports.TOPIC.name, [agent_reports.EXAMPLE])
        yield Seeded(url=f"http://reader:{READER_PASSWORD}@127.0.0.1:{endpoint.port}/kpatrol", writer=writer)
        writer.close()


def verdict(number: int) -> round_verdicts.RoundVerdict:
    loss = round_verdicts.Loss(sent=1800, lost=20, rate=20 / 1800, low=0.0072, high=0.0171)
    found = round_verdicts.Finding(
        element="node-3", direction="ingress", kind="loss", loss=loss, confidence=0.99,
        sentence="node-3 loses 6.7 % of what it receives; not what it sends", evidence_sql="SELECT 1",
    )  # fmt: skip
    return msgspec.structs.replace(
        round_verdicts.EXAMPLE, round_id=9007199254740993 + number - 1, round=number, task=TASK, loss=loss,
        start_us=START_US + (number - 1) * MINUTE_US, verdict="fail" if number == 2 else "succeed", findings=(found,),
    )  # fmt: skip


def store_records(writer: ClickHouse, topic: str, records: list[Any]) -> None:
    items = [Located(record=r, partition=0, offset=n, timestamp_ms=0) for n, r in enumerate(records)]
    for table, rows in tables_of(items, to_rows=ROWS[topic][1]).items():
        writer.insert_arrow(table=table, rows=rows, token=f"{topic}-{table}-{records[0]}")


@pytest.fixture(scope="module")
def address(seeded: Seeded) -> Iterator[str]:
    """`kpatrol ui` as a user starts it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kpatrol", "ui", "--port", "0", "--clickhouse", seeded.url],
        stdout=subprocess.PIPE, text=True, env={k: v for k, v in os.environ.items() if not k.startswith("KPATROL_")},
    )  # fmt: skip
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    process.wait(30)
    process.stdout.close()


def test_mesh_to_pair_to_requests_by_keyboard_alone(address: str) -> None:
    async def scenario() -> None:
        async with browse(address) as tab:
            await tab.until(READY)
            assert await text(tab, "#mesh-size") == "6 sources × 6 destinations, 30 pairs measured"
            assert "6.7 % of what it receives" in await text(tab, "#findings")
            assert "round 3, 2, 1" in await text(tab, "#findings")
            await tab.evaluate("document.querySelector('#scroller').focus()")
            # Zone by zone: 0, 2, 4, then 1, 3, 5. One step right of nothing is the first column; four more are node-3.
            for key in ("ArrowRight",) * 5:
                await tab.press(key)
            told = await text(tab, "#cell")
            assert told.startswith("node-0 (zone-0) → node-3 (zone-1): 19 of 20 requests answered"), told
            assert "4 of 60 = 6.7 %" in told
            await tab.press("Enter")
            await tab.until("document.querySelectorAll('#pair-requests tbody tr').length > 3")
            assert await text(tab, "#pair-title") == "node-0 → node-3 and back"
            assert "refused" in await text(tab, "#pair-requests")
            assert await tab.evaluate("document.querySelectorAll('#pair .uplot').length") == 2
            assert len(await tab.picture()) > 20_000
            assert tab.complaints == []
            assert {a.split("/")[2] for a in tab.asked if "://" in a} == {address.split("/")[2]}

    asyncio.run(scenario())


def test_rounds_themes_and_narrow_screens(address: str) -> None:
    contrast = (Path(__file__).parent / "poor_contrast.js").read_text()

    async def scenario() -> None:
        async with browse(f"{address}#round=2&theme=dark", width=400, height=800) as tab:
            await tab.until(READY)
            assert "Round 2 of netreach/reach-task" in await text(tab, "#verdict-title")
            assert "fail" in await text(tab, "#verdict-body")
            dark = await tab.evaluate("getComputedStyle(document.body).backgroundColor")
            assert dark == "rgb(16, 21, 27)"
            assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than the screen"
            await tab.evaluate("document.querySelector('.strip button').click()")
            await tab.until("document.querySelector('#verdict-title').textContent.includes('Round 1 of')")
            for theme in ("light", "dark"):
                await tab.evaluate(f"theme('{theme}')")
                poor = await tab.evaluate(contrast)
                assert poor == [], f"{theme}: less than 4.5 to 1: {poor}"
            unnamed = (
                "[...document.querySelectorAll('button,select')].filter(e => !(e.ariaLabel || e.textContent.trim()))"
            )
            assert await tab.evaluate(f"{unnamed}.length") == 0
            assert tab.complaints == []

    asyncio.run(scenario())


def test_alarms_appear_by_themselves(address: str, seeded: Seeded) -> None:
    async def scenario() -> None:
        async with browse(address) as tab:
            await tab.until("(document.querySelector('#live') || {}).textContent === 'live'")
            assert "No alarm was ever raised." in await text(tab, "#alarms")
            await asyncio.to_thread(store_records, seeded.writer, alarms.TOPIC.name, [alarms.EXAMPLE])
            await tab.until("document.querySelector('#alarms').textContent.includes('opened')")
            assert alarms.EXAMPLE.sentence in await text(tab, "#alarms")

    asyncio.run(scenario())


def test_the_saved_page_needs_nothing_else(seeded: Seeded, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    result = CliRunner().invoke(cli, ["report", "reach-task", "--clickhouse", seeded.url, "--html", str(path)])
    assert result.exit_code == 1, result.output

    async def scenario() -> None:
        async with browse(path.as_uri()) as tab:
            await tab.until(READY)
            assert await text(tab, "#live") == "saved page"
            await tab.evaluate("openPair({row: 0, column: 4})")
            assert await tab.evaluate("document.querySelectorAll('#pair .uplot').length") == 2
            assert tab.complaints == []
            assert [a for a in tab.asked if not a.startswith(("file:", "data:"))] == []

    asyncio.run(scenario())


@pytest.mark.paced
def test_a_thousand_nodes_are_drawn_and_scrolled(tmp_path: Path) -> None:
    nodes = 1000
    names = pa.array([f"node-{n}" for n in range(nodes)])
    zones = pa.array([f"zone-{n // 250}" for n in range(nodes)])
    src, dst = np.repeat(np.arange(nodes), nodes), np.tile(np.arange(nodes), nodes)
    table = pa.table(
        {"src": names.take(pa.array(src)), "src_zone": zones.take(pa.array(src)), "dst": names.take(pa.array(dst))}
        | {"dst_zone": zones.take(pa.array(dst)), "lost_packets": (dst == 500).astype("u4")}
        | {name: np.full(nodes * nodes, 10, dtype="u4") for name in ("requests", "oks", "packets")}
        | {"p99_us": np.full(nodes * nodes, 900, dtype="f4")}
    )
    mesh = facts.packed(table)
    at = "2026-11-21T04:00:00.000Z"
    round_ = {
        "round_id": "1", "round": 1, "round_at": at, "revision": 1, "final": 1, "verdict": "succeed", "why": "",
        "ok": 1, "failed": 0, "trust_reasons": [], "packets_sent": 0,
    } | dict.fromkeys(("planned", "stored", "unsent", "declared_missing", "unexplained"), 0)  # fmt: skip
    address = f"round_id=1&round_at={at}"
    documents = {
        "tasks": [{"task": "t"}], "agents": [], "alarms": [], "rounds?task=t": [round_], "findings?task=t": [],
        f"protocols?{address}": [], f"mesh?{address}&via=": mesh,
    }  # fmt: skip
    path = tmp_path / "large.html"
    path.write_text(self_contained(documents))

    async def scenario() -> None:
        async with browse(path.as_uri()) as tab:
            await tab.until(READY)
            assert "1\u202f000\u202f000 pairs measured" in await text(tab, "#mesh-size")
            await tab.evaluate("map.zoom(1); map.zoom(1); map.zoom(1); map.zoom(1); map.zoom(1)")
            frames = await tab.evaluate(SCROLLED)
            print(f"{frames:.0f} frames a second")
            # Drawn without a graphics card, perhaps beside other work: what stands still is caught.
            assert frames >= 3, f"{frames} frames a second"
            assert tab.complaints == []

    asyncio.run(scenario())


# Scrolls both ways for a second; how many frames were drawn.
SCROLLED = """
new Promise(done => {
  const scroller = document.querySelector('#scroller'), from = performance.now();
  let frames = 0;
  const next = now => {
    frames += 1; scroller.scrollTop += 25; scroller.scrollLeft += 25;
    if (now - from < 1000) requestAnimationFrame(next); else done(frames * 1000 / (now - from));
  };
  requestAnimationFrame(next);
})
"""


def test_the_server_answers_its_own_name_only_and_says_what_is_wrong(address: str) -> None:
    async def scenario() -> None:
        async with aiohttp.ClientSession() as session:
            async with session.get(address, headers={"Host": "evil.example"}) as answer:
                assert answer.status == 421
            async with session.get(f"{address}api/rounds") as answer:
                assert (answer.status, (await answer.json())["error"]) == (
                    400, "/api/rounds: missing or bad parameter: 'task'",
                )  # fmt: skip
            async with session.post(f"{address}api/tasks") as answer:
                assert answer.status == 405
            async with session.get(address) as answer:
                assert "default-src 'self'" in answer.headers["Content-Security-Policy"]

    asyncio.run(scenario())


def test_a_store_that_is_away_is_said(seeded: Seeded) -> None:
    result = CliRunner().invoke(cli, ["ui", "--clickhouse", "http://reader@127.0.0.1:1/kpatrol", "--port", "0"])
    assert result.exit_code == 2
    assert "ClickHouse at 127.0.0.1:1: connection refused" in result.output
    store = Store(url=seeded.url)
    assert facts.tasks(store)[0]["rounds"] == 3
    store.close()


async def text(tab: Browser, selector: str) -> str:
    return str(await tab.evaluate(f"document.querySelector('{selector}').textContent"))
