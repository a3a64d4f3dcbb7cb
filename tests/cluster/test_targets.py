"""Everything that can be asked for, on a cluster of both address families: Services, load balancer, Ingress, a second
interface; agents of a task's own with Secret and ConfigMap, of which nothing enters a topic (10 s for each)."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
import yaml
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from controller.kubernetes.rights import RIGHTS, Right
from tests.cluster.installed import AGENT, CONTROLLER, NODES, Installed, reach
from tests.cluster.outside import NAMESPACE
from tests.cluster.second_interface import second_interface
from topics.connection import KafkaConnection
from topics.round_verdicts import RoundVerdict

pytestmark = pytest.mark.timeout(900)


def targets(release: Installed, name: str) -> dict[str, set[str]]:
    """Node → names of the targets of the newest round's report."""
    report = release.cluster.json("get", "kdoctorreport", f"netreach-{name}")
    agents = report["report"]["latestRoundReport"]
    return {agent["nodeName"]: {d["name"] for d in agent["taskNetReach"]["roundTaskDetail"]} for agent in agents}


def test_every_target_is_reached_in_both_families(release: Installed) -> None:
    every = ("endpoint", "clusterIP", "nodePort", "loadBalancer", "ingress", "multusInterface", "ipv6")
    pods = release.agent_pods()
    with second_interface(release.cluster, pods) as further:
        verdict = release.good(reach("every", qps=5, duration_s=2, **dict.fromkeys(every, True)))
        said = targets(release, "every")
    pairs = release.pairs(verdict)
    assert {p.layer for p in pairs} == {
        "pod", "cluster_ip", "node_port", "load_balancer", "ingress", "multus",
    }  # fmt: skip
    assert all(p.ok == p.requests > 0 for p in pairs), pairs
    assert set(said) == set(NODES)
    service = {f: release.cluster.json("get", "service", f"{AGENT}-ipv{f}", "-n", NAMESPACE) for f in "46"}
    for node, names in said.items():
        for family in "46":
            v = f"V{family}IP"
            balancer = service[family]["status"]["loadBalancer"]["ingress"][0]["ip"]
            wanted = {
                f"AgentCluster{v}_{at(service[family]['spec']['clusterIP'])}",
                f"AgentLoadbalancer{v}_{at(balancer)}",
                *(f"AgentPod{v}_{pods[n]['metadata']['name']}_{ip(pods[n], family)}" for n in NODES if n != node),
                *(f"AgentPod{v}_{pods[n]['metadata']['name']}_{further[n][family == '6']}" for n in NODES if n != node),
            }
            assert wanted - names == set()
            assert len([name for name in names if name.startswith(f"AgentNodePort{v}_")]) == 1


def at(address: str) -> str:
    return f"[{address}]:80" if ":" in address else f"{address}:80"


def ip(pod: Any, family: str) -> str:
    found: str = next(entry["ip"] for entry in pod["status"]["podIPs"] if (":" in entry["ip"]) == (family == "6"))
    return found


def test_a_task_with_agents_of_its_own_has_its_services_and_ingress_and_leaves_nothing(release: Installed) -> None:
    layers = dict.fromkeys(("endpoint", "clusterIP", "nodePort", "loadBalancer", "ingress"), True)
    task = yaml.safe_load(reach("own", qps=5, duration_s=2, **layers))
    task["spec"]["agentSpec"] = {"kind": "DaemonSet", "terminationGracePeriodMinutes": 0}
    verdict, _ = by_agents_of_its_own(release, yaml.safe_dump(task))
    pairs = release.pairs(verdict)
    assert verdict.verdict == "succeed", verdict.why
    assert {p.layer for p in pairs} == {"pod", "cluster_ip", "node_port", "load_balancer", "ingress"}
    assert all(p.ok == p.requests > 0 for p in pairs), pairs
    assert all(name not in str(verdict.accounts) for name in release.agents().values())
    kinds = (
        "get",
        "daemonsets,pods,services,ingresses",
        "-n",
        NAMESPACE,
        "-l",
        f"kpatrol.io/task-uid={verdict.task_uid}",
    )
    release.cluster.wait(lambda: not release.cluster.json(*kinds)["items"], what="its own agents gone with the task")


BODY_MARK, ENV_MARK = "a-body-that-is-nobodys-business", "a-value-that-is-nobodys-business"
APP = f"""
apiVersion: kdoctor.io/v1beta1
kind: AppHttpHealthy
metadata: {{name: mounted}}
spec:
  agentSpec:
    kind: Deployment
    deploymentReplicas: 2
    terminationGracePeriodMinutes: 0
    env: [{{name: EXTRA, value: {ENV_MARK}}}]
  schedule: {{schedule: 0 1, roundNumber: 1, roundTimeoutMinute: 1}}
  request: {{durationInSecond: 2, qps: 5, perRequestTimeoutInMS: 3000}}
  expect: {{successRate: 1, meanAccessDelayInMs: 3000, statusCode: 200}}
  target:
    host: https://{AGENT}-ipv4.{NAMESPACE}.svc.cluster.local/
    method: POST
    header: ["Content-Type: application/json"]
    tlsSecretName: client
    tlsSecretNamespace: {NAMESPACE}
    bodyConfigmapName: body
    bodyConfigmapNamespace: {NAMESPACE}
"""


def test_a_secret_and_a_body_are_mounted_by_agents_of_its_own_and_enter_no_topic(release: Installed) -> None:
    serving = release.cluster.json("get", "secret", f"{AGENT}-tls", "-n", NAMESPACE)["data"]["tls.crt"]
    client = release.cluster.access.server_certificate(name="client")
    data = {"ca.crt": base64.b64decode(serving).decode(), "tls.crt": client.certificate_pem, "tls.key": client.key_pem}
    meta = {"namespace": NAMESPACE}
    objects = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta | {"name": "client"}, "stringData": data},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta | {"name": "body"}, "data": {"test1": BODY_MARK}},
    ]
    release.apply(yaml.safe_dump_all(objects))
    verdict, status = by_agents_of_its_own(release, APP)
    # Two agents, 2 s of 5 requests each: each of them a POST over TLS that was checked, with a body that was taken.
    assert (verdict.verdict, verdict.requests.ok) == ("succeed", 20), verdict.why
    assert status["resource"]["runtimeType"] == "Deployment"
    marks = [BODY_MARK.encode(), ENV_MARK.encode(), *secrets_of(client.key_pem)]
    found, read = asyncio.run(search(release.services.kafka, marks))
    assert found == []
    assert read > 100
    release.cluster.kubectl("delete", "-n", NAMESPACE, "secret/client", "configmap/body")


def by_agents_of_its_own(release: Installed, text: str) -> tuple[RoundVerdict, dict[str, Any]]:
    """A round by a task's own agents, and the task's status. They go while the task still stands, hence by the
    controller's hand. Once more where the machine was too busy to tell."""
    for _ in range(4):
        with release.task(text) as key:
            (verdict,) = release.verdicts(key)
            status = release.status(key)
            uid = verdict.task_uid
            release.cluster.wait(lambda u=uid: not own_pods(release, u), what="its own agents gone", timeout_s=90)
        if verdict.verdict != "unknown":
            break
    return verdict, status


def own_pods(release: Installed, uid: str) -> list[Any]:
    found: list[Any] = release.cluster.json("get", "pods", "-n", NAMESPACE, "-l", f"kpatrol.io/task-uid={uid}")["items"]
    return found


def secrets_of(pem: str) -> list[bytes]:
    """The key's lines, as they are and as a Secret holds them."""
    lines = [line.encode() for line in pem.splitlines() if line and not line.startswith("-----")]
    return [*lines, base64.b64encode(pem.encode())[40:120]]


async def search(kafka: KafkaConnection, marks: list[bytes]) -> tuple[list[str], int]:
    """Where any of the marks stands in any record of any topic, and how many records were read."""
    found, read = [], 0
    async with AIOKafkaConsumer(group_id=None, enable_auto_commit=False, **kafka.client_options()) as consumer:
        parts = await partitions(kafka)
        consumer.assign(parts)
        await consumer.seek_to_beginning(*parts)
        ends = await consumer.end_offsets(parts)
        while any([await consumer.position(part) < end for part, end in ends.items()]):
            for part, records in (await consumer.getmany(timeout_ms=500, max_records=2000)).items():
                read += len(records)
                for record in records:
                    whole = b" ".join([record.key or b"", record.value or b"", *(value for _, value in record.headers)])
                    found += [f"{part} {record.offset}" for mark in marks if mark in whole]
    return found, read


async def partitions(kafka: KafkaConnection) -> list[TopicPartition]:
    """Of all topics."""
    admin = AIOKafkaAdminClient(**kafka.client_options())
    await admin.start()
    try:
        told = await admin.describe_topics()
    finally:
        await admin.close()
    return [TopicPartition(topic["topic"], part["partition"]) for topic in told for part in topic["partitions"]]


ACCOUNT = f"system:serviceaccount:{NAMESPACE}:"
# Applied objects that are not there yet are created: both rights are asked, the record says "patch".
UNSEEN = {right for right in RIGHTS if right.verb == "create" and right.group in ("apps", "networking.k8s.io")}
BESIDE = {
    Right("authorization.k8s.io", "subjectaccessreviews", "create"),
    Right("", "configmaps", "get"),  # kube-system/extension-apiserver-authentication
}
PATROL = {
    "apiVersion": "kpatrol.io/v1beta1",
    "kind": "NetPatrol",
    "metadata": {"name": "mesh"},
    "spec": {"intervalSecond": 10, "requestsPerRound": 5, "perRequestTimeoutInMS": 500, "roundNumber": 1},
}


DNS = """
apiVersion: kdoctor.io/v1beta1
kind: Netdns
metadata: {name: quick}
spec:
  schedule: {schedule: 0 1, roundNumber: 1, roundTimeoutMinute: 1}
  request: {durationInSecond: 1, qps: 5, perRequestTimeoutInMS: 500}
  target: {targetDns: {}}
"""


def test_all_this_while_the_controllers_calls_were_those_of_its_rights(release: Installed) -> None:
    with release.task(yaml.safe_dump(PATROL)) as patrol, release.task(DNS) as dns:
        release.wait_done(patrol)
        release.wait_done(dns)
    events = [e for e in release.cluster.audit() if e["user"]["username"].startswith(ACCOUNT)]
    assert {e["user"]["username"] for e in events} == {f"{ACCOUNT}{CONTROLLER}"}
    refused = [json.dumps(e["objectRef"]) for e in events if e.get("responseStatus", {}).get("code") == 403]
    assert refused == []
    used = {right_of(e["objectRef"], e["verb"]) for e in events if "objectRef" in e}
    assert used <= RIGHTS | BESIDE
    assert RIGHTS - UNSEEN - {Right("", "services", "create")} - used == set()


def right_of(reference: dict[str, str], verb: str) -> Right:
    sub = f"/{reference['subresource']}" if "subresource" in reference else ""
    return Right(reference.get("apiGroup", ""), reference["resource"] + sub, verb)
