"""Two sinks and two judges share; a third joins, one ends and one is killed in the same round: nothing is lost.

Takes about 45 s. On three brokers, and through more rounds: `tests/soak/test_scale_out_soak.py`.
"""

import asyncio
from pathlib import Path

import pytest

from tests.integration.driven import Run, with_lab
from tests.integration.scale_out import AGENTS, MINUTE_S, Workers, all_add_up, one_task_a_partition


@pytest.mark.timeout(600)
def test_workers_that_join_and_leave_in_mid_round_lose_nothing(tmp_path: Path) -> None:
    async def attack(run: Run) -> None:
        services, workers = run.stack.supervisor, Workers(run)
        workers.add("sink-2")
        workers.add("judge-2")
        await run.at(1, 1)
        await workers.share("sink", "sink-2", "judge", "judge-2")
        workers.add("sink-3")
        workers.add("judge-3")
        await workers.ready("sink-3", "judge-3")
        assert await asyncio.gather(services.retire("sink-2"), services.retire("judge-2")) == [0, 0]
        await asyncio.gather(services.hold("sink"), services.hold("judge"))
        # What is left of the round is for those that joined in it, and for nobody else.
        await all_add_up(run, rounds=1)

    asyncio.run(with_lab(tmp_path, one_task_a_partition(tmp_path, rounds=1), AGENTS, attack, minute_s=MINUTE_S))
