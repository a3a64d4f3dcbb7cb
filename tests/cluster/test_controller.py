"""The controller with many tasks, on a real API server and a real broker (20 s)."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from controller.kubernetes.rights import RIGHTS
from kpatrol.lab.errors import CommandFailed
from kpatrol.lab.java import find_java
from kpatrol.lab.kafka import Kafka, KafkaFiles
from kpatrol.lab.kafka_jars import cache_folder, get_jars
from kpatrol.lab.state import LabState
from tests.cluster.apiserver import ApiServer, running_apiserver
from tests.unit.controller.controller_world import World, net_reach, tasks
from topics import agent_reports
from topics.agent_reports import AgentReport
from topics.apply import apply
from topics.spec import Topic

ROOT = Path(__file__).parents[2]
DEFINITIONS = ROOT / "deploy" / "crds"
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
    """What stands around the controller: reports of agents."""

    producer: AIOKafkaProducer

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

    async def _send(self, topic: Topic[Any], record: Any) -> None:
        await self.producer.send_and_wait(topic.name, topic.encode(record), key=topic.key(record))


@asynccontextmanager
async def around(folder: Path) -> AsyncIterator[Kafka]:
    lab = LabState.create(folder)
    jars = get_jars(cache_folder(os.environ), say=print)
    kafka = await Kafka.start(lab=lab, files=KafkaFiles(java=find_java(), jars=jars, folder=folder / "kafka"))
    try:
        door = kafka.connection("admin")
        await apply(kafka=door, replication=1, partitions={})
        async with AIOKafkaProducer(**door.producer_options()) as producer:
            reporting = asyncio.create_task(Around(producer=producer).report())
            try:
                yield kafka
            finally:
                reporting.cancel()
                await asyncio.wait([reporting])
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


MANY = 200


def test_two_hundred_tasks_are_reconciled_in_time_and_in_little_memory(tmp_path: Path) -> None:
    with running_apiserver() as api:
        prepare(api)
        asyncio.run(many(api, tmp_path))


async def many(api: ApiServer, folder: Path) -> None:
    kubeconfig = bind(api)
    text = "---".join(
        (REACH % 1).replace("reach-task", f"reach-{number}").replace("schedule: 0 1", "schedule: 900 1")
        for number in range(MANY)
    )
    async with around(folder) as kafka:
        controller = await start_controller(kafka=kafka, kubeconfig=kubeconfig, name="one")
        try:
            await until(lambda: leader(api) != "", what="no leader")
            await asyncio.to_thread(api.kubectl, "create", "-f", "-", stdin=text)
            await until(lambda: len(began(api)) == MANY, what="not every task has begun")
            said = f"resident: {resident_mib(controller.pid):.0f} MiB, comparison of {MANY} tasks: {compared_s():.3f} s"
            print(said)
            assert resident_mib(controller.pid) < 200, said
            assert compared_s() < 1, said
        finally:
            await end(controller)


def began(api: ApiServer) -> list[str]:
    template = r'jsonpath={range .items[?(@.status.firstSeenTimeStamp)]}{.metadata.name}{"\n"}{end}'
    return api.kubectl("get", "nr", "-o", template).split()


def resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def compared_s() -> float:
    """One comparison of as many tasks, each with a round under way."""
    world = World(desired=tasks("---\n".join(net_reach(name=f"t-{n}", rounds=-1) for n in range(MANY))))
    world.run(4)
    began_s = time.perf_counter()
    world.step()
    return time.perf_counter() - began_s
