"""Releases by real Helm on a real API server: upgrade, rollback, removal; and the secrets made inside the cluster."""

from __future__ import annotations

import base64
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from kpatrol.lab.errors import CommandFailed
from tests.cluster.apiserver import ApiServer, running_apiserver
from tests.cluster.helm import CHART, Helm, as_list

ROOT = CHART.parents[1]
NAMESPACE = "patrol"
ON_KUBERNETES = ("--set", "controller.source=kubernetes")
API_SERVICE = "v1beta1.system.kdoctor.io"
SAMPLE_CRD = """apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: samples.kpatrol.io
spec:
  group: kpatrol.io
  scope: Cluster
  names: {kind: Sample, plural: samples}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            size: {type: integer, maximum: 10000000}
"""


def secrets_of(api: ApiServer, namespace: str) -> dict[str, dict[str, str]]:
    found = api.commands.json("get", "secrets", "--namespace", namespace, "--field-selector=type!=helm.sh/release.v1")
    return {item["metadata"]["name"]: item["data"] for item in found["items"]}


def bundle(api: ApiServer) -> str:
    return str(api.commands.json("get", "apiservice", API_SERVICE)["spec"]["caBundle"])


def replicas(api: ApiServer) -> int:
    return int(api.commands.json("get", "deploy", "kpatrol-controller", "-n", NAMESPACE)["spec"]["replicas"])


def test_upgrade_and_rollback_keep_passwords_and_authority_and_removal_keeps_only_crds(tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    (chart / "files" / "crds" / "sample.yaml").write_text(SAMPLE_CRD)
    with running_apiserver() as api:
        helm = Helm(chart=chart, kubeconfig=api.kubeconfig)
        helm.run("install", "kpatrol", str(chart), "--namespace", NAMESPACE, "--create-namespace", *ON_KUBERNETES)
        first, authority = secrets_of(api, NAMESPACE), bundle(api)
        assert set(first) == {"kpatrol-clickhouse", "kpatrol-agent-tls", "kpatrol-api-tls"}
        assert first["kpatrol-api-tls"]["ca.crt"] == authority
        assert _names(first["kpatrol-api-tls"]["tls.crt"]) >= {f"kpatrol-api.{NAMESPACE}.svc"}

        (chart / "files" / "crds" / "sample.yaml").write_text(SAMPLE_CRD.replace("10000000", "20000000"))
        more = ("--reuse-values", "--set", "controller.replicas=3")
        helm.run("upgrade", "kpatrol", str(chart), "--namespace", NAMESPACE, *more)
        assert (replicas(api), _largest(api)) == (3, 20_000_000)
        assert (secrets_of(api, NAMESPACE), bundle(api)) == (first, authority)

        helm.run("rollback", "kpatrol", "1", "--namespace", NAMESPACE)
        assert (replicas(api), _largest(api)) == (2, 10_000_000)
        assert (secrets_of(api, NAMESPACE), bundle(api)) == (first, authority)

        with pytest.raises(Exception, match="invalid ownership metadata"):
            helm.run("install", "other", str(chart), "--namespace", "elsewhere", "--create-namespace")

        helm.run("uninstall", "kpatrol", "--namespace", NAMESPACE)
        kinds = "all,secrets,configmaps,roles,rolebindings,clusterroles,clusterrolebindings,apiservices,crds"
        left = api.kubectl("get", kinds, "-A", "-l", "app.kubernetes.io/managed-by=Helm", "-o", "name").split()
        assert "customresourcedefinition.apiextensions.k8s.io/samples.kpatrol.io" in left
        assert {name.partition("/")[0] for name in left} == {"customresourcedefinition.apiextensions.k8s.io"}


def test_rendered_manifests_have_their_secrets_made_in_the_cluster_once() -> None:
    with running_apiserver() as api:
        small = Helm().documents("--values", str(ROOT / "deploy" / "small-values.yaml"), *ON_KUBERNETES, "--no-hooks")
        api.kubectl("create", "namespace", "kpatrol")
        api.kubectl("apply", "-f", "-", stdin=as_list(small))
        account = api.service_account("kpatrol", "kpatrol-bootstrap")
        arguments = _bootstrap_arguments(api)
        assert _bootstrap(arguments, account).returncode == 0
        made, authority = secrets_of(api, "kpatrol"), bundle(api)
        assert set(made) == {"kpatrol-clickhouse", "kpatrol-agent-tls", "kpatrol-api-tls"}
        assert made["kpatrol-clickhouse"]["writer"] != made["kpatrol-clickhouse"]["reader"]
        assert authority == made["kpatrol-api-tls"]["ca.crt"]
        ssl.create_default_context(cadata=base64.b64decode(authority).decode())
        assert _names(made["kpatrol-api-tls"]["tls.crt"]) >= {"kpatrol-api.kpatrol.svc"}

        again = _bootstrap(arguments, account)
        assert again.returncode == 0
        assert "kpatrol-clickhouse: kept" in again.stdout
        assert (secrets_of(api, "kpatrol"), bundle(api)) == (made, authority)

        # The account's rights are these calls and no more.
        api.kubectl("create", "secret", "generic", "others", "--namespace", "kpatrol", "--from-literal=a=b")
        for words in (["get", "secret", "others"], ["get", "secrets"], ["delete", "secret", "kpatrol-clickhouse"]):
            with pytest.raises(CommandFailed, match="Forbidden"):
                api.kubectl(*words, "--namespace", "kpatrol", kubeconfig=account)
        denied = _bootstrap([*arguments, "--passwords=others:x"], account)
        assert denied.returncode == 2
        assert "403" in denied.stderr


def _bootstrap_arguments(api: ApiServer) -> list[str]:
    jobs = api.commands.json("get", "jobs", "--namespace", "kpatrol")["items"]
    (job,) = (job for job in jobs if job["metadata"]["name"].startswith("kpatrol-bootstrap-"))
    command: list[str] = job["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[:3] == ["python3", "-m", "controller.bootstrap"]
    return command[3:]


def _bootstrap(arguments: list[str], kubeconfig: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "KUBECONFIG": str(kubeconfig), "KPATROL_NAMESPACE": "kpatrol"}
    command = [sys.executable, "-m", "controller.bootstrap", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)


def _names(certificate: str) -> set[str]:
    read = x509.load_pem_x509_certificate(base64.b64decode(certificate))
    names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names.get_values_for_type(x509.DNSName))


def _largest(api: ApiServer) -> Any:
    crd = api.commands.json("get", "crd", "samples.kpatrol.io")
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["size"]["maximum"]
