"""kpatrol on the cluster, installed by real Helm, and rounds on it by real kubectl."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kpatrol.lab.errors import CommandFailed
from kpatrol.reading.store import CannotRead, Store
from tests.cluster.cluster import Cluster
from tests.cluster.helm import CHART, Helm
from tests.cluster.outside import NAMESPACE, Outside
from topics import mesh_members
from topics.connection import KafkaConnection
from topics.follow import follow
from topics.mesh_members import MembersChunk, Memberships
from topics.round_verdicts import RoundVerdict

AGENT = "kpatrol-agent"
CONTROLLER = "kpatrol-controller"
NODES = ("node-1", "node-2", "node-3")
MINUTE_S = 10.0
GROUP = "default"
_VALUES = Path(__file__).parent / "chart_values" / "shared.yaml"
_ROLLOUT_S = 300


def reach(
    name: str, *, duration_s: int = 3, qps: int = 15, timeout_ms: int = 3000, rounds: int = 1, **target: bool
) -> str:
    """A NetReach; of the targets those that are named."""
    kinds = ("endpoint", "clusterIP", "nodePort", "loadBalancer", "ingress", "multusInterface")
    wanted = {"ipv4": True, "ipv6": False, **dict.fromkeys(kinds, False), **target}
    return yaml.safe_dump(
        {
            "apiVersion": "kdoctor.io/v1beta1",
            "kind": "NetReach",
            "metadata": {"name": name},
            "spec": {
                "schedule": {"schedule": "0 1", "roundNumber": rounds, "roundTimeoutMinute": 1},
                "request": {"durationInSecond": duration_s, "qps": qps, "perRequestTimeoutInMS": timeout_ms},
                "expect": {"successRate": 1, "meanAccessDelayInMs": 3000},
                "target": wanted,
            },
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCount:
    """One source and target of a round: requests, and packets lost on each way."""

    src_node: str
    dst_node: str
    layer: str
    requests: int
    ok: int
    forward_lost: int
    reverse_lost: int


@dataclass(slots=True, kw_only=True)
class Installed:
    """A release that works; `store` reads what it wrote."""

    cluster: Cluster
    services: Outside
    store: Store
    helm: Helm

    def agents(self) -> dict[str, str]:
        """Node → the agent's pod."""
        return {node: str(pod["metadata"]["name"]) for node, pod in self.agent_pods().items()}

    def agent_pods(self) -> dict[str, Any]:
        """Node → the agent's pod, whole."""
        listed = self.cluster.json("get", "pods", "-n", NAMESPACE, "-l", f"app.kubernetes.io/name={AGENT}")["items"]
        return {pod["spec"]["nodeName"]: pod for pod in listed if "deletionTimestamp" not in pod["metadata"]}

    def apply(self, task: str) -> None:
        """`kubectl apply` of a manifest."""
        self.cluster.kubectl("apply", "-f", "-", stdin=task)

    @contextmanager
    def task(self, text: str) -> Iterator[str]:
        """A task while the block runs; gives `kind/name`."""
        self.apply(text)
        read = yaml.safe_load(text)
        key = f"{read['kind'].lower()}/{read['metadata']['name']}"
        try:
            yield key
        finally:
            self.cluster.kubectl("delete", key, "--ignore-not-found")

    def status(self, key: str) -> dict[str, Any]:
        """The status of `kind/name`, empty before there is one."""
        found: dict[str, Any] = self.cluster.json("get", key).get("status", {})
        return found

    def wait_done(self, key: str, *, rounds: int = 1, timeout_s: float = 180.0) -> dict[str, Any]:
        """The status once that many rounds are done."""
        self.cluster.wait(
            lambda: self.status(key).get("doneRound", 0) >= rounds,
            what=f"{rounds} rounds of {key}",
            timeout_s=timeout_s,
        )
        return self.status(key)

    def verdicts(self, key: str, *, rounds: int = 1, timeout_s: float = 180.0) -> list[RoundVerdict]:
        """The final verdicts of the task that is there now, oldest first, once there are that many rounds with one; of
        a round told again (records that came late) the newest."""
        uid = str(self.cluster.json("get", key)["metadata"]["uid"])
        found: list[RoundVerdict] = []

        def come() -> bool:
            try:
                told = self.store.verdicts(task=key)
            except CannotRead:
                return False
            final = sorted((v for v in told if v.final and v.task_uid == uid), key=lambda v: (v.round, v.revision))
            found[:] = {v.round: v for v in final}.values()
            return len(found) >= rounds

        self.cluster.wait(come, what=f"{rounds} final verdicts of {key}", timeout_s=timeout_s)
        return found

    def once(self, text: str) -> RoundVerdict:
        """One round of a task of one round, with its account checked: every request is answered for."""
        with self.task(text) as key:
            verdict = self.verdicts(key)[0]
        assert verdict.planned == verdict.stored + verdict.unsent + verdict.declared_missing, verdict
        assert (verdict.unexplained, verdict.duplicates, verdict.not_reported_nodes) == (0, 0, ()), verdict
        return verdict

    def good(self, text: str) -> RoundVerdict:
        """A round that succeeds. On a machine that is busy with much else the instrument may say that it was not fit;
        then once more."""
        for _ in range(4):
            verdict = self.once(text)
            if verdict.verdict == "succeed":
                return verdict
            assert verdict.verdict == "unknown", (verdict.why, self.pairs(verdict))
        raise AssertionError(f"four rounds without a verdict, the last: {verdict.why}")

    def whole(self, key: str) -> list[RoundVerdict]:
        """The task's final verdicts, once none is missing among them."""
        found: list[RoundVerdict] = []

        def all_there() -> bool:
            found[:] = self.verdicts(key)
            return [verdict.round for verdict in found] == list(range(1, len(found) + 1))

        self.cluster.wait(all_there, what=f"every round of {key}")
        return found

    def pairs(self, verdict: RoundVerdict) -> list[PairCount]:
        """What was lost between whom, of one round, from both ends' accounts."""
        sql = (
            "SELECT src_node, dst_node, layer, requests, ok, forward_lost + open_lost, reverse_lost "
            "FROM v_loss_direction WHERE round_id = {round:UInt64}"
        )
        rows = self.store.rows(sql, {"round": verdict.round_id})
        return [
            PairCount(src_node=a, dst_node=b, layer=layer, requests=n, ok=ok, forward_lost=there, reverse_lost=back)
            for a, b, layer, n, ok, there, back in rows
        ]

    def leader(self) -> str:
        """The pod of the controller that leads; empty while none does."""
        lease = self.cluster.json("get", "lease", CONTROLLER, "-n", NAMESPACE)
        return str(lease["spec"].get("holderIdentity") or "").rsplit("_", 1)[0]

    def verdict_lines(self, *words: str) -> list[dict[str, Any]]:
        """The JSON lines that the controllers printed since they last began; `--previous`: before that."""
        listed = self.cluster.json("get", "pods", "-n", NAMESPACE, "-l", f"app.kubernetes.io/name={CONTROLLER}")[
            "items"
        ]
        names = [str(pod["metadata"]["name"]) for pod in listed]
        texts = [self._logs(name, *words) for name in names]
        return [json.loads(line) for text in texts for line in text.splitlines() if line.startswith('{"TaskName')]

    def _logs(self, pod: str, *words: str) -> str:
        try:
            return self.cluster.kubectl("logs", "-n", NAMESPACE, pod, "-c", "controller", "--tail=-1", *words)
        except CommandFailed as failed:
            if "previous terminated container" in str(failed):
                return ""
            raise

    def members(self) -> dict[str, str]:
        """Node → pod of the newest membership of the default agents."""
        return asyncio.run(_members(self.services.kafka))

    def wait_members(self) -> None:
        """Until rounds are made for the agents that are there."""
        self.cluster.wait(lambda: self.members() == self.agents(), what="a membership of the agents that are there")

    def roll_out(self, *kinds: str) -> None:
        """Until these are as they ought to be; all of the release's where none is named."""
        roles = (f"deployment/kpatrol-{role}" for role in ("controller", "sink", "judge", "alarms"))
        for kind in kinds or (f"daemonset/{AGENT}", *roles):
            wait = ("rollout", "status", kind, "-n", NAMESPACE, f"--timeout={_ROLLOUT_S}s")
            self.cluster.kubectl(*wait, timeout_s=_ROLLOUT_S + 10)


@contextmanager
def installed(cluster: Cluster, services: Outside, *arguments: str) -> Iterator[Installed]:
    """`helm install` with Kafka and ClickHouse outside; every pod is ready, and every agent has reported."""
    helm = Helm(kubeconfig=cluster.kubeconfig)
    values = ("--values", str(services.write_values()), "--values", str(_VALUES))
    helm.run("install", "kpatrol", str(CHART), "--namespace", NAMESPACE, *values, *arguments)
    store = services.store()
    release = Installed(cluster=cluster, services=services, store=store, helm=helm)
    try:
        release.roll_out()
        cluster.wait(lambda: _reported(store) >= set(cluster.nodes), what="reports of all agents")
        yield release
    finally:
        store.close()


async def _members(kafka: KafkaConnection) -> dict[str, str]:
    parts = Memberships()
    newest: MembersChunk | None = None
    records = follow(mesh_members.TOPIC, kafka=kafka)
    try:
        async for item in records:
            if item.record is not None and item.record.group == GROUP:
                parts.add(item.record)
                newest = item.record if newest is None or item.record.epoch > newest.epoch else newest
            if item.caught_up:
                break
    finally:
        await records.aclose()
    if newest is None:
        return {}
    members = parts.get(group=GROUP, epoch=newest.epoch, digest=newest.digest)
    return {member.node: member.pod for member in members or ()}


def _reported(store: Store) -> set[str]:
    try:
        return {str(row[0]) for row in store.rows("SELECT node FROM v_agent")}
    except (CannotRead, CommandFailed):
        return set()
