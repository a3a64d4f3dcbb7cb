"""What happens in clusters in mid-round: leaders and agents killed, pods replaced and their addresses given on,
rollouts, nodes drained and joining. Rounds stay exact, memberships follow, nothing is called lost that was not (half a
minute each)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest

from tests.cluster.images import image_name
from tests.cluster.installed import AGENT, NODES, Installed, reach
from tests.cluster.outside import NAMESPACE
from topics.round_verdicts import RoundVerdict

pytestmark = pytest.mark.timeout(900)
# TCP is told to within two packets a round: on a busy machine one is sent again that was not lost.
NOISE = 2
# What a request to a pod that is gone, or is another's, may end with; none of it is a success.
ENDED = {"target_gone", "wrong_peer", "refused", "reset", "unreachable", "timeout"}


def exact(verdict: RoundVerdict) -> None:
    assert verdict.planned == verdict.stored + verdict.unsent + verdict.declared_missing, verdict
    assert (verdict.unexplained, verdict.duplicates) == (0, 0), verdict


def without_blame(verdict: RoundVerdict) -> None:
    """Every request is answered for, and none of those that agents were away for is called lost or anybody's fault."""
    exact(verdict)
    assert verdict.verdict == "unknown", (verdict.verdict, verdict.why)
    assert (verdict.loss.lost <= NOISE, [finding.sentence for finding in verdict.findings]) == (True, []), verdict


@contextmanager
def under_way(release: Installed, task: str) -> Iterator[str]:
    """The task's first round runs for a second or two when the block begins."""
    with release.task(task) as key:

        def running() -> bool:
            (newest, *_) = release.status(key).get("history") or [{}]
            began = newest.get("startTimeStamp")
            return bool(began) and time.time() - datetime.fromisoformat(began).timestamp() > 2

        release.cluster.wait(running, what=f"a round of {key}")
        yield key


def outcomes(release: Installed, verdict: RoundVerdict) -> dict[str, Counter[str]]:
    """Node asked → outcome → requests of the round to its pod."""
    sql = (
        "SELECT dst_node, toString(outcome), count() FROM v_probe "
        "WHERE round_id = {round:UInt64} GROUP BY dst_node, outcome"
    )
    found: dict[str, Counter[str]] = {}
    for node, outcome, count in release.store.rows(sql, {"round": verdict.round_id}):
        found.setdefault(node, Counter())[outcome] = count
    return found


def holds_good(release: Installed, nodes: tuple[str, ...] = NODES) -> None:
    """A round among the agents that are there now succeeds, from and to each of these nodes."""
    release.wait_members()
    pairs = release.pairs(release.good(reach("after", endpoint=True)))
    assert {(p.src_node, p.dst_node) for p in pairs} == {(a, b) for a in nodes for b in nodes if a != b}


def test_when_the_leader_is_killed_no_round_is_lost_repeated_or_untold(release: Installed) -> None:
    before = release.verdict_lines()
    with under_way(release, reach("led", duration_s=4, rounds=2, endpoint=True)) as key:
        leader = release.leader()
        pod = release.cluster.json("get", "pod", leader, "-n", NAMESPACE)
        container = next(c for c in pod["status"]["containerStatuses"] if c["name"] == "controller")
        release.cluster.nodes[pod["spec"]["nodeName"]].kill_container(container["containerID"])
        verdicts = release.verdicts(key, rounds=2)
        status = release.wait_done(key, rounds=2)
    assert [verdict.round for verdict in verdicts] == [1, 2]
    for verdict in verdicts:
        exact(verdict)
        assert verdict.verdict != "fail", verdict.why
    assert [item["roundNumber"] for item in status["history"]] == [2, 1]
    assert status["finish"] is True
    told = [*before, *release.verdict_lines("--previous"), *release.verdict_lines()]
    assert {line["RoundNumber"] for line in told if line["TaskName"] == "netreach.led"} == {1, 2}


def test_a_killed_agent_comes_back_and_what_it_owed_is_declared(release: Installed) -> None:
    """The container's process is killed; its spool outlives it, its address too."""
    with under_way(release, reach("killed", duration_s=8, endpoint=True)) as key:
        pod = release.agent_pods()["node-3"]
        release.cluster.nodes["node-3"].kill_container(pod["status"]["containerStatuses"][0]["containerID"])
        (verdict,) = release.verdicts(key)
    exact(verdict)
    said = outcomes(release, verdict)
    assert set(said["node-1"]) | set(said["node-2"]) == {"ok"}
    assert set(said["node-3"]) <= ENDED | {"ok"}
    others = [p for p in release.pairs(verdict) if p.dst_node != "node-3"]
    assert sum(p.forward_lost + p.reverse_lost for p in others) <= NOISE, others
    release.roll_out(f"daemonset/{AGENT}")
    holds_good(release)


STRANGER = f"""
apiVersion: v1
kind: Pod
metadata: {{name: stranger, labels: {{app: stranger}}}}
spec:
  nodeName: node-3
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    sysctls: [{{name: net.ipv4.ip_unprivileged_port_start, value: "0"}}]
  containers:
    - name: web
      image: {image_name("agent")}
      imagePullPolicy: Never
      command: [python3, -m, http.server, "80", --directory, /etc]
"""


def test_a_replaced_pods_address_in_a_strangers_hands_is_a_wrong_peer_and_no_loss(release: Installed) -> None:
    node = release.cluster.nodes["node-3"]
    pod = release.agent_pods()["node-3"]
    address = str(pod["status"]["podIP"])
    with under_way(release, reach("replaced", duration_s=20, endpoint=True)) as key:
        release.cluster.kubectl("delete", "pod", pod["metadata"]["name"], "-n", NAMESPACE, "--grace-period=1")
        # Its successor has an address of its own before the old one is given away.
        release.cluster.wait(lambda: successor(release, pod["metadata"]["uid"]), what="the pod that follows it")
        release.cluster.wait(lambda: node.is_free(address), what=f"{address} is free")
        node.give_next(address)
        release.apply(STRANGER)
        (verdict,) = release.verdicts(key)
        given = release.cluster.json("get", "pod", "stranger")["status"]["podIP"]
    release.cluster.kubectl("delete", "pod", "stranger")
    assert given == address
    without_blame(verdict)
    assert set(verdict.failed_nodes) <= {"node-3"}
    said = outcomes(release, verdict)
    assert said["node-3"]["wrong_peer"] > 0
    assert set(said["node-3"]) <= ENDED | {"ok"}
    assert set(said["node-1"]) | set(said["node-2"]) == {"ok"}
    release.roll_out(f"daemonset/{AGENT}")
    holds_good(release)


def successor(release: Installed, uid: str) -> bool:
    pod = release.agent_pods().get("node-3")
    return pod is not None and pod["metadata"]["uid"] != uid and bool(pod["status"].get("podIP"))


def test_agents_are_rolled_out_in_mid_round_and_nobody_fails(release: Installed) -> None:
    before = release.agents()
    with under_way(release, reach("rolling", duration_s=12, endpoint=True)) as key:
        release.cluster.kubectl("rollout", "restart", f"daemonset/{AGENT}", "-n", NAMESPACE)
        release.roll_out(f"daemonset/{AGENT}")
        (verdict,) = release.verdicts(key)
    assert not {*before.values()} & {*release.agents().values()}
    without_blame(verdict)
    # What an agent had under way when it was stopped is cancelled.
    assert {name for found in outcomes(release, verdict).values() for name in found} <= ENDED | {"ok", "cancelled"}
    holds_good(release)


def test_a_drained_nodes_agent_stays_and_what_ran_there_goes_on_elsewhere(release: Installed) -> None:
    cluster = release.cluster
    with release.task(reach("drained", rounds=-1, endpoint=True)) as key:
        release.verdicts(key)
        drain = ("drain", "node-2", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s")
        cluster.kubectl(*drain, timeout_s=130)
        release.roll_out()
        began = time.time()
        cluster.wait(lambda: release.verdicts(key)[-1].start_us > began * 1e6, what="a round after the drain")
        verdicts = release.whole(key)
    cluster.kubectl("uncordon", "node-2")
    for verdict in verdicts:
        exact(verdict)
        assert verdict.verdict != "fail", verdict.why
    pods = cluster.json("get", "pods", "-n", NAMESPACE, "--field-selector=spec.nodeName=node-2,status.phase=Running")
    assert [pod["metadata"]["labels"]["app.kubernetes.io/name"] for pod in pods["items"]] == [AGENT]


def test_a_node_that_joins_is_patrolled(release: Installed) -> None:
    added = release.cluster.add_node()
    release.cluster.wait(lambda: added.name in release.agents(), what="an agent on the new node")
    release.roll_out(f"daemonset/{AGENT}")
    holds_good(release, (*NODES, added.name))
