"""A loss behind a router: found, looked at more closely once, and the router stands beside the finding (about 35 s)."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.driven import Run, until, with_lab
from tests.integration.routed import ROUTER, drop_behind_the_router, put_behind_a_router
from topics.round_verdicts import RoundVerdict
from topics.task_rounds import FOLLOW_UP

pytestmark = pytest.mark.soak
TASK = """
apiVersion: kpatrol.io/v1beta1
kind: NetPatrol
metadata: {name: mesh}
spec:
  protocols: [udp]
  intervalSecond: 5
  requestsPerRound: 20
  perRequestTimeoutInMS: 1000
  sourcePorts: 4
"""
FAR = "node-4"


def report(run: Run, *arguments: str) -> str:
    """What `kpatrol report` says to a person beside the running lab; the network has failed."""
    door = run.stack.clickhouse()
    environment = os.environ | {"KPATROL_CLICKHOUSE_PASSWORD_FILE": str(door.reader_file), "COLUMNS": "240"}
    command = [sys.executable, "-m", "kpatrol", "report", *arguments, "--clickhouse", door.url("reader")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 1, done.stderr
    return done.stdout


def check_ways(closer: RoundVerdict) -> None:
    """To the suspect and from it the ways end behind the router; among the others they are there at once."""
    ways = {(a.node, t.node): t for a in closer.accounts for t in a.traces}
    looked = {closer.spec["suspects"][0], *closer.spec["controls"]}
    assert ways.keys() == {(one, other) for one in looked for other in looked if one != other}
    for ends, way in ways.items():
        addresses = [hop.address for hop in way.hops]
        if FAR in ends:
            assert (way.reached, addresses) == (False, [ROUTER]), way
        else:
            assert (way.reached, addresses) == (True, [way.address]), way


@pytest.mark.timeout(600)
def test_a_closer_look_shows_the_hop_behind_which_the_ways_end(tmp_path: Path) -> None:
    async def attack(run: Run) -> None:
        network = run.stack.network
        assert network is not None
        put_behind_a_router(network, FAR)
        drop_behind_the_router(network, f"ip daddr {network.nodes[FAR].address} meta l4proto udp")

        def looked() -> RoundVerdict | None:
            closer = (v for v in run.verdicts() if v.kind == FOLLOW_UP and v.final)
            return next((v for v in closer if v.spec["suspects"] == [FAR]), None)

        closer: RoundVerdict = await until(looked, timeout_s=240, what=f"a closer look at {FAR}")
        check_ways(closer)

        # Beside its finding, whoever asks for the task.
        number, sentence = closer.spec["round"], closer.spec["sentence"]
        assert sentence.startswith(f"{FAR} loses ")
        text = await asyncio.to_thread(report, run, "mesh", "--round", str(number))
        task, _, below = text.partition(f"a closer look at netpatrol/mesh, round {number}: {sentence}")
        assert sentence in task
        ending = "ends behind hop 1: nothing beyond answered, up to hop 24"
        assert f"way {closer.spec['controls'][0]} > {FAR}: {ROUTER} ({ending})" in below
        others = len(closer.spec["controls"]) * (len(closer.spec["controls"]) - 1)
        assert others == 0 or f"ways among the others: {others} of {others} there" in below
        told = json.loads(await asyncio.to_thread(report, run, "mesh", "--json"))
        assert sentence in [f["sentence"] for r in told["rounds"] if r["round"] == number for f in r["findings"]]
        hops = [h["address"] for a in told["follow_ups"][0]["accounts"] for t in a["traces"] for h in t["hops"]]
        assert ROUTER in hops
        print(text)

    asyncio.run(with_lab(tmp_path, TASK, 4, attack, follow_ups=True))
