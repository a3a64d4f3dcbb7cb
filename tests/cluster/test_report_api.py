"""The report API behind a real API server and real kubectl, over a history of 200 tasks and 2,000 rounds (25 s)."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.report_api.access import KubernetesAccess
from controller.report_api.live import LiveTask
from controller.report_api.serve import Listen, serve
from controller.report_api.store import ClickHouseHistory
from kpatrol.lab.errors import CommandFailed
from tests.cluster.apiserver import ApiServer, running_apiserver
from tests.integration.endpoint_fixture import READER_PASSWORD
from tests.integration.report_history import (
    SPEC,
    batch,
    endpoint_with_tables,
    store_requests,
    store_verdicts,
    uid_of,
    verdict,
)

TASKS, ROUNDS = 200, 10
SERVICE, NAMESPACE = "kpatrol-report", "kpatrol"
GONE, THERE = "netreach/task-000", "netreach/task-001"
RIGHTS = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kpatrol-auth-delegator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{kind: ServiceAccount, name: controller, namespace: kpatrol}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: kpatrol-authentication-reader, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: extension-apiserver-authentication-reader}
subjects: [{kind: ServiceAccount, name: controller, namespace: kpatrol}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: report-readers}
rules: [{apiGroups: [system.kdoctor.io], resources: [kdoctorreports], verbs: [get, list, watch, delete]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: report-readers}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: report-readers}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: jane}]
"""


class Live:
    """One of the tasks still exists."""

    def live_tasks(self) -> list[LiveTask]:
        status = {"expectedRound": 10, "doneRound": 10, "finish": True, "history": [{}]}
        return [LiveTask(task=THERE, kind="NetReach", uid=uid_of(THERE), created_us=1, spec=SPEC, status=status)]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What the tests look at."""

    api: ApiServer
    port: int
    certificates: Path
    jane: Path
    bob: Path


def aggregation(port: int, ca: str) -> str:
    bundle = __import__("base64").b64encode(ca.encode()).decode()
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVICE, "namespace": NAMESPACE},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }
    registration = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.system.kdoctor.io"},
        "spec": {
            **{
                "group": "system.kdoctor.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 1000,
                "versionPriority": 100,
            },
            **{"caBundle": bundle, "service": {"name": SERVICE, "namespace": NAMESPACE, "port": port}},
        },
    }
    return yaml.safe_dump_all([service, registration])


def write_certificate(api: ApiServer, folder: Path) -> None:
    made = api.access.server_certificate(name=f"{SERVICE}.{NAMESPACE}.svc", addresses=[f"{SERVICE}.{NAMESPACE}.svc"])
    (folder / "tls.key").write_text(made.key_pem)
    (folder / "tls.crt").write_text(made.certificate_pem)


@contextmanager
def served(api: ApiServer, *, certificates: Path, clickhouse_port: int) -> Iterator[int]:
    """The report API in a thread of its own, as the controller's service account; gives its port."""
    from kubernetes import config

    account = api.service_account(NAMESPACE, "controller")
    api.kubectl("apply", "-f", "-", stdin=RIGHTS)
    access = KubernetesAccess(config.new_client_from_config(str(account)))
    history = ClickHouseHistory(url=f"http://reader@127.0.0.1:{clickhouse_port}/kpatrol", password=READER_PASSWORD)
    port: list[int] = []
    listening = threading.Event()
    loop = asyncio.new_event_loop()

    def told(taken: int) -> None:
        port.append(taken)
        listening.set()

    listen = Listen(
        host="localhost", port=0, certificate_file=certificates / "tls.crt", key_file=certificates / "tls.key"
    )
    service = loop.create_task(
        serve(listen=listen, history=history, live=Live(), access=access, on_listening=told, look_s=0.2)
    )

    def run() -> None:
        try:
            loop.run_until_complete(service)
        except asyncio.CancelledError:
            pass
        finally:
            listening.set()
            # Closing TLS connections say goodbye in turns of the loop.
            loop.run_until_complete(asyncio.sleep(0.5))
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    listening.wait(60)
    try:
        yield port[0]
    finally:
        loop.call_soon_threadsafe(service.cancel)
        thread.join(30)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    start_us = (time.time_ns() // 1_000_000_000 - 7200) * 1_000_000
    certificates = tmp_path_factory.mktemp("tls")
    with running_apiserver() as api, endpoint_with_tables(tmp_path_factory.mktemp("data")) as (endpoint, writer):
        names = [f"netreach/task-{i:03}" for i in range(TASKS)]
        told = [verdict(n, r, start_us=start_us + r * 60_000_000) for r in range(1, ROUNDS + 1) for n in names]
        store_verdicts(writer, told, token="history")
        newest = [v for v in told if v.round == ROUNDS]
        store_requests(writer, [batch(v, agent) for v in newest for agent in range(3)], token="requests")
        write_certificate(api, certificates)
        with served(api, certificates=certificates, clickhouse_port=endpoint.port) as port:
            api.kubectl("apply", "-f", "-", stdin=aggregation(port, api.files.ca.read_text()))
            api.kubectl("wait", "apiservice/v1beta1.system.kdoctor.io", "--for=condition=Available", "--timeout=60s")
            yield Stage(api=api, port=port, certificates=certificates, jane=api.user("jane"), bob=api.user("bob"))


def timed(stage: Stage, *words: str) -> tuple[str, float]:
    began = time.monotonic()
    text = stage.api.kubectl("get", "kdoctorreport", *words, kubeconfig=stage.jane)
    return text, time.monotonic() - began


def test_kubectl_lists_two_hundred_reports_in_a_second(stage: Stage) -> None:
    timed(stage)  # the first time kubectl learns what the server has
    tries = [timed(stage) for _ in range(3)]
    lines = tries[0][0].splitlines()
    assert lines[0].split() == ["NAME", "CREATED", "AT"]
    assert len(lines) == TASKS + 1
    assert lines[1].split()[0] == "netreach-task-000"
    print(f"kubectl get kdoctorreport: {[round(seconds, 3) for _, seconds in tries]} s")
    assert min(seconds for _, seconds in tries) < 1.0


def test_kubectl_shows_one_report_under_both_names_as_yaml_wide_and_table(stage: Stage) -> None:
    report = yaml.safe_load(timed(stage, "netreach-task-001", "-o", "yaml")[0])
    assert (report["apiVersion"], report["kind"]) == ("system.kdoctor.io/v1beta1", "KdoctorReport")
    agents = report["report"]["latestRoundReport"]
    assert [agent["nodeName"] for agent in agents] == ["node-0", "node-1", "node-2"]
    metrics = agents[0]["taskNetReach"]["roundTaskDetail"][0]["requestTargetMetrics"]
    assert (metrics["requestCounts"], metrics["statusCodes"]) == (10, {"200": 10})
    assert metrics["latencies"]["meanInMs"] == 5.5
    assert report["status"]["status"] == "Finished"
    bare = yaml.safe_load(timed(stage, "task-001", "-o", "yaml")[0])
    assert bare["metadata"]["name"] == "task-001"
    assert bare["spec"]["Report"][0]["NetReachTask"]["Detail"][0]["Metrics"]["Latencies"]["Mean_inMs"] == 5.5
    assert {k: v for k, v in bare.items() if k != "metadata"} == {k: v for k, v in report.items() if k != "metadata"}
    wide = timed(stage, "netreach-task-001", "-o", "wide")[0].splitlines()
    assert wide[0].split() == ["NAME", "CREATED", "AT", "KIND", "ROUNDS", "LAST", "RESULT", "TASK"]
    assert wide[1].split()[-4:] == ["NetReach", "10", "succeed", "present"]
    assert len(timed(stage, "-A")[0].splitlines()) == TASKS + 1


def test_reports_outlive_their_task(stage: Stage) -> None:
    assert timed(stage, "netreach-task-000", "-o", "wide")[0].split()[-1] == "gone"
    report = json.loads(timed(stage, "netreach-task-000", "-o", "json")[0])
    assert report["task"]["spec"]["netReach"] == SPEC


def test_lists_come_in_pieces_and_can_be_selected_from(stage: Stage) -> None:
    names = timed(stage, "--chunk-size=7", "-o", "name")[0].split()
    assert len(names) == len(set(names)) == TASKS
    path = "/apis/system.kdoctor.io/v1beta1/kdoctorreports"
    first = json.loads(stage.api.kubectl("get", "--raw", f"{path}?limit=500", kubeconfig=stage.jane))
    assert len(first["items"]) == 25
    assert first["metadata"]["remainingItemCount"] == TASKS - 25
    one = f"{path}?labelSelector=kpatrol.io/task=task-007"
    found = json.loads(stage.api.kubectl("get", "--raw", one, kubeconfig=stage.jane))["items"]
    assert [item["metadata"]["name"] for item in found] == ["netreach-task-007"]
    single = f"{path.replace('kdoctorreports', 'namespaces/x/kdoctorreports')}/netreach-task-002?limit=4"
    part = json.loads(stage.api.kubectl("get", "--raw", single, kubeconfig=stage.jane))
    assert part["overview"]["targets"] == {"first": 0, "shown": 4, "continue": "4"}


def test_explain_knows_the_fields(stage: Stage) -> None:
    said = stage.api.kubectl("explain", "kdoctorreport", kubeconfig=stage.jane)
    assert "KdoctorReport" in said
    assert "overview" in said
    deep = "kdoctorreport.report.latestRoundReport.taskNetReach.roundTaskDetail.requestTargetMetrics.latencies"
    assert "p95InMs" in stage.api.kubectl("explain", deep, kubeconfig=stage.jane)
    older = stage.api.kubectl("explain", "kdoctorreport.spec.Report.NetReachTask.Detail.Metrics", kubeconfig=stage.jane)
    assert "StatusCodes" in older
    listed = stage.api.kubectl("api-resources", "--api-group=system.kdoctor.io", kubeconfig=stage.jane)
    assert "kdoctorreports" in listed


def refused(stage: Stage, *words: str, who: Path | None = None) -> str:
    with pytest.raises(CommandFailed) as said:
        stage.api.kubectl(*words, kubeconfig=who or stage.jane, timeout_s=30)
    return str(said.value)


def test_what_cannot_be_had_is_refused_in_kubernetes_words(stage: Stage) -> None:
    assert "MethodNotAllowed" in refused(stage, "get", "kdoctorreport", "--watch-only")
    assert "MethodNotAllowed" in refused(stage, "delete", "kdoctorreport", "netreach-task-001", "--wait=false")
    missing = refused(stage, "get", "kdoctorreport", "task-9999")
    assert "NotFound" in missing
    assert "a report is called <kind>-<task>" in missing
    assert "Forbidden" in refused(stage, "get", "kdoctorreport", who=stage.bob)


def ask(
    stage: Stage, path: str, headers: dict[str, str], *, certificate: tuple[Path, Path] | None
) -> tuple[int, dict[str, Any]]:
    """Straight to the report API, past the API server."""
    context = ssl.create_default_context(cafile=str(stage.api.files.ca))
    context.check_hostname = False
    if certificate is not None:
        context.load_cert_chain(*certificate)
    connection = http.client.HTTPSConnection("localhost", stage.port, context=context, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def test_nobody_gets_past_the_api_server(stage: Stage) -> None:
    files = stage.api.files
    path = "/apis/system.kdoctor.io/v1beta1/namespaces/default/kdoctorreports"
    proxy = (files.front_proxy, files.front_proxy_key)
    master = {"X-Remote-User": "admin", "X-Remote-Group": "system:masters"}

    code, status = ask(stage, path, master, certificate=None)
    assert (code, status["kind"], status["reason"]) == (401, "Status", "Unauthorized")
    code, status = ask(stage, path, {}, certificate=proxy)
    assert code == 401
    code, status = ask(stage, path, {"X-Remote-User": "bob"}, certificate=proxy)
    assert (code, status["reason"]) == (403, "Forbidden")
    assert 'User "bob" cannot list resource "kdoctorreports"' in status["message"]
    assert ask(stage, path + "?limit=1", {"X-Remote-User": "jane"}, certificate=proxy)[0] == 200
    assert ask(stage, path + "?limit=1", master, certificate=proxy)[0] == 200
    # A certificate of the cluster's own authority is not the aggregation layer's.
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        ask(stage, path, master, certificate=(files.kubelet_client, files.kubelet_client_key))


def test_a_new_certificate_is_taken_without_a_restart(stage: Stage) -> None:
    def serial() -> str:
        context = ssl.create_default_context(cafile=str(stage.api.files.ca))
        context.check_hostname = False
        connection = http.client.HTTPSConnection("localhost", stage.port, context=context, timeout=30)
        connection.connect()
        shown = connection.sock.getpeercert()["serialNumber"]  # type: ignore[union-attr]
        connection.close()
        return str(shown)

    before = serial()
    shutil.copy(stage.certificates / "tls.crt", stage.certificates / "kept.crt")
    (stage.certificates / "tls.crt").write_text("half written")
    time.sleep(0.6)
    assert serial() == before
    write_certificate(stage.api, stage.certificates)
    end = time.monotonic() + 60
    while serial() == before and time.monotonic() < end:
        time.sleep(0.2)
    assert serial() != before
    assert len(timed(stage)[0].splitlines()) == TASKS + 1
