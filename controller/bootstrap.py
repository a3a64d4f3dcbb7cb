"""``python -m controller.bootstrap``: makes the secrets of an installation inside the cluster, once.

For installations from rendered manifests, where no Helm can make them and nobody should share them. What exists is
kept; run again, it changes nothing but the authority that the APIService names. Exit codes: 0 done, 2 refused.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

PASSWORD_BYTES = 24
# Clocks of nodes differ: a certificate that begins now may not have begun for the one who reads it.
SLACK = datetime.timedelta(hours=1)
Data = Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """An argument NAME:word,word…"""

    name: str
    words: tuple[str, ...]


def named(text: str) -> Named:
    """Parse NAME:word,word…; argparse tells the error."""
    name, colon, rest = text.partition(":")
    words = tuple(word for word in rest.split(",") if word)
    if not name or not colon or not words:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected NAME:word,word…")
    return Named(name=name, words=words)


def passwords(keys: Sequence[str]) -> Data:
    """A random password for each key."""
    return {key: secrets.token_urlsafe(PASSWORD_BYTES).encode() for key in keys}


def certificate(names: Sequence[str], *, days: int, now: datetime.datetime) -> Data:
    """`tls.crt` and `tls.key` of a server of these DNS names, and `ca.crt`, its authority, whose key is dropped."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("kpatrol")
    ca = (
        _builder(subject=ca_name, issuer=ca_name, key=ca_key, days=days, now=now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    server = (
        _builder(subject=_name(names[0][:64]), issuer=ca_name, key=key, days=days, now=now)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return {
        "ca.crt": ca.public_bytes(serialization.Encoding.PEM),
        "tls.crt": server.public_bytes(serialization.Encoding.PEM),
        "tls.key": key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    *, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


class Cluster:
    """The few calls that are made: read and create a Secret, patch an APIService."""

    def __init__(self, *, api: client.ApiClient, namespace: str) -> None:
        self._core = client.CoreV1Api(api)
        self._registration = client.ApiregistrationV1Api(api)
        self._namespace = namespace

    def ensure(self, name: str, *, kind: str, make: Callable[[], Data]) -> Data:
        """The Secret's data; made if it is not there. Raises ApiException."""
        found = self._read(name)
        if found is not None:
            print(f"{name}: kept", flush=True)
            return found
        data = make()
        body = client.V1Secret(
            metadata=client.V1ObjectMeta(name=name, labels={"app.kubernetes.io/part-of": "kpatrol"}),
            type=kind,
            data={key: base64.b64encode(value).decode() for key, value in data.items()},
        )
        try:
            self._core.create_namespaced_secret(self._namespace, body)
        except ApiException as error:
            again = self._read(name) if error.status == 409 else None
            if again is None:
                raise
            return again
        print(f"{name}: made", flush=True)
        return data

    def _read(self, name: str) -> Data | None:
        try:
            found = self._core.read_namespaced_secret(name, self._namespace)
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return {key: base64.b64decode(value) for key, value in (found.data or {}).items()}

    def trust(self, api_service: str, authority: bytes) -> None:
        """Tell the API server which authority signs the APIService's server. Raises ApiException."""
        bundle = base64.b64encode(authority).decode()
        self._registration.patch_api_service(api_service, {"spec": {"caBundle": bundle}})
        print(f"{api_service}: authority told", flush=True)


def run(options: argparse.Namespace, *, cluster: Cluster, now: datetime.datetime) -> None:
    """Make what is missing. Raises ApiException; ValueError when a kept Secret lacks its authority."""
    for item in options.passwords:
        cluster.ensure(item.name, kind="Opaque", make=partial(passwords, item.words))
    made: dict[str, Data] = {}
    for item in options.certificate:
        made[item.name] = cluster.ensure(
            item.name,
            kind="kubernetes.io/tls",
            make=partial(certificate, item.words, days=options.days, now=now),
        )
    for item in options.api_service:
        authority = made.get(item.words[0], {}).get("ca.crt")
        if not authority:
            raise ValueError(f"Secret {item.words[0]}: has no ca.crt; delete it to have it made anew")
        cluster.trust(item.name, authority)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; ends the process with 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m controller.bootstrap", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--passwords", type=named, action="append", default=[], metavar="SECRET:KEY,KEY")
    parser.add_argument("--certificate", type=named, action="append", default=[], metavar="SECRET:DNSNAME,DNSNAME")
    parser.add_argument("--api-service", type=named, action="append", default=[], metavar="APISERVICE:SECRET")
    parser.add_argument("--days", type=int, default=3650, help="how long certificates are good (default %(default)s)")
    return parser.parse_args(arguments)


def _connect() -> None:
    """As the pod's account; outside of a cluster as KUBECONFIG says. Raises ConfigException."""
    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()


def main(arguments: Sequence[str], env: Mapping[str, str]) -> int:
    """The process; see the module's docstring for the exit codes."""
    options = parse(arguments)
    try:
        _connect()
        cluster = Cluster(api=client.ApiClient(), namespace=env.get("KPATROL_NAMESPACE", "kpatrol"))
        run(options, cluster=cluster, now=datetime.datetime.now(datetime.UTC))
    except (ApiException, ValueError, OSError, config.ConfigException) as error:
        reason = f"{error.status} {error.reason}: {error.body}" if isinstance(error, ApiException) else error
        print(f"controller.bootstrap: {reason}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
