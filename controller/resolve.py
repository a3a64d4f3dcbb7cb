"""From a task and what the place offers to the targets of a round. Pure; what cannot be found is listed."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

import msgspec

from controller.addressbook import AddressBook, SecretFiles
from controller.tasks import AppHttpHealthy, HttpTarget, Netdns, NetPatrol, NetReach, NetReachTarget, Task
from controller.tasks.apphttphealthy import split_header
from controller.tasks.netdns import DNS_PORT
from topics.mesh_members import Member
from topics.outcome import Layer, Proto
from topics.task_rounds import FULL_SIZE, DnsRequest, HttpRequest, Mesh, Target

CLUSTER_DNS = "the cluster's DNS"
_PATH_SAFE = "/%:=&?~+!$,;'@()*[]"
_PROTOS = {"icmp": Proto.icmp, "udp": Proto.udp, "tcp": Proto.tcp, "http": Proto.http}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a round sends and where to. ``unresolved`` names each thing the task asked for that is not there."""

    mesh: Mesh | None = None
    targets: tuple[Target, ...] = ()
    http: HttpRequest | None = None
    dns: DnsRequest | None = None
    unresolved: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class _Found:
    targets: list[Target] = field(default_factory=list)
    unresolved: list[str] = field(default_factory=list)


def resolve(task: Task, *, members: tuple[Member, ...], book: AddressBook) -> Resolved:
    """The targets of a round of the task among these members."""
    match task:
        case NetReach():
            return _net_reach(task.spec.target, members, book)
        case AppHttpHealthy():
            return _url(task.spec.target, book)
        case Netdns():
            return _dns(task, book)
        case NetPatrol():
            return _patrol(task, members)


def _net_reach(target: NetReachTarget, members: tuple[Member, ...], book: AddressBook) -> Resolved:
    found = _Found()
    families = _families(ipv4=target.ipv4, ipv6=target.ipv6)
    mesh = Mesh(protos=(Proto.http,), families=families) if target.endpoint else None
    if target.endpoint:
        found.unresolved += _members_without_address(members, families)
    if target.multus_interface:
        _multus(members, families, book, found)
    for family in families:
        if target.cluster_ip:
            _service(book.cluster_ip, family, "AgentClusterV", Layer.cluster_ip, book.service_port, found)
        if target.node_port:
            _node_port(members, family, book.node_ports.get(str(family), book.node_port), found)
        if target.load_balancer:
            _service(
                book.load_balancer, family, "AgentLoadbalancerV", Layer.load_balancer, book.load_balancer_port, found
            )
    if target.ingress:
        _ingress(book.ingress_url, found)
    return Resolved(
        mesh=mesh,
        targets=tuple(found.targets),
        http=HttpRequest(),
        unresolved=tuple(found.unresolved),
    )


def _families(*, ipv4: bool, ipv6: bool) -> tuple[int, ...]:
    return tuple(family for family, wanted in ((4, ipv4), (6, ipv6)) if wanted)


def _members_without_address(members: tuple[Member, ...], families: tuple[int, ...]) -> list[str]:
    return [
        f"IPv{family} address of agent {member.agent}"
        for member in members
        for family in families
        if not member.address(family)
    ]


def _service(addresses: dict[str, str], family: int, name: str, layer: Layer, port: int, found: _Found) -> None:
    address = addresses.get(str(family), "")
    short = layer.name.replace("_", "-")
    if not address:
        found.unresolved.append(f"IPv{family} {short} address of the agents' Service")
        return
    found.targets.append(
        Target(
            name=f"{name}{family}IP_{_host_port(address, port)}",
            dst=_with_family(short, family),
            proto=Proto.http,
            layer=layer,
            address=address,
            port=port,
            family=family,
        )
    )


def _node_port(members: tuple[Member, ...], family: int, port: int, found: _Found) -> None:
    if not port:
        found.unresolved.append(f"IPv{family} node port of the agents' Service")
        return
    without = [m.node for m in members if not (m.node_ipv6 if family == 6 else m.node_ipv4)]
    found.unresolved += [f"IPv{family} address of node {node}" for node in without]
    if without:
        # Every agent asks through its own node: with one address missing the target would be empty for that agent.
        return
    found.targets.append(
        Target(
            name=f"AgentNodePortV{family}IP_{{node}}_{port}",
            dst=_with_family("node-port", family),
            proto=Proto.http,
            layer=Layer.node_port,
            address="",
            port=port,
            family=family,
            own_node=True,
        )
    )


def _multus(members: tuple[Member, ...], families: tuple[int, ...], book: AddressBook, found: _Found) -> None:
    for member in members:
        for interface, address in _extra_addresses(book, member):
            family = ipaddress.ip_address(address).version
            if family in families:
                found.targets.append(_multus_target(member, interface, address, family))
        if not book.multus.get(member.agent):
            found.unresolved.append(f"further interface of agent {member.agent}")


def _extra_addresses(book: AddressBook, member: Member) -> Iterator[tuple[str, str]]:
    for interface, addresses in sorted(book.multus.get(member.agent, {}).items()):
        for address in addresses:
            yield interface, address


def _multus_target(member: Member, interface: str, address: str, family: int) -> Target:
    return Target(
        name=f"AgentPodV{family}IP_{member.pod or member.agent}_{address}",
        dst=f"{member.node}/{interface}",
        proto=Proto.http,
        layer=Layer.multus,
        address=address,
        port=member.http_port,
        family=family,
        agent=member.agent,
        dst_node=member.node,
        dst_zone=member.zone,
        dst_rack=member.rack,
    )


def _ingress(url: str, found: _Found) -> None:
    """Adds the Ingress, under the path of its rule."""
    if not url:
        found.unresolved.append("address of the agents' Ingress")
        return
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    host = parts.hostname or ""
    found.targets.append(
        Target(
            name=f"AgentIngress_v4_{url}",
            dst="ingress",
            proto=Proto.https if tls else Proto.http,
            layer=Layer.ingress,
            address=host,
            port=parts.port or (443 if tls else 80),
            family=_family_of(host),
            url_path=parts.path or "/",
        )
    )


def _url(target: HttpTarget, book: AddressBook) -> Resolved:
    parts = urlsplit(target.url)
    tls = parts.scheme == "https"
    host = parts.hostname or ""
    port = parts.port or (443 if tls else 80)
    unresolved: list[str] = []
    body, folder = _body(target, book, unresolved)
    files = _secret(target, book, unresolved) if tls else SecretFiles()
    path = quote(parts.path or "/", safe=_PATH_SAFE)
    request = HttpRequest(
        method=target.method,
        host_header=parts.netloc,
        url_path=f"{path}?{quote(parts.query, safe=_PATH_SAFE)}" if parts.query else path,
        headers=tuple(": ".join(split_header(item)) for item in target.header),
        body=body,
        body_folder=folder,
        http2=target.http2 and tls,
        tls=tls,
        # Without an authority of its own the certificate is not checked, as users of kdoctor are used to.
        verify=bool(files.ca_file),
        server_name=host.removesuffix(".") if tls else "",
        ca_file=files.ca_file,
        cert_file=files.cert_file,
        key_file=files.key_file,
        new_connection=target.new_connection,
    )
    whole = Target(
        name="HttpAppHealthy target",
        dst=_host_port(host, port),
        proto=Proto.https if tls else Proto.http,
        layer=Layer.url,
        address=host,
        port=port,
        family=_family_of(host),
    )
    return Resolved(targets=(whole,), http=request, unresolved=tuple(unresolved))


def _body(target: HttpTarget, book: AddressBook, unresolved: list[str]) -> tuple[str, str]:
    """The body, or the folder where its agents find it."""
    if not target.body_configmap_name:
        return "", ""
    key = f"{target.body_configmap_namespace}/{target.body_configmap_name}"
    if key in book.bodies:
        return "", book.bodies[key]
    if key not in book.config_maps:
        unresolved.append(f"ConfigMap {key}")
        return "", ""
    return json.dumps(book.config_maps[key], sort_keys=True, separators=(",", ":")), ""


def _secret(target: HttpTarget, book: AddressBook, unresolved: list[str]) -> SecretFiles:
    if not target.tls_secret_name:
        return SecretFiles()
    key = f"{target.tls_secret_namespace}/{target.tls_secret_name}"
    if key not in book.secrets:
        unresolved.append(f"Secret {key}")
    return book.secrets.get(key, SecretFiles())


def _dns(task: Netdns, book: AddressBook) -> Resolved:
    request = task.spec.request
    servers, unresolved = _servers(task, book)
    targets: list[Target] = []
    for address, port in servers:
        if request.race:
            first = _dns_target(address, port, request.domain, "A")
            second = _dns_target(address, port, request.domain, "AAAA")
            targets += [first, msgspec.structs.replace(second, together=True)]
        else:
            # The question is that of the server's own family.
            record_type = "AAAA" if _family_of(address) == 6 else "A"
            targets.append(_dns_target(address, port, request.domain, record_type))
    dns = DnsRequest(
        domain=request.domain,
        protocol=request.protocol,
        attempts=request.attempts,
        tcp_fallback=request.tcp_fallback,
        race=request.race,
    )
    return Resolved(targets=tuple(targets), dns=dns, unresolved=tuple(unresolved))


def _servers(task: Netdns, book: AddressBook) -> tuple[list[tuple[str, int]], list[str]]:
    """(address, port) of each server, and what was not found."""
    target = task.spec.target
    if target.user is not None:
        return [(target.user.server, target.user.port)], []
    named = target.dns.service_name if target.dns is not None else None
    if target.dns is not None and named:
        what = f"Service {target.dns.service_namespace}/{named}"
        addresses = book.dns_services.get(f"{target.dns.service_namespace}/{named}", ())
    else:
        what, addresses = CLUSTER_DNS, book.cluster_dns
    ipv4 = target.dns.test_ipv4 if target.dns is not None else True
    ipv6 = target.dns.test_ipv6 if target.dns is not None else False
    families = _families(ipv4=ipv4, ipv6=ipv6)
    missing = [f"IPv{f} address of {what}" for f in families if not any(_family_of(a) == f for a in addresses)]
    return [(address, DNS_PORT) for address in addresses if _family_of(address) in families], missing


def _dns_target(address: str, port: int, domain: str, record_type: str) -> Target:
    where = _host_port(address, port)
    return Target(
        name=f"type{record_type}_{where}_{domain}",
        dst=where,
        proto=Proto.dns,
        layer=Layer.dns,
        address=address,
        port=port,
        family=_family_of(address),
        record_type=record_type,
    )


def _patrol(task: NetPatrol, members: tuple[Member, ...]) -> Resolved:
    spec = task.spec
    families = _families(ipv4=spec.ipv4, ipv6=spec.ipv6)
    mesh = Mesh(
        protos=tuple(_PROTOS[name] for name in spec.protocols),
        families=families,
        degree=spec.degree,
        sizes=spec.sizes_bytes + (FULL_SIZE,) * spec.full_size,
        source_ports=spec.source_ports,
        dscp=spec.dscp,
    )
    http = HttpRequest() if "http" in spec.protocols else None
    return Resolved(mesh=mesh, http=http, unresolved=tuple(_members_without_address(members, families)))


def _family_of(host: str) -> int:
    """6 for an IPv6 address, 4 for anything else: a name is looked up as IPv4."""
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return 4


def _with_family(name: str, family: int) -> str:
    return f"{name}-v6" if family == 6 else name


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
