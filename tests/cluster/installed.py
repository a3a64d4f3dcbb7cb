"""kpatrol on the cluster, installed by real Helm, and rounds on it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kpatrol.reading.store import CannotRead, Store
from tests.cluster.cluster import Cluster
from tests.cluster.helm import CHART, Helm
from tests.cluster.images import ROOT
from tests.cluster.outside import NAMESPACE, Outside
from topics.round_verdicts import RoundVerdict

AGENT = "kpatrol-agent"
_ROLLOUT_S = 300
MINUTE_S = 10.0


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

    def agents(self) -> dict[str, str]:
        """Node → the agent's pod."""
        listed = self.cluster.json("get", "pods", "-n", NAMESPACE, "-l", f"app.kubernetes.io/name={AGENT}")["items"]
        return {
            pod["spec"]["nodeName"]: pod["metadata"]["name"]
            for pod in listed
            if "deletionTimestamp" not in pod["metadata"]
        }

    def round_after(self, instant_s: float, *, task: str, timeout_s: float = 180.0) -> RoundVerdict:
        """The final verdict of the first round of the task that began after that Unix time."""
        found: list[RoundVerdict] = []

        def come() -> bool:
            try:
                verdicts = self.store.verdicts(task=task)
            except CannotRead:
                return False
            found[:] = [v for v in verdicts if v.final and v.start_us > instant_s * 1e6]
            return bool(found)

        self.cluster.wait(come, what=f"a round of {task} after {instant_s:.0f}", timeout_s=timeout_s)
        return found[0]

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


@contextmanager
def installed(cluster: Cluster, services: Outside, *arguments: str) -> Iterator[Installed]:
    """`helm install` with Kafka and ClickHouse outside; every pod but the controller's is ready."""
    values = services.write_values()
    helm = Helm(kubeconfig=cluster.kubeconfig)
    helm.run("install", "kpatrol", str(CHART), "--namespace", NAMESPACE, "--values", str(values), *arguments)
    kinds = [f"daemonset/{AGENT}", *(f"deployment/kpatrol-{role}" for role in ("sink", "judge", "alarms"))]
    for kind in kinds:
        wait = ("rollout", "status", kind, "-n", NAMESPACE, f"--timeout={_ROLLOUT_S}s")
        cluster.kubectl(*wait, timeout_s=_ROLLOUT_S + 10)
    store = services.store()
    try:
        yield Installed(cluster=cluster, services=services, store=store)
    finally:
        store.close()


@contextmanager
def file_controller(release: Installed, *, tasks: Sequence[Path]) -> Iterator[None]:
    """The controller on task files, beside the cluster, in place of the release's: it says the agents' Service, so
    rounds go to service addresses and node ports too. Its minute has ten seconds."""
    cluster = release.cluster
    cluster.kubectl("scale", "deployment/kpatrol-controller", "-n", NAMESPACE, "--replicas=0")
    folder = release.services.folder
    (folder / "tasks").mkdir()
    for task in tasks:
        (folder / "tasks" / task.name).write_text(task.read_text())
    spec = cluster.json("get", "service", f"{AGENT}-ipv4", "-n", NAMESPACE)["spec"]
    port = next(p for p in spec["ports"] if p["name"] == "http")
    book = {"cluster_ip": {"4": spec["clusterIP"]}, "service_port": port["port"], "node_port": port["nodePort"]}
    (folder / "services.json").write_bytes(msgspec.json.encode(book))
    settings = {
        **release.services.kafka_variables,
        "KPATROL_TASK_DIR": str(folder / "tasks"),
        "KPATROL_STATE_DIR": str(folder / "state"),
        "KPATROL_SERVICES_FILE": str(folder / "services.json"),
        "KPATROL_EXPECTED_AGENTS": str(len(release.agents())),
        "KPATROL_MINUTE_S": f"{MINUTE_S:g}",
        "KPATROL_CLUSTER": "kubernetes",
    }
    child = cluster.children.start(
        "controller",
        [sys.executable, "-m", "controller"],
        log=folder / "controller.log",
        folder=ROOT,
        settings=settings,
    )
    end = time.monotonic() + 5
    while time.monotonic() < end:
        assert child.is_running(), child.last_lines()
        time.sleep(0.5)
    yield
