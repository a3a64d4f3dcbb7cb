"""The kernel's counters out of the texts it shows them in (/proc, cgroups). Pure: text in, numbers out.

Whatever a kernel does not show counts as zero: kernels differ, and a missing counter must not stop a
round.
"""

from collections.abc import Iterable


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
    """Counters of /proc/net/snmp6, cpu.stat and memory.stat: one name and value a line."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def softnet(text: str) -> tuple[int, int]:
    """(packets dropped, times the softirq ran out of its budget) of /proc/net/softnet_stat, all CPUs together."""
    rows = [line.split() for line in text.splitlines()]
    return _hex_sum(rows, 1), _hex_sum(rows, 2)


def conntrack(text: str) -> dict[str, int]:
    """Counters of /proc/net/stat/nf_conntrack by name, all CPUs together. `entries` is the same on each line."""
    lines = text.splitlines()
    names = lines[0].split() if lines else []
    rows = [line.split() for line in lines[1:]]
    return {name: _hex_sum(rows, column) for column, name in enumerate(names)}


def sockets_in_use(text: str) -> int:
    """TCP sockets of /proc/net/sockstat that hold a local port, those in TIME_WAIT included."""
    for line in text.splitlines():
        if line.startswith("TCP:"):
            words = line.split()[1:]
            values = dict(zip(words[::2], words[1::2], strict=False))
            return int(values.get("inuse", 0)) + int(values.get("tw", 0))
    return 0


def local_ports(*, port_range: str, reserved: str) -> int:
    """How many local ports the kernel chooses from: ip_local_port_range less ip_local_reserved_ports."""
    ends = port_range.split()
    if len(ends) != 2:
        return 0
    first, last = int(ends[0]), int(ends[1])
    taken = sum(max(0, min(last, high) - max(first, low) + 1) for low, high in _ranges(reserved))
    return max(0, last - first + 1 - taken)


def pressure_us(text: str) -> int:
    """Microseconds in which some task waited, of a pressure file (PSI)."""
    for line in text.splitlines():
        if line.startswith("some "):
            total = line.rpartition("total=")[2]
            return int(total) if total.isdigit() else 0
    return 0


def waited_for_cpu_us(schedstat: str) -> int:
    """Microseconds that a thread was ready to run and did not: second figure of /proc/self/schedstat, in ns."""
    words = schedstat.split()
    return int(words[1]) // 1000 if len(words) == 3 and words[1].isdigit() else 0


def number(text: str) -> int:
    """A file that holds one number; 0 where it holds none (`max`)."""
    word = text.strip()
    return int(word) if word.isdigit() else 0


def _hex_sum(rows: Iterable[list[str]], column: int) -> int:
    return sum(int(row[column], 16) for row in rows if len(row) > column)


def _ranges(text: str) -> Iterable[tuple[int, int]]:
    for part in text.strip().split(","):
        low, _, high = part.partition("-")
        if low.isdigit():
            yield int(low), int(high or low)
