"""The commands of the control plane's programs, and what their files say. Pure, apart from writing those files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster.access import FRONT_PROXY_NAME, AccessFiles

# Who did what to which object, once per request: enough to compare the rights given with the calls made.
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiOptions:
    """Where an API server listens and what it answers for. `bind` is the address; services are CIDR ranges."""

    bind: str
    advertise: str
    port: int
    services: str
    etcd_url: str
    audit_log: Path
    audit_policy: Path
    # Off: an APIService may point at a Service of type ExternalName (`localhost`), which needs no nodes.
    # On: the API server goes to the addresses in the Service's EndpointSlices, as it must where pods answer.
    aggregator_routing: bool


def write_audit_policy(path: Path) -> Path:
    path.write_text(yaml.safe_dump(_AUDIT_POLICY))
    return path


def etcd_arguments(*, folder: Path, client_url: str, peer_url: str) -> list[str]:
    """A single etcd that forgets its data with its folder, so nothing is synced to the disk."""
    return [
        f"--data-dir={folder}",
        f"--listen-client-urls={client_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def apiserver_arguments(options: ApiOptions, files: AccessFiles) -> list[str]:
    """kube-apiserver with RBAC, client certificates, the aggregation layer and an audit log."""
    return [
        f"--etcd-servers={options.etcd_url}",
        f"--bind-address={options.bind}",
        f"--advertise-address={options.advertise}",
        f"--secure-port={options.port}",
        f"--service-cluster-ip-range={options.services}",
        f"--client-ca-file={files.ca}",
        f"--tls-cert-file={files.serving}",
        f"--tls-private-key-file={files.serving_key}",
        "--authorization-mode=Node,RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={files.service_accounts}",
        f"--service-account-signing-key-file={files.service_accounts_key}",
        f"--requestheader-client-ca-file={files.front_proxy_ca}",
        f"--requestheader-allowed-names={FRONT_PROXY_NAME}",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={files.front_proxy}",
        f"--proxy-client-key-file={files.front_proxy_key}",
        f"--enable-aggregator-routing={'true' if options.aggregator_routing else 'false'}",
        f"--kubelet-client-certificate={files.kubelet_client}",
        f"--kubelet-client-key={files.kubelet_client_key}",
        "--kubelet-preferred-address-types=InternalIP",
        "--allow-privileged=true",
        f"--audit-log-path={options.audit_log}",
        f"--audit-policy-file={options.audit_policy}",
        "--audit-log-mode=blocking",
        "--profiling=false",
    ]


def controller_manager_arguments(kubeconfig: Path, files: AccessFiles, *, port: int) -> list[str]:
    """kube-controller-manager, one of a kind."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--service-account-private-key-file={files.service_accounts_key}",
        f"--root-ca-file={files.ca}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        # A node that is silent for this long is NotReady; tests do not wait for the usual 50 s.
        "--node-monitor-grace-period=20s",
        "--node-monitor-period=2s",
    ]


def scheduler_arguments(kubeconfig: Path) -> list[str]:
    """kube-scheduler, one of a kind."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    ]
