"""Things are killed in the middle of rounds, and every round still adds up: exactly once, nothing hidden."""

import asyncio
from pathlib import Path

import pytest

from kpatrol.reading.document import round_json
from tests.integration.driven import Run, with_lab
from tests.integration.labs import assert_adds_up

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


def stored_by_sql(run: Run, round_id: int) -> tuple[int, int]:
    """(rows, distinct requests) of a round, straight from the engine."""
    sql = "SELECT count(), uniqExact(agent, incarnation, seq) FROM v_probe WHERE round_id = {id:UInt64}"
    rows, distinct = run.stack.store().rows(sql, {"id": round_id})[0]
    return int(rows), int(distinct)


@pytest.mark.timeout(600)
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
        final = await run.all_final(ROUNDS, timeout_s=240)
        rounds = [round_json(v) for v in final]
        assert_adds_up(rounds)
        # Who was silent for three reports, on a busy machine, is no member of the next round.
        assert rounds[0]["planned"] == PLANNED
        assert all(0 < r["planned"] <= PLANNED for r in rounds)
        for verdict in final:
            assert stored_by_sql(run, verdict.round_id) == (verdict.stored, verdict.stored)
        first, second, third = final
        # Past its deadline with the database away, the third round was told provisionally, and revised afterwards.
        told = [v for v in run.verdicts() if v.round_id == third.round_id]
        assert [v.final for v in told] == [False] * (len(told) - 1) + [True]
        assert len(told) > 1
        assert (first.declared_missing, third.declared_missing) == (0, 0)
        (killed,) = [a for a in second.accounts if a.agent == "node-2"]
        assert killed.declared_missing > 0
        assert killed.declared_missing == second.declared_missing
        assert "died" in killed.cause
        # What was asked of it meanwhile blames nobody.
        assert second.verdict != "fail", second.why
        assert any("died" in cause for cause in second.missing_causes)

    asyncio.run(with_lab(tmp_path, TASK, AGENTS, attack))
