"""How the instrument itself fares: CPU used, CPU withheld by the cgroup, memory, packets its own sockets dropped.

The socket counters are those of the network namespace, so in a pod they are the agent's own; in the host's namespace
they include its neighbours', which can only lower a trust grade, never raise a network alarm.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TCP_DROPS = ("ListenDrops", "TCPBacklogDrop", "TCPRcvQDrop")
_UDP_DROPS = ("RcvbufErrors", "SndbufErrors")
_UDP6_DROPS = ("Udp6RcvbufErrors", "Udp6SndbufErrors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Counters since the start of the process, the cgroup or the namespace; `resident_bytes` is now."""

    cpu_us: int
    throttled_us: int
    socket_drops: int
    resident_bytes: int

    def since(self, earlier: "Reading") -> "Reading":
        """What was used between two readings; memory as it is now."""
        return Reading(
            cpu_us=self.cpu_us - earlier.cpu_us,
            throttled_us=max(0, self.throttled_us - earlier.throttled_us),
            socket_drops=max(0, self.socket_drops - earlier.socket_drops),
            resident_bytes=self.resident_bytes,
        )


def paired_counters(text: str) -> dict[str, int]:
    """Counters of /proc/net/snmp and /proc/net/netstat: a line of names, then a line of values."""
    lines = text.splitlines()
    counters = {}
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        group, _, columns = names.partition(":")
        for name, value in zip(columns.split(), values.partition(":")[2].split(), strict=False):
            counters[f"{group}.{name}"] = int(value)
    return counters


def listed_counters(text: str) -> dict[str, int]:
    """Counters of /proc/net/snmp6 and cpu.stat: one name and value a line."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def socket_drops(*, snmp: str, netstat: str, snmp6: str) -> int:
    """Packets and connections dropped in receiving or sending sockets for want of room."""
    paired = paired_counters(snmp) | paired_counters(netstat)
    listed = listed_counters(snmp6)
    return (
        sum(paired.get(f"Udp.{name}", 0) for name in _UDP_DROPS)
        + sum(paired.get(f"TcpExt.{name}", 0) for name in _TCP_DROPS)
        + sum(listed.get(name, 0) for name in _UDP6_DROPS)
    )


def throttled_us(cpu_stat: str) -> int:
    """Time the cgroup withheld the CPU: version 2 says it in µs, version 1 in ns."""
    counters = listed_counters(cpu_stat)
    return counters.get("throttled_usec", counters.get("throttled_time", 0) // 1000)


def cpu_stat_paths(proc_cgroup: str, *, root: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """Where the process's cpu.stat may be, likeliest first: inside a container its cgroup is often the root."""
    paths = []
    for line in proc_cgroup.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        relative = path.strip("/")
        if hierarchy == "0" and not controllers:
            paths += [root / relative / "cpu.stat", root / "cpu.stat"]
        elif "cpu" in controllers.split(","):
            paths += [
                base / part / "cpu.stat" for base in (root / controllers, root / "cpu") for part in (relative, "")
            ]
    return paths


class Instrument:
    """Reads the figures; a file that is not there counts as zero."""

    def __init__(self) -> None:
        paths = cpu_stat_paths(_text(Path("/proc/self/cgroup")))
        self._cpu_stat = next((path for path in paths if path.is_file()), None)
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")

    def read(self) -> Reading:
        """The figures now."""
        statm = _text(Path("/proc/self/statm")).split()
        return Reading(
            cpu_us=time.process_time_ns() // 1000,
            throttled_us=throttled_us(_text(self._cpu_stat)) if self._cpu_stat else 0,
            socket_drops=socket_drops(
                snmp=_text(Path("/proc/net/snmp")),
                netstat=_text(Path("/proc/net/netstat")),
                snmp6=_text(Path("/proc/net/snmp6")),
            ),
            resident_bytes=int(statm[1]) * self._page_bytes if len(statm) > 1 else 0,
        )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
