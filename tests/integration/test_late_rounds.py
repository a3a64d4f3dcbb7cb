"""Rounds that outlive their timeout: judged with what there is, said so, and revised by number when the rest comes."""

import asyncio
import signal
from pathlib import Path

from kpatrol.reading.document import newest, round_json
from tests.integration.driven import Run, until, with_lab
from tests.integration.labs import assert_adds_up

AGENTS, RATE, DURATION_S, MINUTE_S = 3, 20, 4, 8
PLANNED = AGENTS * (AGENTS - 1) * RATE * DURATION_S
TASK = f"""
apiVersion: kdoctor.io/v1beta1
kind: NetReach
metadata: {{name: late}}
spec:
  schedule: {{schedule: "0 2", roundNumber: 2, roundTimeoutMinute: 1}}
  request: {{durationInSecond: {DURATION_S}, qps: {RATE}, perRequestTimeoutInMS: 500}}
  expect: {{successRate: 1, meanAccessDelayInMs: 5000}}
  target: {{endpoint: true, clusterIP: false, nodePort: false}}
"""


def test_a_late_round_is_judged_with_what_there_is_and_revised(tmp_path: Path) -> None:
    async def attack(run: Run) -> None:
        services = run.stack.supervisor
        # Round 1: its records reach the database only after the deadline.
        first = await run.at(1, 1)
        await services.hold("sink")
        await run.at(1, (first.deadline_us - first.start_us) / 1e6 + 3)
        services.release("sink")
        # Round 2: an agent freezes long enough to be missed, and comes back.
        second = await run.at(2, 2)
        services.signal("agent-node-2", signal.SIGSTOP)
        await run.at(2, MINUTE_S + 2)
        services.signal("agent-node-2", signal.SIGCONT)

        def revised() -> bool:
            last = {v.round: v for v in newest(run.verdicts())}
            return 2 in last and last[2].final and last[2].stored + last[2].unsent == PLANNED

        await until(revised, timeout_s=120, what="round 2 whole after the agent came back")
        told = {n: [v for v in run.verdicts() if v.round == n] for n in (1, 2)}
        provisional, final = told[1][0], told[1][-1]
        assert not provisional.final
        assert provisional.verdict != "succeed"
        assert "deadline" in provisional.why or "what there is" in provisional.why, provisional.why
        assert final.final
        # Where the machine did not keep time the instrument says of itself that it was not fit.
        assert final.verdict == "succeed" or (final.verdict, final.trust.grade) == ("unknown", "degraded"), final.why
        assert [v.revision for v in told[1]] == sorted({v.revision for v in told[1]})
        assert_adds_up([round_json(final), round_json(told[2][-1])])
        assert final.planned == told[2][-1].planned == PLANNED == second.planned

    asyncio.run(with_lab(tmp_path, TASK, AGENTS, attack, minute_s=MINUTE_S))
