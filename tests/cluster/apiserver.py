"""A real API server alone: etcd and kube-apiserver on loopback, no nodes. Up in about 4 seconds, 270 MB.

    from tests.cluster.apiserver import running_apiserver

    with running_apiserver() as api:                         # sync; builds the programs the first time (minutes)
        api.kubectl("apply", "-f", "-", stdin=text)          # as the administrator; raises CommandFailed with its words
        api.kubectl("get", "netreach", kubeconfig=other)     # as somebody else
        api.kubeconfig                                       # Path: the administrator, for clients and for KUBECONFIG
        api.user("jane", groups=["devs"])                    # Path: a kubeconfig by client certificate, no rights yet
        api.service_account("kpatrol", "controller")         # Path: makes the account, a kubeconfig with its token
        api.audit()                                          # what was asked: list of audit.k8s.io/v1 Events (Metadata)
        api.files.front_proxy_ca / front_proxy / front_proxy_key   # what the aggregation layer shows to other servers
        api.files.ca; api.access.server_certificate(name="…")      # a serving certificate by the cluster's authority

RBAC is on. The ConfigMap kube-system/extension-apiserver-authentication is there, as in every cluster. An APIService
reaches a server of the test's own on loopback through a Service {type: ExternalName, externalName: localhost} with
`spec.service.port` of the APIService set to its port (`insecureSkipTLSVerify`, or `caBundle` with a certificate for
NAME.NAMESPACE.svc). With `controllers=True` kube-controller-manager runs too: garbage collection, end of namespaces,
default service accounts, roles made of others (`view`, `edit`, `admin` have no rights without it). Several may run at
once; everything goes at the end, after a kill -9 of the test too.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kpatrol.lab.errors import LabError
from kpatrol.lab.leftovers import clean_leftovers, tear_down
from kpatrol.lab.processes import Child, spawn
from kpatrol.lab.state import LabState, base_folder
from kpatrol.lab.web import free_port
from tests.cluster.access import ADMINISTRATORS, Access, AccessFiles
from tests.cluster.binaries import ensure
from tests.cluster.controlplane import (
    ApiOptions,
    apiserver_arguments,
    controller_manager_arguments,
    etcd_arguments,
    write_audit_policy,
)
from tests.cluster.kubectl import Kubectl

READY_S = 90.0
_SERVICES = "10.96.0.0/16"
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServer:
    """A running API server and the doors to it."""

    url: str
    folder: Path
    access: Access
    kubeconfig: Path
    audit_log: Path
    commands: Kubectl

    @property
    def files(self) -> AccessFiles:
        return self.access.files

    def kubectl(self, *arguments: str, stdin: str = "", kubeconfig: Path | None = None, timeout_s: float = 60) -> str:
        """Real kubectl to its end; returns what it said, raises `CommandFailed` with its error."""
        return self.commands.run(*arguments, stdin=stdin, kubeconfig=kubeconfig, timeout_s=timeout_s)

    def user(self, name: str, *, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig of a new user; RBAC gives no rights until somebody binds a role."""
        return self.access.certificate_user(name, groups=groups, server=self.url)

    def service_account(self, namespace: str, name: str) -> Path:
        """A kubeconfig with a token of this service account; the namespace and the account are made if need be."""
        for kind, words in (("namespace", [namespace]), ("serviceaccount", [name, "--namespace", namespace])):
            text = self.kubectl("create", kind, *words, "--dry-run=client", "-o", "yaml")
            self.kubectl("apply", "-f", "-", stdin=text)
        token = self.kubectl("create", "token", name, "--namespace", namespace, "--duration=4h").strip()
        return self.access.token_user(f"{namespace}-{name}", token=token, server=self.url)

    def audit(self) -> list[dict[str, Any]]:
        """Every request so far, as audit Events: user.username, verb, objectRef, requestURI, responseStatus."""
        return read_audit(self.audit_log)


def read_audit(log: Path) -> list[dict[str, Any]]:
    """The events of an audit log; a line in the course of being written is left out."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]


@contextmanager
def running_apiserver(*, controllers: bool = False, aggregator_routing: bool = False) -> Iterator[ApiServer]:
    """See the module. Raises LabError with the last words of what did not come up."""
    names = ["etcd", "kube-apiserver", "kubectl", *(["kube-controller-manager"] if controllers else [])]
    programs = ensure(*names)
    base = base_folder(os.environ)
    clean_leftovers(base)
    lab = LabState.create(base)
    children: list[Child] = []
    try:
        yield _start(lab, programs, children, controllers=controllers, aggregator_routing=aggregator_routing)
    finally:
        for child in reversed(children):
            asyncio.run(child.kill())
        tear_down(lab)


def _start(
    lab: LabState, programs: dict[str, Path], children: list[Child], *, controllers: bool, aggregator_routing: bool
) -> ApiServer:
    folder = lab.bulk_folder()
    access = Access(folder=folder / "pki", names=[])
    client, peer, port = (free_port() for _ in range(3))
    options = ApiOptions(
        bind=_LOOPBACK,
        advertise=_LOOPBACK,
        port=port,
        services=_SERVICES,
        etcd_url=f"http://{_LOOPBACK}:{client}",
        audit_log=folder / "audit.log",
        audit_policy=write_audit_policy(folder / "audit-policy.yaml"),
        aggregator_routing=aggregator_routing,
    )
    url = f"https://{_LOOPBACK}:{port}"
    kubeconfig = access.certificate_user("admin", groups=[ADMINISTRATORS], server=url)

    def start(name: str, arguments: Sequence[str]) -> None:
        argv = [str(programs[name]), *arguments]
        children.append(
            spawn(register=lab, name=name, argv=argv, environment=_environment(), log=folder / f"{name}.log")
        )

    peer_url = f"http://{_LOOPBACK}:{peer}"
    start("etcd", etcd_arguments(folder=folder / "etcd", client_url=options.etcd_url, peer_url=peer_url))
    start("kube-apiserver", apiserver_arguments(options, access.files))
    wait_ready(url, ca=access.files.ca, children=children)
    if controllers:
        start("kube-controller-manager", controller_manager_arguments(kubeconfig, access.files, port=free_port()))
    return ApiServer(
        url=url,
        folder=folder,
        access=access,
        kubeconfig=kubeconfig,
        audit_log=options.audit_log,
        commands=Kubectl(program=programs["kubectl"], kubeconfig=kubeconfig, folder=folder),
    )


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}


def wait_ready(url: str, *, ca: Path, children: Sequence[Child]) -> None:
    """Until /readyz answers 200 (anybody may ask); raises LabError when a child ends or time is up."""
    context = ssl.create_default_context(cafile=str(ca))
    end = time.monotonic() + READY_S
    while not _is_ready(f"{url}/readyz", context):
        ended = next((child for child in children if not child.is_running()), None)
        if ended is not None or time.monotonic() > end:
            last = ended or children[-1]
            raise LabError(f"{last.name} (exit code {last.exit_code}): not ready\n{last.last_lines()}")
        time.sleep(0.1)


def _is_ready(url: str, context: ssl.SSLContext) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2, context=context) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
