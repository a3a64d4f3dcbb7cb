"""The chart by real Helm: linted, rendered in many forms; every object taken by a real API server; values refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.kubernetes.rights import RIGHTS, Right
from deploy.render import rendered
from kpatrol.lab.errors import CommandFailed
from streams.delivery.read import routes
from streams.silences import parse
from tests.cluster.apiserver import ApiServer, running_apiserver
from tests.cluster.binaries import ensure
from tests.cluster.helm import CHART, Helm, HelmFailed, as_list, pod_specs
from tests.unit.deploy.pods import faults

DEPLOY = CHART.parent
STUBS = Path(__file__).with_name("chart_values") / "stub-crds.yaml"
SETS = {
    "default": [],
    "small": ["--values", str(DEPLOY / "small-values.yaml")],
    "everything": ["--values", str(Path(__file__).with_name("chart_values") / "everything.yaml")],
    "external": ["--values", str(Path(__file__).with_name("chart_values") / "external.yaml")],
    "bare": ["--values", str(Path(__file__).with_name("chart_values") / "bare.yaml")],
}
HOST = "DaemonSet/kpatrol-agent-host"
CONTROLLER = "kpatrol-controller"


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    with running_apiserver() as server:
        server.kubectl("create", "namespace", "kpatrol")
        server.kubectl("label", "namespace", "kpatrol", "pod-security.kubernetes.io/enforce=restricted")
        server.kubectl("apply", "-f", str(STUBS))
        for name in ("certificates.cert-manager.io", "servicemonitors.monitoring.coreos.com"):
            server.kubectl("wait", "--for=condition=Established", f"crd/{name}")
        # Pods are taken only where their account and their priority class are there.
        documents = [*Helm().documents(*SETS["everything"]), *Helm().documents(*SETS["default"])]
        needed = [d for d in documents if d["kind"] in ("ServiceAccount", "PriorityClass")]
        server.kubectl("apply", "-f", "-", stdin=as_list(needed))
        yield server


def test_lint_finds_nothing() -> None:
    assert "0 chart(s) failed" in Helm().run("lint", "--strict", "--kube-version", "1.35.0", str(CHART))


@pytest.mark.parametrize("name", SETS)
def test_every_object_is_taken_by_a_real_api_server(api: ApiServer, name: str) -> None:
    documents = Helm().documents(*SETS[name])
    said = api.kubectl("apply", "--dry-run=server", "-f", "-", stdin=as_list(documents))
    assert said.count("(server dry run)") == len(documents)


@pytest.mark.parametrize("name", SETS)
def test_every_container_is_as_little_as_it_can_be(name: str) -> None:
    pods = pod_specs(Helm().documents(*SETS[name]))
    assert {what: found for what, pod in pods.items() if (found := faults(pod))} == {}
    agents = [pod for what, pod in pods.items() if what.startswith("DaemonSet/")]
    assert agents
    assert all(pod["spec"]["automountServiceAccountToken"] is False for pod in agents)


def test_the_strictest_pod_security_standard_takes_every_pod_but_the_host_networks(api: ApiServer) -> None:
    """Dry runs of the pods themselves: of the objects that make pods the standard only warns."""
    documents = [*Helm().documents(*SETS["everything"]), *Helm().documents(*SETS["default"])]
    pods = pod_specs(documents)
    refused = {what for what, pod in pods.items() if not _taken(api, what, pod)}
    assert refused == {HOST}


def _taken(api: ApiServer, what: str, pod: dict[str, Any]) -> bool:
    name = what.lower().replace("/", "-")
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "kpatrol", "labels": pod["metadata"]["labels"]},
        "spec": pod["spec"],
    }
    # A claim of a StatefulSet is added by its controller, which does not run here.
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    if "data" not in volumes and what.startswith("StatefulSet/"):
        claim = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
        body["spec"] = {**pod["spec"], "volumes": [*pod["spec"]["volumes"], claim]}
    try:
        api.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(body))
    except CommandFailed as error:
        if "violates PodSecurity" in str(error):
            return False
        raise
    return True


def test_the_files_of_hooks_and_maintenances_are_ones_that_the_services_take() -> None:
    documents = Helm().documents(*SETS["everything"])
    maps = {d["metadata"]["name"]: d["data"] for d in documents if d["kind"] == "ConfigMap"}
    assert len(parse(yaml.safe_load(maps["kpatrol-alarms"]["alarms.yaml"]), where="alarms")) == 1
    text = maps["kpatrol-hooks"]["hooks.yaml"].replace("/etc/kpatrol/hooks-secret/chat", __file__)
    assert [route.hook.name for route in routes(yaml.safe_load(text), where="hooks")] == ["chat"]


def test_the_controllers_rights_are_those_of_its_calls() -> None:
    documents = Helm().documents()
    roles = [d for d in documents if d["kind"] in ("Role", "ClusterRole") and d["metadata"]["name"] == CONTROLLER]
    granted = {
        Right(group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == RIGHTS | {Right("authorization.k8s.io", "subjectaccessreviews", "create")}


def test_ceilings_are_enforced_by_the_api_server(api: ApiServer) -> None:
    task = {"apiVersion": "kdoctor.io/v1beta1", "kind": "NetReach", "metadata": {"name": "fast"}}
    documents = Helm().documents("--set", "feature.netReachRequestMaxQPS=7")
    kinds = ("CustomResourceDefinition", "ConfigMap", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    api.kubectl("apply", "-f", "-", stdin=as_list([d for d in documents if d["kind"] in kinds]))
    api.kubectl("wait", "--for=condition=Established", "crd/netreaches.kdoctor.io")
    for _ in range(60):
        try:
            body = json.dumps(task | {"spec": {"request": {"qps": 8}}})
            api.kubectl("create", "--dry-run=server", "-f", "-", stdin=body)
        except CommandFailed as error:
            if "allowed: whole number from 1 to 7" in str(error):
                break
            if "no matches for kind" not in str(error) and "not found" not in str(error):
                raise
        time.sleep(0.5)
    else:
        raise AssertionError("8 requests/s were taken for a minute, the ceiling is 7")
    api.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(task | {"spec": {"request": {"qps": 7}}}))


def test_each_family_has_its_own_service() -> None:
    both = Helm().documents("--set", "feature.enableIPv6=true")
    families = {d["metadata"]["name"]: d["spec"].get("ipFamilies") for d in both if d["kind"] == "Service"}
    assert families["kpatrol-agent-ipv4"] == ["IPv4"]
    assert families["kpatrol-agent-ipv6"] == ["IPv6"]
    only = Helm().documents("--set", "feature.enableIPv6=true,feature.enableIPv4=false")
    assert "kpatrol-agent-ipv4" not in {d["metadata"]["name"] for d in only}


BAD_VALUES = [
    ("agent.image.tag=latest", "agent.image.tag"),
    ("global.imageTagOverride=latest", "global.imageTagOverride"),
    ("controller.replicas=0", "controller.replicas"),
    ("controller.replicas=two", "controller.replicas"),
    ("controler.replicas=2", "controler"),
    ("feature.enableIPv4=false", "feature"),
    ("feature.netReachRequestMaxQPS=0", "feature.netReachRequestMaxQPS"),
    ("agentHost.ports.http=80", "agentHost.ports.http"),
    ("agent.service.type=Headless", "agent.service.type"),
    ("streams.sessionTimeoutSeconds=5", "streams.sessionTimeoutSeconds"),
    ("kafka.external.bootstrap=broker", "kafka.external.bootstrap"),
    ("kafka.external.securityProtocol=TLS", "kafka.external.securityProtocol"),
    ("kafka.bundled.storage.type=nfs", "kafka.bundled.storage.type"),
    ("clickhouse.external.url=tcp://host:9000", "clickhouse.external.url"),
    ("clickhouse.retention.rawDays=0", "clickhouse.retention.rawDays"),
    ("clickhouse.database=a-b", "clickhouse.database"),
    ("tls.server.method=magic", "tls.server.method"),
    ("secrets.method=vault", "secrets.method"),
    ("controller.source=git", "controller.source"),
    ("controller.tasks.a=b", "controller.tasks.a"),
    ("kafka.bundled.enabled=false", "kafka.external.bootstrap"),
    ("clickhouse.bundled.enabled=false", "clickhouse.external."),
    ("agent.spool.type=hostPath", "agent.spool.hostPath"),
    ("kafka.bundled.storage.type=hostPath", "storage.hostPath"),
    ("controller.source=kubernetes,tls.server.method=provided", "tls.server.caBundle"),
    ("controller.source=kubernetes,tls.server.method=certmanager", "tls.server.certmanager.issuerName"),
]


@pytest.mark.parametrize(("setting", "field"), BAD_VALUES)
def test_bad_values_are_refused_with_their_field(setting: str, field: str) -> None:
    with pytest.raises(HelmFailed) as refused:
        Helm().documents("--set", setting)
    said = str(refused.value)
    # Helm's validator names a field with dots or, newer, as a path.
    assert field in said or field.replace(".", "/") in said


def test_the_small_profile_is_what_the_chart_gives() -> None:
    text = rendered(str(ensure("helm")["helm"]))
    assert (DEPLOY / "small.yaml").read_text() == text, "run `make manifests`"
