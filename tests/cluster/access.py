"""Who may speak to the API server under test: its authorities, its own certificates, and kubeconfig files for users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from kpatrol.lab.tls import Authority, Certificate, signing_keys

# The name that the aggregation layer's own client certificate carries.
FRONT_PROXY_NAME = "front-proxy-client"
ADMINISTRATORS = "system:masters"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessFiles:
    """The files that kube-apiserver and kube-controller-manager are pointed at; all PEM, below one folder."""

    ca: Path
    serving: Path
    serving_key: Path
    front_proxy_ca: Path
    front_proxy: Path
    front_proxy_key: Path
    service_accounts: Path
    service_accounts_key: Path
    kubelet_client: Path
    kubelet_client_key: Path


class Access:
    """The authorities of one cluster. `names` are the API server's own names and addresses besides the usual."""

    def __init__(self, *, folder: Path, names: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._authority = Authority(name="kubernetes-ca")
        front_proxy = Authority(name="front-proxy-ca")
        keys = signing_keys()
        usual = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1"]
        serving = self._authority.server_certificate(name="kube-apiserver", addresses=[*usual, *names])
        proxy = front_proxy.client_certificate(name=FRONT_PROXY_NAME)
        kubelet = self._authority.client_certificate(name="kube-apiserver-kubelet-client", groups=[ADMINISTRATORS])
        self.files = AccessFiles(
            ca=self._write("ca.crt", self._authority.certificate_pem),
            serving=self._write("apiserver.crt", serving.certificate_pem),
            serving_key=self._write("apiserver.key", serving.key_pem),
            front_proxy_ca=self._write("front-proxy-ca.crt", front_proxy.certificate_pem),
            front_proxy=self._write("front-proxy.crt", proxy.certificate_pem),
            front_proxy_key=self._write("front-proxy.key", proxy.key_pem),
            service_accounts=self._write("service-accounts.pub", keys.public_pem),
            service_accounts_key=self._write("service-accounts.key", keys.private_pem),
            kubelet_client=self._write("kubelet-client.crt", kubelet.certificate_pem),
            kubelet_client_key=self._write("kubelet-client.key", kubelet.key_pem),
        )

    def _write(self, name: str, text: str) -> Path:
        path = self._folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def server_certificate(self, *, name: str, addresses: Sequence[str] = ()) -> Certificate:
        """For another server that the cluster's authority vouches for."""
        return self._authority.server_certificate(name=name, addresses=addresses)

    def certificate_user(self, name: str, *, groups: Sequence[str], server: str) -> Path:
        """A kubeconfig file for a user known by a client certificate."""
        certificate = self._authority.client_certificate(name=name, groups=groups)
        crt = self._write(f"user-{_as_file(name)}.crt", certificate.certificate_pem)
        key = self._write(f"user-{_as_file(name)}.key", certificate.key_pem)
        return self._kubeconfig(name, server, {"client-certificate": str(crt), "client-key": str(key)})

    def token_user(self, name: str, *, token: str, server: str) -> Path:
        """A kubeconfig file for somebody known by a token."""
        return self._kubeconfig(name, server, {"token": token})

    def _kubeconfig(self, name: str, server: str, user: dict[str, str]) -> Path:
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": str(self.files.ca)}}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
        }
        return self._write(f"{_as_file(name)}.kubeconfig", yaml.safe_dump(document))


def _as_file(name: str) -> str:
    return name.replace(":", "-").replace("/", "-")
