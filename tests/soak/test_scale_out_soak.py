"""On three brokers two sinks and two judges share; a worker joins, ends, is killed in mid-round, five rounds long."""

import asyncio
from pathlib import Path

import pytest

from tests.integration.chaos_driver import tell
from tests.integration.driven import Run, with_lab
from tests.integration.scale_out import AGENTS, MINUTE_S, Workers, all_add_up, one_task_a_partition

pytestmark = pytest.mark.soak
ROUNDS = 5


@pytest.mark.timeout(1200)
def test_workers_come_and_go_on_three_brokers(tmp_path: Path) -> None:
    async def attack(run: Run) -> None:
        services, workers = run.stack.supervisor, Workers(run)
        workers.add("sink-2")
        workers.add("judge-2")
        await run.at(1, 1)
        older, newer = ("sink", "judge"), ("sink-2", "judge-2")
        for number in range(1, ROUNDS + 1):
            # Two of each share; a third joins; the older of the two ends or is killed, in turn, and stays away.
            await run.at(number, 1)
            await workers.ready(*older, *newer)
            await workers.share(*older, *newer)
            joining = (f"sink-{number + 2}", f"judge-{number + 2}")
            for name in joining:
                workers.add(name)
            await run.at(number, 6)
            if number % 2:
                assert await asyncio.gather(*(services.retire(name) for name in older)) == [0, 0]
            else:
                await asyncio.gather(*(services.hold(name) for name in older))
            tell(f"round {number}: {joining} joined, {older} {'ended' if number % 2 else 'killed'}")
            older, newer = newer, joining
        await all_add_up(run, rounds=ROUNDS)

    task = one_task_a_partition(tmp_path, rounds=ROUNDS)
    asyncio.run(with_lab(tmp_path, task, AGENTS, attack, brokers=3, minute_s=MINUTE_S))
