"""A hundred kills, cuts of both networks and ten minutes without ClickHouse, on three brokers (about 16 minutes).

While ClickHouse is away the others are killed all the same. Each step is printed; the same seed gives the same steps.
`KPATROL_CHAOS_SEED` and `KPATROL_CHAOS_KILLS`: other runs.
"""

import asyncio
import os
from pathlib import Path

import pytest

from tests.integration.chaos_driver import Chaos, tell, webhook
from tests.integration.chaos_plan import plan
from tests.integration.driven import Run, with_lab

pytestmark = pytest.mark.soak
AGENTS, RATE, DURATION_S, MINUTE_S = 5, 10, 8, 12
PLANNED = AGENTS * (AGENTS - 1) * RATE * DURATION_S
TASK = """
apiVersion: kdoctor.io/v1beta1
kind: NetReach
metadata: {{name: chaos}}
spec:
  schedule: {{schedule: "0 1", roundNumber: {rounds}}}
  request: {{durationInSecond: {duration_s}, qps: {rate}, perRequestTimeoutInMS: 1000}}
  expect: {{successRate: 0.5, meanAccessDelayInMs: 5000}}
  target: {{endpoint: true, clusterIP: false, nodePort: false}}
"""


@pytest.mark.timeout(7200)
def test_a_hundred_kills_and_ten_minutes_without_clickhouse(tmp_path: Path) -> None:
    seed = int(os.environ.get("KPATROL_CHAOS_SEED", "1"))
    kills = int(os.environ.get("KPATROL_CHAOS_KILLS", "100"))
    killing_s, outage = 8.0 * kills, (0.8 * kills, 6.0 * kills)
    rounds = int(killing_s / MINUTE_S)
    names = tuple(f"node-{n + 1}" for n in range(AGENTS))
    steps = plan(
        seed=seed,
        kills=kills,
        cuts=kills // 10,
        within_s=killing_s,
        agents=names,
        brokers=3,
        longest_cut_s=45,
        outage=outage,
    )

    async def attack(run: Run) -> None:
        async with webhook() as (receiver, port):
            chaos = Chaos(run, folder=tmp_path, say=tell)
            chaos.start_hooks(port)
            await run.at(1, 0)
            await chaos.follow(steps)
            outcome = await chaos.outcome(rounds=rounds, receiver=receiver, timeout_s=1200)
        # An agent that is silent for three reports is no member of the next round.
        assert all(0 < v.planned <= PLANNED for v in outcome.verdicts)
        assert outcome.transitions
        assert outcome.kills == kills
        assert outcome.outage_s >= outage[1]

    task = TASK.format(rounds=rounds, duration_s=DURATION_S, rate=RATE)
    asyncio.run(with_lab(tmp_path, task, AGENTS, attack, brokers=3, minute_s=MINUTE_S))
