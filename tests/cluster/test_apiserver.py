"""The API server that other tests lean on: its users, its rights, its audit log, and that nothing of it stays."""

import os
from pathlib import Path

import pytest

from kpatrol.lab.errors import CommandFailed
from tests.cluster.apiserver import running_apiserver
from tests.integration.labs import leftovers


def test_users_have_the_rights_they_were_given_and_every_call_is_on_record() -> None:
    with running_apiserver() as api:
        lab = api.folder.name.rpartition("-")[2]
        assert '"gitVersion":"v1.35' in api.kubectl("get", "--raw", "/version").replace(" ", "")
        jane = api.user("jane", groups=["devs"])
        with pytest.raises(CommandFailed, match="Forbidden"):
            api.kubectl("get", "namespaces", kubeconfig=jane)
        api.kubectl("create", "clusterrole", "readers", "--verb=list", "--resource=namespaces")
        api.kubectl("create", "clusterrolebinding", "readers", "--clusterrole=readers", "--group=devs")
        assert "kube-system" in api.kubectl("get", "namespaces", kubeconfig=jane)
        account = api.service_account("kpatrol", "controller")
        assert "system:serviceaccount:kpatrol:controller" in api.kubectl("auth", "whoami", kubeconfig=account)
        front = api.kubectl("get", "configmap", "-n", "kube-system", "extension-apiserver-authentication", "-o", "yaml")
        assert api.files.front_proxy_ca.read_text().splitlines()[1] in front
        asked = [(event["user"]["username"], event["verb"], event["responseStatus"]["code"]) for event in api.audit()]
        assert ("jane", "list", 403) in asked
        assert ("jane", "list", 200) in asked
    assert leftovers(lab) == []


def test_programs_of_a_given_folder_go_first(tmp_path: Path) -> None:
    from tests.cluster.binaries import ensure

    mine = tmp_path / "kubectl"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    found = ensure("kubectl", environment={**os.environ, "KUBEBUILDER_ASSETS": str(tmp_path)})
    assert found == {"kubectl": mine}
