"""The controller on a real API server and a real broker: tasks by kubectl, agents that only report, a content judge."""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from msgspec.structs import replace

from controller.kubernetes.rights import RIGHTS, Right
from kpatrol.lab.errors import CommandFailed
from kpatrol.lab.java import find_java
from kpatrol.lab.kafka import Kafka, KafkaFiles
from kpatrol.lab.kafka_jars import cache_folder, get_jars
from kpatrol.lab.state import LabState
from tests.cluster.apiserver import ApiServer, running_apiserver
from topics import agent_reports, round_progress, round_verdicts, task_rounds
from topics.agent_reports import AgentReport
from topics.apply import apply
from topics.connection import KafkaConnection
from topics.follow import follow
from topics.spec import Topic
from topics.task_rounds import RoundScheduled

ROOT = Path(__file__).parents[2]
DEFINITIONS = ROOT / "deploy" / "crds"
STATUSES = (("kdoctor.io", "apphttphealthies"), ("kdoctor.io", "netdnses"), ("kpatrol.io", "netpatrols"))
AGENTS = 3
MINUTE_S = 3
PATIENCE_S = 90.0

REACH = """
apiVersion: kdoctor.io/v1beta1
kind: NetReach
metadata: {name: reach-task}
spec:
  expect: {meanAccessDelayInMs: 1500, successRate: 1}
  request: {durationInSecond: 1, perRequestTimeoutInMS: 500, qps: 10}
  schedule: {roundNumber: %d, roundTimeoutMinute: 1, schedule: 0 1}
  target: {clusterIP: true, endpoint: true, ingress: false, ipv4: true, loadBalancer: false, nodePort: true}
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: kpatrol-agent-ipv4, namespace: kpatrol}
spec:
  type: NodePort
  ipFamilies: [IPv4]
  selector: {app.kubernetes.io/name: kpatrol-agent}
  ports: [{name: http, port: 80, targetPort: http, nodePort: 31080}]
"""
NODE = """
apiVersion: v1
kind: Node
metadata: {name: node-%d, labels: {topology.kubernetes.io/zone: zone-%d}}
"""


@dataclass(slots=True)
class Around:
    """What stands around the controller: reports of agents, and a judge that is content with every round."""

    kafka: KafkaConnection
    producer: AIOKafkaProducer
    rounds: list[RoundScheduled]

    async def report(self) -> None:
        incarnation = time.time_ns()
        while True:
            for number in range(1, AGENTS + 1):
                name = f"node-{number}"
                report = AgentReport(
                    agent=name,
                    incarnation=incarnation,
                    node=name,
                    at_us=time.time_ns() // 1000,
                    started_us=0,
                    interval_s=1.0,
                    version="test",
                    ipv4=f"10.0.0.{number}",
                    node_ipv4=f"192.0.2.{number}",
                )
                await self._send(agent_reports.TOPIC, report)
            await asyncio.sleep(1)

    async def judge(self) -> None:
        judged: set[int] = set()
        async with asyncio.TaskGroup() as group:
            async for item in follow(round_progress.TOPIC, kafka=self.kafka):
                if isinstance(item.record, RoundScheduled) and item.record.round_id not in judged:
                    judged.add(item.record.round_id)
                    group.create_task(self._verdict(item.record))

    async def watch(self) -> None:
        async for item in follow(task_rounds.TOPIC, kafka=self.kafka):
            if isinstance(item.record, RoundScheduled):
                self.rounds.append(item.record)

    async def _verdict(self, round_: RoundScheduled) -> None:
        await asyncio.sleep(max(0.0, round_.start_us / 1e6 + round_.duration_s + 0.3 - time.time()))
        verdict = replace(
            round_verdicts.EXAMPLE,
            round_id=round_.round_id,
            round=round_.number,
            task=round_.task,
            task_uid=round_.task_uid,
            start_us=round_.start_us,
            at_us=time.time_ns() // 1000,
        )
        await self._send(round_verdicts.TOPIC, verdict)

    async def _send(self, topic: Topic[Any], record: Any) -> None:
        await self.producer.send_and_wait(topic.name, topic.encode(record), key=topic.key(record))


@asynccontextmanager
async def around(folder: Path) -> AsyncIterator[tuple[Around, Kafka]]:
    lab = LabState.create(folder)
    jars = get_jars(cache_folder(os.environ), say=print)
    kafka = await Kafka.start(lab=lab, files=KafkaFiles(java=find_java(), jars=jars, folder=folder / "kafka"))
    try:
        door = kafka.connection("admin")
        await apply(kafka=door, replication=1, partitions={})
        async with AIOKafkaProducer(**door.producer_options()) as producer:
            parts = Around(kafka=door, producer=producer, rounds=[])
            running = [asyncio.create_task(part()) for part in (parts.report, parts.judge, parts.watch)]
            try:
                yield parts, kafka
            finally:
                for task in running:
                    task.cancel()
                await asyncio.wait(running)
    finally:
        await kafka.stop()
        lab.close()


async def start_controller(*, kafka: Kafka, kubeconfig: Path, name: str) -> asyncio.subprocess.Process:
    variables = {
        "KPATROL_TASK_SOURCE": "kubernetes",
        "KPATROL_NAMESPACE": "kpatrol",
        "KPATROL_POD": name,
        "KPATROL_EXPECTED_AGENTS": str(AGENTS),
        "KPATROL_MINUTE_S": str(MINUTE_S),
        "KPATROL_LEAD_TIME_S": "1",
        "KUBECONFIG": str(kubeconfig),
    }
    environment = os.environ | kafka.environment("controller") | variables
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "controller", env=environment)


async def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


def bind(api: ApiServer) -> Path:
    """The controller's account, with exactly the rights of the table."""
    kubeconfig = api.service_account("kpatrol", "kpatrol-controller")
    rules = [{"apiGroups": [r.group], "resources": [r.resource], "verbs": [r.verb]} for r in sorted(RIGHTS)]
    meta = {"metadata": {"name": "kpatrol-controller"}}
    rbac = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "rules": rules} | meta
    subject = {"kind": "ServiceAccount", "name": "kpatrol-controller", "namespace": "kpatrol"}
    reference = {"apiGroup": rbac, "kind": "ClusterRole", "name": "kpatrol-controller"}
    binding = {"apiVersion": f"{rbac}/v1", "kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [subject]}
    for document in (role, binding | meta):
        api.kubectl("apply", "-f", "-", stdin=json.dumps(document))
    return kubeconfig


def used(api: ApiServer) -> set[Right]:
    """What the account asked for, as the API server recorded it, discovery left out."""
    asked = [e for e in api.audit() if e["user"]["username"] == "system:serviceaccount:kpatrol:kpatrol-controller"]
    assert [e["requestURI"] for e in asked if e.get("responseStatus", {}).get("code") == 403] == []
    references = [(e["objectRef"], e["verb"]) for e in asked if "objectRef" in e]
    return {
        Right(o.get("apiGroup", ""), o["resource"] + (f"/{o['subresource']}" if "subresource" in o else ""), verb)
        for o, verb in references
    }


def prepare(api: ApiServer) -> None:
    api.kubectl("apply", "-f", str(DEFINITIONS))
    api.kubectl("create", "namespace", "kpatrol")
    names = [f"crd/{path.stem}" for path in DEFINITIONS.glob("*.io.yaml")]
    api.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
    nodes = "---".join(NODE % (number, number % 2) for number in range(1, AGENTS + 1))
    api.kubectl("apply", "-f", "-", stdin=f"{nodes}---{SERVICE}")


async def until(condition: Any, *, what: str, patience_s: float = PATIENCE_S) -> None:
    end_s = time.monotonic() + patience_s
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < end_s, what
        await asyncio.sleep(0.3)


def leader(api: ApiServer) -> str:
    try:
        return api.kubectl(
            "get", "lease", "kpatrol-controller", "-n", "kpatrol", "-o", "jsonpath={.spec.holderIdentity}"
        )
    except CommandFailed:
        return ""


def test_a_task_by_kubectl_runs_and_its_leaders_death_loses_no_round_and_repeats_none(tmp_path: Path) -> None:
    with running_apiserver() as api:
        prepare(api)
        asyncio.run(run(api, tmp_path))


async def run(api: ApiServer, folder: Path) -> None:
    kubeconfig = bind(api)
    async with around(folder) as (parts, kafka):
        controllers = {
            name: await start_controller(kafka=kafka, kubeconfig=kubeconfig, name=name) for name in ("one", "two")
        }
        try:
            await asyncio.to_thread(api.kubectl, "apply", "-f", "-", stdin=REACH % 8)
            await until(lambda: len(parts.rounds) >= 2, what="no rounds")
            first = leader(api)
            controllers[first.partition("_")[0]].kill()
            await until(lambda: leader(api) not in ("", first), what="no other leader")
            finished = ("get", "nr", "reach-task", "-o", "jsonpath={.status.finish}")
            await until(lambda: api.kubectl(*finished) == "true", what="not finished")
            check(api, parts.rounds)
        finally:
            for process in controllers.values():
                await end(process)


def check(api: ApiServer, rounds: list[RoundScheduled]) -> None:
    assert Counter(round_.number for round_ in rounds) == Counter(range(1, 9))
    (head, line) = api.kubectl("get", "netreach").splitlines()
    assert head.split() == ["NAME", "FINISH", "EXPECTEDROUND", "DONEROUND", "LASTROUNDSTATUS", "SCHEDULE"]
    assert line.split() == ["reach-task", "true", "8", "8", "succeed", "0", "1"]
    task = json.loads(api.kubectl("get", "nr", "reach-task", "-o", "json"))
    status = task["status"]
    assert status["resource"]["runtimeType"] == "DaemonSet"
    assert [item["roundNumber"] for item in status["history"]] == list(range(8, 0, -1))
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Accepted": "True", "AgentsReady": "True", "TargetsFound": "True",
    }  # fmt: skip
    layers = {target.layer.name for target in rounds[0].targets}
    assert layers == {"cluster_ip", "node_port"}
    assert {target.port for target in rounds[0].targets} == {80, 31080}
    events = json.loads(api.kubectl("get", "events", "-n", "default", "-o", "json"))["items"]
    reasons = Counter(e["reason"] for e in events if e["involvedObject"]["uid"] == task["metadata"]["uid"])
    assert reasons["RoundSucceeded"] >= 8
    assert reasons["Finished"] >= 1
    # Statuses of the kinds of which no task was made are the only rights that this run had no use for.
    unused = {Right(g, f"{r}/status", "patch") for g, r in STATUSES}
    assert RIGHTS - unused <= used(api) <= RIGHTS
