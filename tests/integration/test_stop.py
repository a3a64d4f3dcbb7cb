"""The global stop from the command to the verdict: everything ends at once, and every request is accounted for."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from kpatrol.reading.document import round_json
from tests.integration.driven import Run, with_lab
from tests.integration.labs import assert_adds_up

AGENTS, RATE, DURATION_S = 3, 20, 120
PLANNED = AGENTS * (AGENTS - 1) * RATE * DURATION_S
TASK = f"""
apiVersion: kdoctor.io/v1beta1
kind: NetReach
metadata: {{name: long}}
spec:
  schedule: {{schedule: "0 6", roundNumber: 1, roundTimeoutMinute: 5}}
  request: {{durationInSecond: {DURATION_S}, qps: {RATE}, perRequestTimeoutInMS: 500}}
  expect: {{successRate: 1, meanAccessDelayInMs: 5000}}
  target: {{endpoint: true, clusterIP: false, nodePort: false}}
"""


async def kpatrol(run: Run, *arguments: str) -> tuple[int, Any]:
    """Run the command beside the lab; its exit code and its JSON."""
    door = run.stack.kafka_door()
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kpatrol", *arguments, "--json"),
        env=os.environ | {"KPATROL_KAFKA_BOOTSTRAP": door.bootstrap},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await command.communicate()
    assert command.returncode is not None
    return command.returncode, json.loads(said)


def test_the_global_stop_ends_a_round_at_once_and_every_request_is_accounted_for(tmp_path: Path) -> None:
    async def attack(run: Run) -> None:
        await run.at(1, 3)
        assert await kpatrol(run, "stop", "--task", "netdns/another") == (0, [])
        asked_s = time.monotonic()
        code, stopped = await kpatrol(run, "stop", "--reason", "a fire drill")
        took_s = time.monotonic() - asked_s
        assert code == 0, stopped
        (line,) = stopped
        assert (line["task"], line["round"], line["stopped"]) == ("netreach/long", 1, True)
        assert took_s < 60, "the round had two minutes to go"
        (final,) = await run.all_final(1, timeout_s=60)
        assert final.final
        assert final.verdict == "unknown"
        assert final.why.startswith("cancelled: a fire drill"), final.why
        assert_adds_up([round_json(final)])
        assert final.planned == PLANNED
        assert 0 < final.stored < PLANNED
        assert (line["sent"], line["unsent"]) == (final.stored, final.unsent)
        for account in final.accounts:
            assert account.state == "finished"
            assert sum(account.unsent_causes.values()) == account.unsent
            # On a busy machine some were late before the stop.
            assert account.unsent_causes["cancelled"] > 0.9 * account.unsent
        if all(set(account.unsent_causes) == {"cancelled"} for account in final.accounts):
            assert not [reason for reason in final.trust.reasons if "not sent" in reason], "taken back is no weakness"
        assert await kpatrol(run, "stop") == (0, [])

    asyncio.run(with_lab(tmp_path, TASK, AGENTS, attack))
