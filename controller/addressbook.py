"""What a cluster offers beside the agents' own addresses: Services, load balancers, DNS, bodies, certificates.

Where there is no Kubernetes to ask, a JSON file says it. Families are written ``"4"`` and ``"6"``, objects
``namespace/name``. Fields left out are things that the place does not have.
"""

from __future__ import annotations

from pathlib import Path

import msgspec


class BadAddressBook(ValueError):
    """A file that is no address book; the text names the file, the field and what was expected."""


class AddressBook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Addresses of the agents' Service and of what tasks may name.

    `node_ports` are those of the families whose Service has another than `node_port`.
    `multus` is agent → interface → addresses. `secrets` are folders inside the agents that hold ca.crt, tls.crt,
    tls.key, with the keys that are there: never the keys themselves. `config_maps` are the data of bodies, `bodies` the
    folders inside the agents that hold them.
    """

    cluster_ip: dict[str, str] = {}
    service_port: int = 80
    node_port: int = 0
    node_ports: dict[str, int] = {}
    load_balancer: dict[str, str] = {}
    load_balancer_port: int = 80
    ingress_url: str = ""
    multus: dict[str, dict[str, tuple[str, ...]]] = {}
    cluster_dns: tuple[str, ...] = ()
    dns_services: dict[str, tuple[str, ...]] = {}
    config_maps: dict[str, dict[str, str]] = {}
    bodies: dict[str, str] = {}
    secrets: dict[str, SecretFiles] = {}


class SecretFiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where agents find a TLS Secret: paths inside them, empty where the Secret has no such key."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


def read_address_book(path: Path) -> AddressBook:
    """The address book of a JSON file. Raises BadAddressBook."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=AddressBook)
    except OSError as error:
        raise BadAddressBook(f"{path}: {error.strerror}, expected a readable JSON file") from error
    except msgspec.MsgspecError as error:
        raise BadAddressBook(f"{path}: {error}") from error
