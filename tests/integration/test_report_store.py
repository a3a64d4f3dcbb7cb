"""The report's figures from a real endpoint: what the sink stored is what the report says (about 6 s)."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from controller.report_api.document import document
from controller.report_api.listing import known_tasks
from controller.report_api.store import CannotRead, ClickHouseHistory
from streams.clickhouse import ClickHouse
from tests.integration.endpoint_fixture import READER_PASSWORD, Endpoint
from tests.integration.report_history import (
    batch,
    endpoint_with_tables,
    store_requests,
    store_verdicts,
    uid_of,
    verdict,
)

START_US = (time.time_ns() // 1_000_000_000 - 3600) * 1_000_000
TASK = "netreach/reach-task"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Endpoint, ClickHouse]]:
    with endpoint_with_tables(tmp_path_factory.mktemp("report")) as made:
        writer = made[1]
        rounds = [verdict(TASK, number, start_us=START_US + number * 60_000_000) for number in (1, 2)]
        failed = msgspec.structs.replace(rounds[0], verdict="fail", failed_nodes=("node-0",))
        again = msgspec.structs.replace(rounds[1], revision=2, why="revised")
        store_verdicts(writer, [failed, *rounds[1:], again], token="v")
        batches = [batch(rounds[1], agent, lost=3 if agent == 0 else 0) for agent in range(3)]
        store_requests(writer, batches, token="p")
        store_requests(writer, batches[:1], token="twice")
        yield made


def reader(endpoint: Endpoint) -> ClickHouseHistory:
    return ClickHouseHistory(url=f"http://reader@127.0.0.1:{endpoint.port}/kpatrol", password=READER_PASSWORD)


def test_tasks_rounds_and_targets_are_those_that_were_stored(tables: tuple[Endpoint, ClickHouse]) -> None:
    async def read() -> None:
        history = reader(tables[0])
        (task,) = await history.tasks()
        assert (task.task, task.kind, task.newest, task.rounds, task.verdict) == (TASK, "NetReach", 2, 2, "succeed")
        assert task.created_ms == START_US // 1000
        uid = uid_of(TASK)
        assert await history.failed_rounds([task]) == {uid: [1]}
        told = (await history.verdicts([task]))[uid]
        assert (told.round, told.revision, told.why) == (2, 2, "revised")
        first = (await history.verdicts([task], number=1))[uid]
        assert first.verdict == "fail"
        assert await history.verdicts([task], number=9) == {}

        lines = (await history.target_lines([told, first], limit=100))[told.round_id]
        assert len(lines) == 6
        worst = lines[0]
        assert (worst.agent, worst.target, worst.pod) == (
            *("agent-0", "AgentPodV4IP_kpatrol-agent-2_10.0.0.2", "kpatrol-agent-0"),
        )
        # Stored twice, counted once: ten requests, three of them without a reply.
        assert (worst.finished, worst.ok, worst.errors, worst.statuses) == (10, 7, {"timeout": 3}, {0: 3, 200: 7})
        assert (worst.packets_sent, worst.packets_lost, worst.bytes) == (30, 9, 7 * 350)
        assert (worst.mean_us, worst.min_us, worst.max_us) == (4000, 1000, 7000)
        assert worst.first_us == told.start_us
        assert worst.last_us == told.start_us + 9_500_000
        assert [line.agent_targets for line in lines] == [2] * 6
        assert [(line.address, line.port) for line in lines[:1]] == [("10.0.0.2", 80)]
        part = await history.target_lines([told], limit=2, offset=4)
        assert part[told.round_id] == lines[4:]
        mine = await history.target_lines([told], limit=9, agent="agent-1")
        assert {line.agent for line in mine[told.round_id]} == {"agent-1"}

        beside = await history.beside((told.start_us + 10_000_000) // 60_000_000)
        assert {(item.kind, item.spec["request"]["qps"]) for item in beside} == {("NetReach", 1)}
        assert await history.beside(told.start_us // 60_000_000 + 5) == []

    asyncio.run(read())


def test_the_document_of_a_stored_round(tables: tuple[Endpoint, ClickHouse]) -> None:
    from dataclasses import replace

    async def read() -> None:
        history = reader(tables[0])
        material = known_tasks(await history.tasks(), [])[TASK]
        assert material.history is not None
        told = (await history.verdicts([material.history]))[uid_of(TASK)]
        lines = await history.target_lines([told], limit=10)
        report = document(replace(material, verdict=told, lines=lines[told.round_id]))
        agents = report["report"]["latestRoundReport"]
        assert [agent["podName"] for agent in agents] == ["kpatrol-agent-0", "kpatrol-agent-1", "kpatrol-agent-2"]
        detail = agents[0]["taskNetReach"]["roundTaskDetail"][0]
        assert detail["requestTargetMetrics"]["latencies"]["p50InMs"] == 4.0
        assert report["status"] == {
            **{"totalRoundNumber": 10, "roundFinishedNumber": 2, "status": "Finished", "roundNumber": 2},
        }

    asyncio.run(read())


def test_an_endpoint_that_is_away_is_said_and_found_again(tmp_path: Path) -> None:
    with endpoint_with_tables(tmp_path) as (endpoint, _):
        history = reader(endpoint)

        async def read() -> None:
            assert await history.tasks() == []
            endpoint.stop()
            with pytest.raises(CannotRead, match=rf"127.0.0.1:{endpoint.port}"):
                await history.tasks()
            endpoint.start()
            assert await history.tasks() == []

        asyncio.run(read())
