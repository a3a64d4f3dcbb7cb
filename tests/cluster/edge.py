"""What a cloud gives a cluster: addresses for Services of type LoadBalancer, and an ingress controller (nginx).

    with running_cluster(nodes=3) as cluster, edge(cluster):
        ...     # Services of type LoadBalancer get an address, Ingresses are served at `cluster.edge_address`

kube-proxy serves the addresses on every node. nginx runs beside the control plane on the pods' network and goes to the
pods behind a Service's EndpointSlices, as ingress controllers do.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from kpatrol.lab.commands import find_program
from kpatrol.lab.errors import MissingProgram
from kpatrol.lab.netns import enter
from kpatrol.lab.processes import Child
from tests.cluster.cluster import CONTROL, Cluster
from tests.cluster.nodefiles import LOAD_BALANCERS, LOAD_BALANCERS6

_POLL_S = 1.0
_NETWORKS: Mapping[str, Any] = {"IPv4": LOAD_BALANCERS, "IPv6": LOAD_BALANCERS6}
Object = Mapping[str, Any]


def next_addresses(service: Object, *, taken: set[str]) -> list[str]:
    """A free address for each of the Service's families."""
    found = []
    for family in service["spec"].get("ipFamilies", ["IPv4"]):
        network = _NETWORKS[family]
        address = next(a for n in range(10, 250) if (a := str(network[n])) not in taken)
        taken.add(address)
        found.append(address)
    return found


def nginx_config(
    *,
    ingresses: Sequence[Object],
    services: Sequence[Object],
    slices: Sequence[Object],
    addresses: Sequence[str],
    folder: Path,
) -> str:
    """nginx's whole configuration: one server for each host (`_` for rules without), one location for each path."""
    hosts: dict[str, list[str]] = {}
    groups: list[str] = []
    for ingress in ingresses:
        for rule in ingress["spec"].get("rules", []):
            for path in rule.get("http", {}).get("paths", []):
                backends = _backends(ingress["metadata"]["namespace"], path["backend"]["service"], services, slices)
                if backends:
                    groups.append("".join(f" server {backend};" for backend in backends))
                answer = f"proxy_pass http://group{len(groups) - 1};" if backends else "return 503;"
                match = f"= {path['path']}" if path["pathType"] == "Exact" else path.get("path", "/")
                hosts.setdefault(rule.get("host", "_"), []).append(f"location {match} {{ {answer} }}")
    # Who asks for a host that nobody has named.
    hosts.setdefault("_", ["location / { return 404; }"])
    upstreams = "\n".join(f"  upstream group{number} {{{servers} }}" for number, servers in enumerate(groups))
    servers = "\n".join(_server(host, locations, addresses) for host, locations in sorted(hosts.items()))
    return f"""daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  proxy_http_version 1.1;
  proxy_next_upstream off;
{upstreams}
{servers}
}}
"""


def _server(host: str, locations: Sequence[str], addresses: Sequence[str]) -> str:
    default = " default_server" if host == "_" else ""
    listens = "".join(f"listen {_host(address)}:80{default}; " for address in addresses)
    return f"  server {{ {listens}server_name {host};\n    {' '.join(locations)}\n  }}"


def _backends(namespace: str, named: Object, services: Sequence[Object], slices: Sequence[Object]) -> list[str]:
    port_name = _port_name(namespace, named, services)
    found = []
    for piece in slices:
        meta = piece["metadata"]
        if meta["namespace"] != namespace or meta.get("labels", {}).get("kubernetes.io/service-name") != named["name"]:
            continue
        ports = [p["port"] for p in piece.get("ports") or [] if p.get("name") == port_name]
        ready = [e for e in piece.get("endpoints") or [] if e.get("conditions", {}).get("ready")]
        found += [f"{_host(address)}:{port}" for port in ports for e in ready for address in e["addresses"]]
    return sorted(found)[:10]


def _port_name(namespace: str, named: Object, services: Sequence[Object]) -> str | None:
    wanted = named["port"]
    for service in services:
        if (service["metadata"]["namespace"], service["metadata"]["name"]) == (namespace, named["name"]):
            for port in service["spec"]["ports"]:
                if wanted.get("number") == port["port"] or (wanted.get("name") and wanted["name"] == port.get("name")):
                    return str(port["name"]) if port.get("name") else ""
    return None


def _host(address: str) -> str:
    return f"[{address}]" if ip_address(address).version == 6 else address


class Edge:
    """One loop: look at all Services and Ingresses once a second, give what is missing."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._folder = cluster.folder / "edge"
        self._folder.mkdir()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="edge", daemon=True)
        self._nginx: Child | None = None
        self._config = ""
        node = cluster.network.nodes[CONTROL]
        self._addresses = [node.address, *([node.address6] if cluster.dual and node.address6 else [])]

    def start(self) -> None:
        """nginx first, from this thread: the kernel ties its life to it."""
        program = find_program("nginx")
        if program is None:
            raise MissingProgram("not installed: nginx (Debian: apt-get install nginx)")
        self._write(nginx_config(ingresses=[], services=[], slices=[], addresses=self._addresses, folder=self._folder))
        node = self._cluster.network.nodes[CONTROL]
        command = [*enter(node), program, "-p", str(self._folder), "-c", str(self._folder / "nginx.conf")]
        self._nginx = self._cluster.children.start("nginx", command, log=self._folder / "nginx.log")
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_S):
            try:
                self._look()
            except Exception as error:
                with (self._folder / "edge.log").open("a") as log:
                    log.write(f"{error}\n")

    def _look(self) -> None:
        services, ingresses, slices = (
            self._cluster.json("get", kind, "-A")["items"] for kind in ("services", "ingresses", "endpointslices")
        )
        wanting = [s for s in services if s["spec"]["type"] == "LoadBalancer"]
        taken = {entry["ip"] for s in wanting for entry in s["status"].get("loadBalancer", {}).get("ingress", [])}
        for service in wanting:
            if not service["status"].get("loadBalancer", {}).get("ingress"):
                self._tell("service", service, next_addresses(service, taken=taken))
        for ingress in ingresses:
            if not ingress["status"].get("loadBalancer", {}).get("ingress"):
                self._tell("ingress", ingress, self._addresses)
        self._write(
            nginx_config(
                ingresses=ingresses, services=services, slices=slices, addresses=self._addresses, folder=self._folder
            )
        )

    def _tell(self, kind: str, thing: Object, addresses: Sequence[str]) -> None:
        entries = ", ".join(f'{{"ip": "{address}"}}' for address in addresses)
        patch = f'{{"status": {{"loadBalancer": {{"ingress": [{entries}]}}}}}}'
        meta = thing["metadata"]
        where = ("-n", meta["namespace"], kind, meta["name"])
        self._cluster.kubectl("patch", *where, "--subresource=status", "--type=merge", "-p", patch)

    def _write(self, text: str) -> None:
        if text == self._config:
            return
        self._config = text
        (self._folder / "nginx.conf").write_text(text)
        if self._nginx is not None:
            self._nginx.send(signal.SIGHUP)


@contextmanager
def edge(cluster: Cluster) -> Iterator[Edge]:
    """See the module."""
    running = Edge(cluster)
    running.start()
    try:
        yield running
    finally:
        running.stop()
