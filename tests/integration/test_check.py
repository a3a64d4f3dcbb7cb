"""A check of agents that nothing is installed for: healthy, and with each fault its row and its reason."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import msgspec
import pytest

from kpatrol.check import gather, pairs
from kpatrol.check.judging import Judged, judged
from kpatrol.check.mesh import Asked, Key, Site, rounds
from tests.integration.attached_agents import Stage, dropped, staged, start
from topics.task_rounds import RoundScheduled

pytestmark = pytest.mark.paced
ASKED = Asked(requests=6, rate=6.0, timeout_ms=1200)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("check"), nodes=4) as running:
        wait_for_agents(running)
        yield running


def wait_for_agents(stage: Stage) -> None:
    deadline = time.monotonic() + 60
    while not all((stage.spool(node) / "attach.sock").exists() for node in stage.network.nodes):
        assert time.monotonic() < deadline, "an agent did not start"
        time.sleep(0.1)


def check(stage: Stage, *sites: Site, asked: Asked = ASKED, only: set[Key] | None = None) -> list[Judged]:
    ways = [(sites[0], sites[0])] if len(sites) == 1 else [(sites[0], sites[1]), (sites[1], sites[0])]
    run = f"run-{time.monotonic_ns()}"
    planned = rounds(asked=asked, ways=ways, run=run, only=only)
    found = asyncio.run(gather.run(rounds=planned, attach=stage.attach, settle_s=1.5))
    return judged(gathered=found, at_us=gather.now_us())


def test_a_healthy_cluster_is_all_good(stage: Stage) -> None:
    (whole,) = check(stage, stage.site(name="default"))
    verdict, found = whole.verdict, pairs.rows([whole])
    assert (verdict.verdict, verdict.unexplained, verdict.unsent) == ("succeed", 0, 0), verdict.why
    assert verdict.planned == verdict.stored == 12 * 6 * (2 + 2 + 1 + 1), "icmp and udp have a large twin"
    assert len(found) == 12 * 4
    assert {row.status for row in found} == {"good"}
    assert verdict.loss_ends in ("both", "some")
    assert pairs.exit_code(found, absent=0) == 0


def statuses(found: list[pairs.PairRow]) -> dict[Key, tuple[str, str]]:
    return {row.key: (row.status, row.reason) for row in found if row.status != "good"}


def test_a_node_that_hears_nothing(stage: Stage) -> None:
    with stage.fault("ingress node-3 loss=100%") as fault:
        (whole,) = check(stage, stage.site(name="default"))
        assert dropped(fault) > 0
    found = pairs.rows([whole])
    bad = statuses(found)
    # What it asks is not answered either: no reply comes in. All else is good.
    assert set(bad) == {row.key for row in found if "node-3" in (row.src, row.dst)}
    assert all(status == "bad" for status, _ in bad.values())
    assert bad[("node-1", "node-3", "udp")] == ("bad", "timeout")
    assert pairs.exit_code(found, absent=0) == 1

    # After the repair only those are asked again, and are good.
    (*again,) = check(stage, stage.site(name="default"), only=set(bad))
    repeated = pairs.rows(again)
    assert {row.key for row in repeated} == set(bad)
    assert {row.status for row in repeated} == {"good"}
    assert pairs.exit_code(repeated, absent=0) == 0


def test_udp_alone_and_one_way_alone(stage: Stage) -> None:
    with stage.fault("pair node-1>node-2 loss=100% proto=udp"):
        (whole,) = check(stage, stage.site(name="default"))
    found = pairs.rows([whole])
    # The way from node-1 to node-2: its requests there, and its answers to node-2's requests.
    assert statuses(found) == {
        ("node-1", "node-2", "udp"): ("bad", "timeout"),
        ("node-2", "node-1", "udp"): ("bad", "timeout"),
    }
    sentences = " ".join(finding.sentence for finding in whole.verdict.findings)
    assert "node-1" in sentences
    assert "node-2" in sentences


def test_large_packets_alone_name_the_mtu(stage: Stage) -> None:
    with stage.fault("ingress node-4 loss=100% size>1450"):
        (whole,) = check(stage, stage.site(name="default"))
    bad = statuses(pairs.rows([whole]))
    assert bad[("node-1", "node-4", "udp")] == ("bad", "mtu")
    assert bad[("node-2", "node-4", "icmp")] == ("bad", "mtu")
    assert ("node-1", "node-4", "http") not in bad


def test_an_agent_that_never_answers_is_not_green(stage: Stage) -> None:
    site = stage.site(name="default")
    stage.processes["node-2"].kill()
    stage.processes["node-2"].wait()
    try:
        asked = Asked(requests=2, rate=4.0, timeout_ms=300, protocols=("tcp",))
        planned = rounds(asked=asked, ways=[(site, site)], run="absent")
        planned = [(s, shortened(r)) for s, r in planned]
        gathered = asyncio.run(gather.run(rounds=planned, attach=stage.attach, attach_s=4.0, settle_s=0.2))
        found = pairs.rows(judged(gathered=gathered, at_us=gather.now_us()))
    finally:
        start(stage, "node-2")
        wait_for_agents(stage)
    by_key = {row.key: row for row in found}
    assert by_key[("node-2", "node-1", "tcp")].status == "unknown"
    assert by_key[("node-2", "node-1", "tcp")].detail == "the stream ended"
    assert by_key[("node-1", "node-2", "tcp")].reason == "refused"
    assert by_key[("node-1", "node-3", "tcp")].status == "good"


def shortened(round_: RoundScheduled) -> RoundScheduled:
    return msgspec.structs.replace(round_, deadline_us=round_.start_us + 3_000_000)


def test_between_two_clusters_the_blocked_direction_is_told(stage: Stage) -> None:
    one, other = stage.site("node-1", "node-2", name="east"), stage.site("node-3", "node-4", name="west")
    with stage.fault("pair node-1>node-3 loss=100% proto=udp"):
        both = check(stage, one, other, asked=Asked(requests=4, rate=4.0, timeout_ms=1200, protocols=("udp", "http")))
    found = pairs.rows(both)
    assert len(found) == 2 * 2 * 2 * 2, "every node of the one to every node of the other and back, two protocols"
    bad = statuses(found)
    assert set(bad) == {("node-1", "west/node-3", "udp"), ("node-3", "east/node-1", "udp")}
    forward = next(row for row in found if row.key == ("node-1", "west/node-3", "udp"))
    back = next(row for row in found if row.key == ("node-3", "east/node-1", "udp"))
    # Nothing of node-1's came to node-3; what node-3 sent came, its answers did not come back.
    assert forward.way == "there"
    assert back.way == "back"
