"""What a check is told: a YAML file (`kpatrol check init` writes one), NetDoctor's config.json, options on top.

Errors name the file, the field, what was found and what is allowed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import yaml

from kpatrol.check import netdoctor
from kpatrol.check.mesh import PROTOCOLS, Asked
from kpatrol.check.netdoctor import BadConfig

Mode = Literal["pod", "node", "node-to-pod", "pod-to-node"]
DEFAULT_FILE = Path("kpatrol-check.yaml")
NAMESPACE = "kpatrol-check"
_LABEL = re.compile(r"^[a-z0-9A-Z./_-]+$")


class Dns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The DNS question: an empty server is the cluster's own DNS Service."""

    server: str = ""
    name: str = "kubernetes.default.svc.cluster.local"


class CheckConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """All that can be set; the names are those of the file."""

    kubeconfig: str = ""
    context: str = ""
    peer_kubeconfig: str = ""
    peer_context: str = ""
    namespace: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")] = NAMESPACE
    image: str = ""
    peer_image: str = ""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secret: str = ""
    mode: Mode = "pod"
    protocols: tuple[Literal["icmp", "tcp", "udp", "http", "dns"], ...] = ("icmp", "tcp", "udp", "http", "dns")
    families: tuple[Literal[4, 6], ...] = (4,)
    requests: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 10
    rate: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 5.0
    timeout_ms: Annotated[int, msgspec.Meta(ge=10, le=60_000)] = 3000
    degree: Annotated[int, msgspec.Meta(ge=0)] = 0
    wave: Annotated[int, msgspec.Meta(ge=0)] = 25
    wait_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 60
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=2000)] = 100
    exclude_labels: tuple[str, ...] = ("kpatrol.io/exclude", "kosmos.io/exclude")
    dns: Dns = Dns()
    addresses: tuple[str, ...] = ()
    ports: tuple[Annotated[int, msgspec.Meta(ge=1, le=65535)], ...] = ()
    address_protocol: Literal["tcp", "udp", "http"] = "tcp"
    map: Mapping[str, str] = {}
    peer_map: Mapping[str, str] = {}
    keep: bool = False

    def asked(self) -> Asked:
        """What is sent."""
        return Asked(
            protocols=self.protocols,
            requests=self.requests,
            rate=self.rate,
            timeout_ms=self.timeout_ms,
            degree=self.degree,
            wave=self.wave,
            families=self.families,
            dns_name=self.dns.name,
            addresses=tuple((address, port) for address in self.addresses for port in self.ports),
            custom_proto=self.address_protocol,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A configuration and what its reader should be told of it."""

    config: CheckConfig
    notes: tuple[str, ...] = ()


def read(path: Path, *, overrides: Mapping[str, Any]) -> Read:
    """The file's settings with the options on top. A missing DEFAULT_FILE means defaults. Raises BadConfig."""
    settings, notes = _settings(path)
    return Read(config=_checked({**settings, **overrides}, where=str(path)), notes=notes)


def _settings(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    if path == DEFAULT_FILE and not path.exists():
        return {}, ()
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror}") from error
    except (ValueError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        kind = "JSON" if path.suffix == ".json" else "YAML"
        raise BadConfig(f"{path}: not {kind}: {first}") from error
    if found is None:
        return {}, ()
    if not isinstance(found, dict):
        raise BadConfig(f"{path}: found {type(found).__name__}, expected a mapping of settings")
    if path.suffix == ".json" and netdoctor.KEYS & found.keys():
        return netdoctor.translate(found, where=str(path))
    return found, ()


def _checked(settings: Mapping[str, Any], *, where: str) -> CheckConfig:
    try:
        config = msgspec.convert(dict(settings), CheckConfig, strict=False)
    except msgspec.ValidationError as error:
        raise BadConfig(f"{where}: {_words(error)}") from error
    for field, found, allowed in _faults(config):
        raise BadConfig(f"{where}: {field}: found {found!r}, allowed: {allowed}")
    return config


def _words(error: msgspec.ValidationError) -> str:
    text = str(error)
    found = re.search(r"^(.*?) - at `\$\.?([^`]*)`$", text)
    if found:
        allowed = _literals(get_type_hints(CheckConfig).get(_snake(found[2].split("[")[0])))
        return f"{found[2]}: {found[1]}" + (f", allowed: {', '.join(map(str, allowed))}" if allowed else "")
    unknown = re.search(r"unknown field `([^`]+)`", text)
    if unknown:
        names = ", ".join(f.encode_name for f in msgspec.structs.fields(CheckConfig))
        return f"{unknown[1]}: no such setting, allowed: {names}"
    return text


def _snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda upper: f"_{upper[1].lower()}", name)


def _literals(kind: Any) -> list[Any]:
    """The values of a Literal, also of one inside a tuple; none for other types."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [value for inner in get_args(kind) for value in _literals(inner)]


def _faults(config: CheckConfig) -> list[tuple[str, Any, str]]:
    faults: list[tuple[str, Any, str]] = []
    if not config.protocols and not config.addresses:
        faults.append(("protocols", list(config.protocols), f"at least one of {', '.join(PROTOCOLS)}"))
    if not config.families:
        faults.append(("families", [], "4, 6, or both"))
    if bool(config.addresses) != bool(config.ports):
        faults.append(("ports" if config.addresses else "addresses", [], "both addresses and ports, or neither"))
    faults += [("addresses", text, "IP addresses") for text in config.addresses if not _is_address(text)]
    for name, mapped in (("map", config.map), ("peerMap", config.peer_map)):
        faults += [(name, *fault) for key, value in mapped.items() for fault in _mapping_faults(key, value)]
    if config.dns.server and not _is_address(config.dns.server):
        faults.append(("dns.server", config.dns.server, "an IP address, or nothing for the cluster's own"))
    faults += [("excludeLabels", t, "label names") for t in config.exclude_labels if not _LABEL.match(t)]
    for name, mapped in (("map", config.map), ("peerMap", config.peer_map)):
        if mapped and not config.peer_kubeconfig:
            faults.append((name, dict(mapped), "only with peerKubeconfig"))
    return faults


def _mapping_faults(key: str, value: str) -> list[tuple[Any, str]]:
    """A node has an address; a network has another of its size."""
    if "/" not in key:
        return [] if _is_address(value) else [(value, "IP addresses")]
    try:
        same = (
            ip_network(key).prefixlen == ip_network(value).prefixlen
            and ip_network(key).version == ip_network(value).version
        )
    except ValueError as error:
        return [(f"{key}: {value}", f"a network and another of its size ({error})")]
    return [] if same else [(f"{key}: {value}", "a network and another of its size")]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


TEMPLATE = """\
# A check of one cluster, or between two: kpatrol check --config {file}
# Every line is a default; what stands behind # in a line says what NetDoctor's config.json calls it.
kubeconfig: ""            # srcKubeConfig; empty: KUBECONFIG, then ~/.kube/config
context: ""
peerKubeconfig: ""        # dstKubeConfig; set: between two clusters, there and back
peerContext: ""
namespace: kpatrol-check  # namespace; made, and removed afterwards unless it was there
image: ""                 # srcImageRepository, version; empty: this version's own
peerImage: ""             # dstImageRepository; empty: as image
imagePullPolicy: IfNotPresent
imagePullSecret: ""
mode: pod                 # mode: pod, node, node-to-pod, pod-to-node
protocols: [icmp, tcp, udp, http, dns]  # protocol
families: [4]             # 4, 6, or both
requests: 10              # of each node to each other, by each protocol
rate: 5                   # requests a second of each node to each other
timeoutMs: 3000           # cmdTimeout, in seconds there
degree: 0                 # 0: every node to every other; k: each to k others
wave: 25                  # how many others each node asks at one time; 0: all
waitS: 60                 # podWaitTime: how long agents may take to be ready
concurrency: 100          # maxNum: nodes attached to at one time
excludeLabels: [kpatrol.io/exclude, kosmos.io/exclude]  # nodes that carry one are left out
dns: {{server: "", name: kubernetes.default.svc.cluster.local}}  # targetDNSServer, targetHostToLookup
addresses: []             # customizedTargetIPList: asked by every node, each port
ports: []                 # customizedTargetPortList
addressProtocol: tcp      # tcp, udp, http
map: {{}}                   # node: address by which the other cluster reaches it; or network: network, host for host
peerMap: {{}}               # the same for the other cluster's nodes
keep: false               # autoClean, the other way round: leave the agents in the cluster
"""


def init(path: Path, *, force: bool) -> None:
    """Write the commented file. Raises BadConfig where it is there already and not to be overwritten."""
    if path.exists() and not force:
        raise BadConfig(f"{path}: is there already; say --force to overwrite it")
    try:
        path.write_text(TEMPLATE.format(file=path), encoding="utf-8")
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror}") from error
