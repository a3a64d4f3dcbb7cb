"""Names inside the lab: a hosts file and a resolver of its own, seen by the processes started with `with_names`.

A network namespace shares its files with the machine; a mount namespace of the process's own covers the two that
name lookups read, and goes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_COVER = """
mount --bind "$1" "$(readlink -f /etc/hosts)" && mount --bind "$2" "$(readlink -f /etc/resolv.conf)" || exit 70
shift 2
exec "$@"
"""


def hosts_file(names: Mapping[str, str]) -> str:
    """/etc/hosts with loopback and these names (name → address)."""
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    return "\n".join([*lines, *(f"{address} {name}" for name, address in names.items())]) + "\n"


def resolver_file(server: str | None) -> str:
    """/etc/resolv.conf: this server and the search path of a cluster; without a server no name is asked anywhere."""
    first = f"nameserver {server}\n" if server else "nameserver 127.0.0.1\n"
    return f"{first}search cluster.local lab\noptions ndots:1 timeout:1 attempts:1\n"


def with_names(*, hosts: Path, resolver: Path) -> list[str]:
    """What to put before a command (after entering its network namespace) so that it sees these files."""
    return ["unshare", "--mount", "--", "sh", "-c", _COVER, "sh", str(hosts), str(resolver)]
