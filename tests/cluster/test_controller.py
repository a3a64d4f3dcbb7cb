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

from controller.kubernetes.rights import OWN_AGENTS, RIGHTS, Right
from kpatrol.lab.errors import CommandFailed
from kpatrol.lab.java import find_java
from kpatrol.lab.kafka import Kafka, KafkaFiles
from kpatrol.lab.kafka_jars import cache_folder, get_jars
from kpatrol.lab.state import LabState
from tests.cluster.apiserver import ApiServer, running_apiserver
from tests.unit.controller.controller_world import World, net_reach, tasks
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
    own_group: str = ""

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
                if self.own_group:
                    own = replace(report, agent=f"own-{number}", group=self.own_group)
                    await self._send(agent_reports.TOPIC, own)
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
    assert RIGHTS - unused - set(OWN_AGENTS) <= used(api) <= RIGHTS


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
    async with around(folder) as (_, kafka):
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


TEMPLATE = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: kpatrol-agent, namespace: kpatrol}
spec:
  selector: {matchLabels: {app.kubernetes.io/name: kpatrol-agent}}
  template:
    metadata: {labels: {app.kubernetes.io/name: kpatrol-agent}}
    spec:
      containers: [{name: agent, image: kpatrol/agent, env: [{name: KPATROL_GROUP, value: default}]}]
"""
OWN = """
apiVersion: kdoctor.io/v1beta1
kind: AppHttpHealthy
metadata: {name: own}
spec:
  agentSpec: {kind: Deployment, deploymentReplicas: 2, env: [{name: EXTRA, value: hidden-word}]}
  schedule: {schedule: 0 1}
  request: {durationInSecond: 1}
  target: {host: "https://10.0.0.9/", method: GET, tlsSecretName: client, tlsSecretNamespace: kpatrol}
"""


def test_a_task_with_agents_of_its_own_gets_them_and_waits_until_they_are_ready(tmp_path: Path) -> None:
    with running_apiserver() as api:
        prepare(api)
        api.kubectl("apply", "-f", "-", stdin=TEMPLATE)
        asyncio.run(own(api, tmp_path))


async def own(api: ApiServer, folder: Path) -> None:
    kubeconfig = bind(api)
    async with around(folder) as (parts, kafka):
        controller = await start_controller(kafka=kafka, kubeconfig=kubeconfig, name="one")
        try:
            await asyncio.to_thread(api.kubectl, "create", "-f", "-", stdin=OWN)
            place = ("-n", "kpatrol", "-o", "name")
            name = "deployment.apps/kpatrol-apphttphealthy-own"
            await until(lambda: name in api.kubectl("get", "deploy", *place), what="no Deployment")
            await until(lambda: "-own-ipv4" in api.kubectl("get", "service", *place), what="no Service")
            assert parts.rounds == []
            made = json.loads(api.kubectl("get", name, "-n", "kpatrol", "-o", "json"))
            uid = made["metadata"]["ownerReferences"][0]["uid"]
            (container,) = made["spec"]["template"]["spec"]["containers"]
            assert {"name": "KPATROL_GROUP", "value": uid} in container["env"]
            assert container["volumeMounts"][0]["mountPath"] == "/etc/kpatrol/task-tls"
            assert made["spec"]["replicas"] == 2
            status = {"observedGeneration": 1, "replicas": 2, "readyReplicas": 2}
            patch = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
            await asyncio.to_thread(api.kubectl, "patch", name, "-n", "kpatrol", *patch)
            parts.own_group = uid
            await until(lambda: len(parts.rounds) >= 1, what="no round on its own agents")
            (round_,) = parts.rounds
            assert (round_.members.group, round_.members.count) == (uid, AGENTS)
            assert round_.http is not None
            assert round_.http.key_file == "/etc/kpatrol/task-tls/tls.key"
            assert "hidden-word" not in str(round_)
        finally:
            await end(controller)
