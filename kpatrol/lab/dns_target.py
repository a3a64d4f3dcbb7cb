"""The configuration of unbound as the lab's DNS server: the role that CoreDNS has in a cluster. Pure.

It answers the cluster's usual names and the lab's own from data of its own, and refuses to ask anybody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ZONES = ("cluster.local.", "lab.")


def configuration(*, address: str, names: Mapping[str, str], folder: Path, tls: Path | None = None) -> str:
    """unbound.conf for a server on `address`; `names` are fully qualified without the last dot, to IPv4 addresses.

    `tls` is a PEM file with key and certificate for DNS over TLS on port 853.
    """
    lines = [
        "server:",
        f"  directory: {_quoted(folder)}",
        '  username: ""',
        '  chroot: ""',
        '  pidfile: ""',
        "  use-syslog: no",
        "  do-daemonize: no",
        "  num-threads: 1",
        "  so-reuseport: no",
        f"  interface: {address}@53",
        "  access-control: 0.0.0.0/0 allow",
        "  module-config: iterator",
        "  incoming-num-tcp: 200",
        "  hide-version: yes",
    ]
    if tls is not None:
        pem = _quoted(tls)
        lines += [f"  interface: {address}@853", "  tls-port: 853"]
        lines += [f"  tls-service-key: {pem}", f"  tls-service-pem: {pem}"]
    # `static`: what is not listed does not exist (NXDOMAIN); everything outside the zones is refused.
    lines += [f"  local-zone: {zone} static" for zone in ZONES]
    lines += ["  local-zone: . refuse"]
    lines += [f'  local-data: "{name}. 60 IN A {ip}"' for name, ip in names.items()]
    lines += ["remote-control:", "  control-enable: no"]
    return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    return f'"{path}"'
