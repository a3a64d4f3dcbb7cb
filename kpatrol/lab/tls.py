"""Certificates for tests and the lab: an authority made on the spot, and what it signs. ECDSA, valid for days."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID_DAYS = 30
# Clocks of the machines that look at it may be behind ours.
_BACKDATED = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate and its private key (PKCS#8, not encrypted), both PEM."""

    certificate_pem: str
    key_pem: str = field(repr=False)


class Authority:
    """A certificate authority that lives as long as this object; only its certificate ever reaches a disk."""

    def __init__(self, *, name: str, now: datetime | None = None) -> None:
        self._now = now or datetime.now(UTC)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name(name)
        key_use = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        self._certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_use, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def certificate_pem(self) -> str:
        return _pem(self._certificate)

    def server_certificate(self, *, name: str, addresses: Sequence[str] = ()) -> Certificate:
        """A certificate for a server known by `name` and `addresses` (IP addresses or host names)."""
        alternatives = x509.SubjectAlternativeName([_general_name(text) for text in (name, *addresses)])
        return self._signed(_common_name(name), use=ExtendedKeyUsageOID.SERVER_AUTH, alternatives=alternatives)

    def client_certificate(self, *, name: str, groups: Sequence[str] = ()) -> Certificate:
        """A certificate for a client: Kubernetes reads the user from its name and the groups from its organisations."""
        subject = x509.Name(
            [
                *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        return self._signed(subject, use=ExtendedKeyUsageOID.CLIENT_AUTH)

    def _signed(
        self,
        subject: x509.Name,
        *,
        use: x509.ObjectIdentifier,
        alternatives: x509.SubjectAlternativeName | None = None,
    ) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(subject, key.public_key())
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(signer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Certificate(certificate_pem=_pem(certificate), key_pem=_private(key))

    def _builder(self, subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - _BACKDATED)
            .not_valid_after(self._now + timedelta(days=_VALID_DAYS))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKeys:
    """A key pair for signing tokens, both PEM."""

    public_pem: str
    private_pem: str = field(repr=False)


def signing_keys() -> SigningKeys:
    """A new pair, ECDSA as the certificates'."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return SigningKeys(public_pem=public.decode(), private_pem=_private(key))


def _private(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
