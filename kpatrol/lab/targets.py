"""The lab's own targets beside the agents: a web server and a DNS server, each on a node of its own.

Their service addresses are the same in every lab, so a task file can name them: 10.203.0.80 (`web.lab`) and
10.203.0.53 (the cluster's DNS). The agents' own service is 10.203.0.1, its node port 30080.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controller.addressbook import AddressBook, SecretFiles
from kpatrol.lab.commands import find_program, require_programs
from kpatrol.lab.dns_target import configuration
from kpatrol.lab.netplan import Mode, Node, NodeSpec, service_address, service_address6
from kpatrol.lab.services import Service as ServiceAddress
from kpatrol.lab.supervisor import Service
from kpatrol.lab.tls import Authority, Certificate

AGENTS_NUMBER, DNS_NUMBER, WEB_NUMBER = 1, 53, 80
NODE_PORT = 30080
WEB, DNS = "web", "dns"
WEB_NAME = "web.lab"
HTTPS_PORT, WRONG_NAME_PORT, DOT_PORT = 443, 8443, 853


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Files of the lab's certificate authority and of the two web certificates."""

    ca: Path
    web: Path
    wrong_name: Path


def make_certificates(folder: Path) -> Certificates:
    """A fresh authority, a certificate for the web and DNS targets, and one for a name nobody asks for."""
    authority = Authority(name="kpatrol lab")
    made = Certificates(ca=folder / "ca.crt", web=folder / "web.pem", wrong_name=folder / "wrong-name.pem")
    made.ca.write_text(authority.certificate_pem)
    addresses = ["dns.lab", str(service_address(WEB_NUMBER)), str(service_address(DNS_NUMBER))]
    _write_pem(made.web, authority.server_certificate(name=WEB_NAME, addresses=addresses))
    _write_pem(made.wrong_name, authority.server_certificate(name="another.lab"))
    return made


def _write_pem(path: Path, certificate: Certificate) -> None:
    path.touch(mode=0o600)
    path.write_text(certificate.key_pem + certificate.certificate_pem)


_NEEDS = ((WEB, "AppHttpHealthy"), (DNS, "Netdns"), (DNS, "AppHttpHealthy"))


def need_dns(kinds: set[str]) -> bool:
    """Whether a task of these kinds asks the lab's DNS server."""
    return any(name == DNS and kind in kinds for name, kind in _NEEDS)


def target_specs(kinds: set[str], *, everything: bool = False) -> list[NodeSpec]:
    """The target nodes that tasks of these kinds need, or all there can be."""
    names = dict.fromkeys(name for name, kind in _NEEDS if everything or kind in kinds)
    return [NodeSpec(name=name, zone="targets") for name in names]


def service_addresses(*, agents: list[Node], targets: list[Node], port: int) -> list[ServiceAddress]:
    """What nftables makes reachable from every node."""
    members = tuple(node.name for node in agents)
    services = [
        ServiceAddress(
            name="agents",
            kind="clusterip",
            port=80,
            target_port=port,
            members=members,
            address=str(service_address(AGENTS_NUMBER)),
            address6=str(service_address6(AGENTS_NUMBER)),
        ),
        ServiceAddress(name="agents", kind="nodeport", port=NODE_PORT, target_port=port, members=members),
    ]
    for node in targets:
        services += _target_services(node)
    return services


def _target_services(node: Node) -> list[ServiceAddress]:
    if node.name == WEB:
        address, ports = service_address(WEB_NUMBER), [("tcp", 80), ("tcp", HTTPS_PORT), ("tcp", WRONG_NAME_PORT)]
    else:
        address, ports = service_address(DNS_NUMBER), [("udp", 53), ("tcp", 53), ("tcp", DOT_PORT)]
    return [
        ServiceAddress(
            name=f"{node.name}-{protocol}-{port}",
            kind="clusterip",
            port=port,
            target_port=port,
            members=(node.name,),
            protocol="udp" if protocol == "udp" else "tcp",
            address=str(address),
        )
        for protocol, port in ports
    ]


def address_book(*, targets: list[Node], certificates: Certificates | None, mode: Mode) -> AddressBook:
    """What the controller is told that this place has; on shared loopback there are no service addresses."""
    if mode == "loopback":
        return AddressBook()
    names = {node.name for node in targets}
    dns = (str(service_address(DNS_NUMBER)),) if DNS in names else ()
    secrets = {"lab/web-ca": SecretFiles(ca_file=str(certificates.ca))} if certificates else {}
    return AddressBook(
        cluster_ip={"4": str(service_address(AGENTS_NUMBER)), "6": str(service_address6(AGENTS_NUMBER))},
        node_port=NODE_PORT,
        cluster_dns=dns,
        dns_services={"kube-system/kube-dns": dns} if dns else {},
        config_maps={"lab/body": {"hello": "kpatrol"}},
        secrets=secrets,
    )


def names_of(targets: list[Node]) -> dict[str, str]:
    """Fully qualified names of the lab, for its DNS server and its hosts file."""
    known = {node.name for node in targets}
    names = {"agents.lab": str(service_address(AGENTS_NUMBER))}
    if WEB in known:
        names[WEB_NAME] = str(service_address(WEB_NUMBER))
    if DNS in known:
        names["dns.lab"] = str(service_address(DNS_NUMBER))
        names["kubernetes.default.svc.cluster.local"] = str(service_address(AGENTS_NUMBER))
    return names


def target_service(
    node: Node, *, folder: Path, certificates: Certificates, names: dict[str, str], prefix: list[str]
) -> Service:
    """The process on a target's node."""
    if node.name == WEB:
        ports = [f"{HTTPS_PORT}={certificates.web}", f"{WRONG_NAME_PORT}={certificates.wrong_name}"]
        https = [word for port in ports for word in ("--https", port)]
        return Service(
            name="target-web",
            module="kpatrol.lab.web_target",
            arguments=("--address", node.address, *https),
            prefix=tuple(prefix),
        )
    require_programs("unbound")
    path = folder / "unbound.conf"
    path.write_text(configuration(address=node.address, names=names, folder=folder, tls=certificates.web))
    program = find_program("unbound") or "unbound"
    return Service(name="target-dns", program=(program, "-d", "-c", str(path)), prefix=tuple(prefix))
