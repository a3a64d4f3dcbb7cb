"""How the instrument itself fares: CPU used and withheld, memory, what its sockets dropped, what it had left of ports
and connection tracking, and in the node's own network namespace what the node's kernel counted.

`read` gives counters, of which a round takes the difference; `look` gives what goes up and down, of which a round takes
the greatest value. A figure that the kernel does not show counts as zero. In a pod the socket counters are those of its
network namespace, which is the agent's own; in the host's namespace they would be its neighbours' too, and there each
own socket is asked (the load adds what its sockets dropped when it closes them).
"""

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from producers import cgroup, node_counters, own_sockets
from producers.cgroup import CpuShare, text_of
from producers.clock_sync import ClockState, clock_state
from producers.proc_texts import (
    listed_counters,
    local_ports,
    number,
    paired_counters,
    pressure_us,
    sockets_in_use,
    waited_for_cpu_us,
)
from topics.round_progress import Condition, NodeCounters

Flavour = Literal["pod", "host"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)

_TCP_DROPS = ("ListenDrops", "TCPBacklogDrop", "TCPRcvQDrop")
_UDP_DROPS = ("RcvbufErrors", "SndbufErrors")
_UDP6_DROPS = ("Udp6RcvbufErrors", "Udp6SndbufErrors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Counters since the start of the process, the cgroup, the namespace or the socket; `resident_bytes` is now.

    `socket_drops` are the namespace's (in a pod), `own_drops` each living socket's by inode (on the host).
    """

    cpu_us: int
    resident_bytes: int
    cpu_wait_us: int = 0
    cpu: CpuShare = field(default_factory=CpuShare)
    socket_drops: int = 0
    own_drops: dict[int, int] = field(default_factory=dict)
    node: NodeCounters | None = None

    def since(self, earlier: "Reading") -> "Reading":
        """What was used between two readings; memory and limits as they are now."""
        own = own_sockets.since(now=self.own_drops, before=earlier.own_drops)
        return Reading(
            cpu_us=self.cpu_us - earlier.cpu_us,
            resident_bytes=self.resident_bytes,
            cpu_wait_us=max(0, self.cpu_wait_us - earlier.cpu_wait_us),
            cpu=_cpu_since(self.cpu, earlier.cpu),
            socket_drops=max(0, self.socket_drops - earlier.socket_drops) + own,
            node=node_counters.since(now=self.node, before=earlier.node) if self.node and earlier.node else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """What goes up and down: local ports taken, connections tracked, memory."""

    local_ports_used: int = 0
    conntrack_entries: int = 0
    resident_bytes: int = 0

    def greatest(self, other: "Gauges") -> "Gauges":
        """The greater of each."""
        return Gauges(
            local_ports_used=max(self.local_ports_used, other.local_ports_used),
            conntrack_entries=max(self.conntrack_entries, other.conntrack_entries),
            resident_bytes=max(self.resident_bytes, other.resident_bytes),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the gauges run into; 0 where there is no bound."""

    local_ports: int = 0
    conntrack_max: int = 0
    memory_limit_bytes: int = 0


def socket_drops(*, snmp: str, netstat: str, snmp6: str) -> int:
    """Packets and connections dropped in receiving or sending sockets for want of room."""
    paired = paired_counters(snmp) | paired_counters(netstat)
    listed = listed_counters(snmp6)
    return (
        sum(paired.get(f"Udp.{name}", 0) for name in _UDP_DROPS)
        + sum(paired.get(f"TcpExt.{name}", 0) for name in _TCP_DROPS)
        + sum(listed.get(name, 0) for name in _UDP6_DROPS)
    )


def condition(
    *, used: Reading, peak: Gauges, bounds: Bounds, clock: ClockState | None, cpu_peak_us: int = 0
) -> Condition:
    """The record of what the agent had to work with. Pure."""
    return Condition(
        cpu_wait_us=used.cpu_wait_us,
        cpu_pressure_us=used.cpu.pressure_us,
        cpu_limit_cores=used.cpu.limit_cores,
        periods=used.cpu.periods,
        throttled_periods=used.cpu.throttled_periods,
        local_ports_used=peak.local_ports_used,
        local_ports=bounds.local_ports,
        conntrack_entries=peak.conntrack_entries,
        conntrack_max=bounds.conntrack_max,
        resident_max_bytes=max(peak.resident_bytes, used.resident_bytes),
        cpu_peak_us=cpu_peak_us,
        memory_limit_bytes=bounds.memory_limit_bytes,
        clock_error_us=clock.error_us if clock else None,
    )


class Instrument:
    """Reads the figures of this process."""

    def __init__(self, *, flavour: Flavour = "pod", proc: Path = Path("/proc")) -> None:
        self._host = flavour == "host"
        self._proc = proc
        own = text_of(proc / "self" / "cgroup")
        mounted = cgroup.mounts(text_of(proc / "self" / "mountinfo"))
        self._cpu = cgroup.cpu_folder(cgroup.folders(proc_cgroup=own, mounted=mounted, controller="cpu"))
        self._memory = cgroup.memory_folder(cgroup.folders(proc_cgroup=own, mounted=mounted, controller="memory"))
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")

    def read(self) -> Reading:
        """The counters now."""
        net = self._proc / "net"
        drops = 0
        if not self._host:
            drops = socket_drops(
                snmp=text_of(net / "snmp"), netstat=text_of(net / "netstat"), snmp6=text_of(net / "snmp6")
            )
        cpu = cgroup.cpu_share(self._cpu)
        if not cpu.pressure_us:
            cpu = replace(cpu, pressure_us=pressure_us(text_of(self._proc / "pressure" / "cpu")))
        return Reading(
            cpu_us=time.process_time_ns() // 1000,
            resident_bytes=self._resident_bytes(),
            cpu_wait_us=waited_for_cpu_us(text_of(self._proc / "self" / "schedstat")),
            cpu=cpu,
            socket_drops=drops,
            own_drops=own_sockets.drops_by_socket() if self._host else {},
            node=node_counters.counters(net=net) if self._host else None,
        )

    def look(self) -> Gauges:
        """What is taken now."""
        return Gauges(
            local_ports_used=sockets_in_use(text_of(self._proc / "net" / "sockstat")),
            conntrack_entries=number(text_of(self._proc / "sys" / "net" / "netfilter" / "nf_conntrack_count")),
            resident_bytes=self._resident_bytes(),
        )

    def bounds(self) -> Bounds:
        """What there is of it."""
        net = self._proc / "sys" / "net"
        return Bounds(
            local_ports=local_ports(
                port_range=text_of(net / "ipv4" / "ip_local_port_range"),
                reserved=text_of(net / "ipv4" / "ip_local_reserved_ports"),
            ),
            conntrack_max=number(text_of(net / "netfilter" / "nf_conntrack_max")),
            memory_limit_bytes=cgroup.memory_limit_bytes(self._memory),
        )

    def clock(self) -> ClockState | None:
        """The state of the machine's clock."""
        return clock_state()

    def _resident_bytes(self) -> int:
        statm = text_of(self._proc / "self" / "statm").split()
        return int(statm[1]) * self._page_bytes if len(statm) > 1 else 0


def _cpu_since(now: CpuShare, before: CpuShare) -> CpuShare:
    return CpuShare(
        throttled_us=max(0, now.throttled_us - before.throttled_us),
        throttled_periods=max(0, now.throttled_periods - before.throttled_periods),
        periods=max(0, now.periods - before.periods),
        pressure_us=max(0, now.pressure_us - before.pressure_us),
        limit_cores=now.limit_cores,
    )
