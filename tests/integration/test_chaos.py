"""Things are killed in the middle of rounds, and every round still adds up: exactly once, nothing hidden."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kpatrol.lab.leftovers import tear_down
from kpatrol.lab.netmode import detect_mode
from kpatrol.lab.options import LabOptions
from kpatrol.lab.rounds import Rounds
from kpatrol.lab.stack import Stack
from kpatrol.lab.state import LabState, base_folder
from kpatrol.lab.taskfiles import check as check_files
from kpatrol.lab.taskfiles import lab_tasks
from kpatrol.reading.document import newest, round_json
from kpatrol.reading.store import CannotRead
from tests.integration.labs import assert_adds_up, last_words, leftovers
from topics.round_verdicts import RoundVerdict
from topics.task_rounds import RoundScheduled

AGENTS, RATE, DURATION_S, ROUNDS = 4, 20, 15, 3
PLANNED = AGENTS * (AGENTS - 1) * RATE * DURATION_S
TASK = f"""
apiVersion: kdoctor.io/v1beta1
kind: NetReach
metadata: {{name: chaos}}
spec:
  schedule: {{schedule: "0 1", roundNumber: {ROUNDS}}}
  request: {{durationInSecond: {DURATION_S}, qps: {RATE}, perRequestTimeoutInMS: 1000}}
  expect: {{successRate: 0.5, meanAccessDelayInMs: 5000}}
  target: {{endpoint: true, clusterIP: false, nodePort: false}}
"""


async def until(condition: Callable[[], Any], *, timeout_s: float, what: str) -> Any:
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not within {timeout_s} s"
        await asyncio.sleep(0.3)
    return value


class Run:
    """One lab under attack."""

    def __init__(self, stack: Stack, rounds: Rounds) -> None:
        self.stack = stack
        self.rounds = rounds

    async def at(self, number: int, second: float) -> RoundScheduled:
        """Wait until so many seconds after the start of that round."""
        find = lambda: next((r for r in self.rounds.by_id.values() if r.number == number), None)  # noqa: E731
        scheduled: RoundScheduled = await until(find, timeout_s=120, what=f"round {number} published")
        await asyncio.sleep(max(0.0, scheduled.start_us / 1e6 + second - time.time()))
        return scheduled

    def verdicts(self) -> list[RoundVerdict]:
        try:
            return self.stack.store().verdicts()
        except CannotRead:
            return []

    async def all_final(self, timeout_s: float) -> list[RoundVerdict]:
        def done() -> list[RoundVerdict]:
            final = [v for v in newest(self.verdicts()) if v.final]
            return final if len(final) == ROUNDS else []

        found: list[RoundVerdict] = await until(done, timeout_s=timeout_s, what="final verdicts of all rounds")
        return found


async def with_lab(tmp_path: Path, attack: Callable[[Run], Awaitable[None]]) -> None:
    file = tmp_path / "task.yaml"
    file.write_text(TASK)
    options = LabOptions(files=(file,), agents=AGENTS, minute_s=10)
    tasks = lab_tasks(check_files(options.files, limits=None), rounds=None)
    state = LabState.create(base_folder(os.environ))
    said: list[str] = []
    stack = Stack(lab=state, options=options, tasks=tasks, mode=detect_mode(os.environ).mode, say=said.append)
    following: asyncio.Task[None] | None = None
    try:
        await stack.start()
        rounds = Rounds(kafka=stack.kafka_door())
        following = asyncio.create_task(rounds.follow())
        await attack(Run(stack, rounds))
    except BaseException:
        print("\n".join(said[-20:]), last_words(stack.logs))
        raise
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await stack.stop()
        tear_down(state)


def stored_by_sql(run: Run, round_id: int) -> tuple[int, int]:
    """(rows, distinct requests) of a round, straight from the engine."""
    sql = "SELECT count(), uniqExact(agent, incarnation, seq) FROM v_probe WHERE round_id = {id:UInt64}"
    rows, distinct = run.stack.store().rows(sql, {"id": round_id})[0]
    return int(rows), int(distinct)


@pytest.mark.timeout(420)
def test_every_round_adds_up_whatever_is_killed(tmp_path: Path) -> None:
    async def attack(run: Run) -> None:
        services = run.stack.supervisor
        # Round 1: the processors and the broker.
        await run.at(1, 2)
        await services.kill("sink")
        await run.at(1, 5)
        await services.kill("judge")
        await run.at(1, 8)
        await services.kill("sink")
        await run.at(1, 11)
        assert run.stack.kafka is not None
        await run.stack.kafka.restart()
        # Round 2: an agent.
        await run.at(2, 6)
        await services.kill("agent-node-2")
        # Round 3: the database, for a minute.
        await run.at(3, 4)
        await services.hold("clickhouse")
        await asyncio.sleep(60)
        services.release("clickhouse")
        final = await run.all_final(timeout_s=120)
        rounds = [round_json(v) for v in final]
        assert_adds_up(rounds)
        assert [r["planned"] for r in rounds] == [PLANNED] * ROUNDS
        for verdict in final:
            assert stored_by_sql(run, verdict.round_id) == (verdict.stored, verdict.stored)
        first, second, third = final
        assert (first.declared_missing, third.declared_missing) == (0, 0)
        (killed,) = [a for a in second.accounts if a.agent == "node-2"]
        assert killed.declared_missing > 0
        assert killed.declared_missing == second.declared_missing
        assert "died" in killed.cause
        assert any("died" in cause for cause in second.missing_causes)

    asyncio.run(with_lab(tmp_path, attack))
    assert leftovers() == []
