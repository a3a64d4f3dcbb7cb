"""The load engine beside wrk, hey and dnsperf: CPU per request, rates, latency's error, memory.

Usage: python -m bench engine   (or python -m bench.engine [--repeat N] [--seconds S] [--profile KIND])

One nginx (HTTP, HTTPS) and one unbound (DNS) on loopback serve everybody. The agent is a process with its own engine,
rows, spool and producer, and a real Kafka takes its records; counted is the CPU time of that process alone (user and
system, as the kernel says at the round's start and end), of a peer its whole process. Servers, agent and peers share
one core where there are more: else each send would also pay for waking another core, which on a virtual machine is the
dearest part, and paid or not by chance. They run at a higher priority where the user may give one. Agent, peers and
floor take turns; each figure is the least of several, since neighbours on the machine only ever add.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import peers
from bench.agent import Done, Job, Point
from bench.figures import Goals, table
from bench.measured import Measured, agent, points, with_kafka
from bench.servers import ADDRESSES, Servers, servers
from kpatrol.lab.kafka_jars import cache_folder

TARGETS = (1, 10, 50, 200, 400)
RATES = (100, 1000, 5000, 20_000)
DELAYS_US = (0, 1000, 5000, 50_000)
# Where the user may: before whatever else runs on the machine, or lateness would be that of others.
PRIORITY = -10
# What the goals are measured by: a mesh of this size.
JUDGED = 50
# kind -> (protocol of its targets, requests/s in all: what agent and server can do together on one core)
KINDS = {"keep": ("http", 20_000), "new": ("http", 3000), "plain": ("http", 8000), "https": ("https", 8000)}
KINDS["dns"] = ("dns", 20_000)
NAMES = {
    "keep": "HTTP/1.1 keep-alive",
    "new": "HTTP/1.1, new connection each",
    "plain": "HTTP/1.1 keep-alive",
    "https": "HTTPS keep-alive",
    "dns": "DNS over UDP",
}


def say(what: str) -> None:
    """One line of progress."""
    print(f"  … {what}", file=sys.stderr, flush=True)


class Bench:
    """What all measurements share."""

    def __init__(self, *, measured: Measured, ports: Servers, folder: Path, options: argparse.Namespace) -> None:
        self.measured = measured
        self.ports = ports
        self.folder = folder
        self.repeat: int = options.repeat
        self.seconds: float = options.seconds
        self.hey, self.without_hey = peers.get_hey(cache_folder(os.environ).parent)
        self.goals = Goals()

    def port(self, kind: str) -> int:
        """The server's port for that kind of traffic."""
        return {"https": self.ports.https, "dns": self.ports.dns}.get(kind, self.ports.http)

    def job(self, kind: str, *, targets: int, rate: float, seconds: float) -> Job:
        """A round of `rate` requests/s in all."""
        return Job(
            points=points(proto=KINDS[kind][0], port=self.port(kind), count=targets),
            rate=rate / targets,
            duration_s=seconds,
            new_connection=kind == "new",
        )

    def bare_us(self, kind: str, *, targets: int, rate: float, seconds: float) -> float:
        """CPU of the floor's loop per request."""
        arguments = [kind, str(self.port(kind)), str(targets), str(rate), str(seconds)]
        command = [sys.executable, "-m", "bench.bare", *arguments]
        return float(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)

    def peers(self, kind: str, *, connections: int) -> dict[str, peers.Ran]:
        """A second of each peer that speaks it, as fast as it can."""
        if kind == "dns":
            return {"dnsperf": peers.dnsperf(port=self.ports.dns, seconds=1, folder=self.folder)}
        scheme = "https" if kind == "https" else "http"
        url, close = f"{scheme}://{ADDRESSES[0]}:{self.port(kind)}/", kind == "new"
        found = {"wrk": peers.wrk(url=url, connections=connections, seconds=1, close=close)}
        if self.hey is not None:
            found["hey"] = peers.hey(program=self.hey, url=url, connections=connections, seconds=1, close=close)
        return found


# --- tables ---


def by_targets(bench: Bench) -> str:
    """CPU per request of every kind, by number of targets, beside peers and floor."""
    tables = []
    agents: dict[tuple[str, int], Done] = {}
    for kind, (_, rate) in KINDS.items():
        lines = []
        for targets in TARGETS:
            ran, found, bare_us = _side_by_side(bench, kind, targets, rate=rate)
            agents[kind, targets] = ran
            cells = [f"{targets}", f"{ran.cpu_us:.1f}", f"{ran.achieved_rate:,.0f}"]
            for peer in found.values():
                cells += [f"{peer.cpu_us:.1f}", f"{peer.rate:,.0f}", f"{ran.cpu_us / peer.cpu_us:.2f}"]
            cells += [f"{bare_us:.1f}", f"{ran.cpu_us / bare_us:.2f}"] if bare_us else []
            cells += [f"{ran.sent / ran.planned:.2%}", f"{ran.failed}", f"{ran.lateness_p99_us}"]
            lines.append([*cells, f"{ran.resident_bytes / 2**20:.0f}"])
            if targets == JUDGED:
                _judge(bench, kind, agents, found)
        head = ["targets", "agent µs", "/s", *(text for name in found for text in (f"{name} µs", "/s", "ratio"))]
        head += [*(["bare µs", "ratio"] if bare_us else []), "sent", "failed", "late p99 µs", "MiB"]
        tables.append(f"{NAMES[kind]}, {rate:,} requests/s of the agent in all; CPU per request\n{table(head, lines)}")
    return "\n\n".join(tables)


def _side_by_side(bench: Bench, kind: str, targets: int, *, rate: float) -> tuple[Done, dict[str, peers.Ran], float]:
    """The run of the agent and of each peer that needed least, and the least of the floor's loop (0: there is none),
    taking turns."""
    ran: list[Done] = []
    found: dict[str, peers.Ran] = {}
    bare_us: list[float] = []
    for turn in range(bench.repeat):
        say(f"{NAMES[kind]}, {targets} targets, turn {turn + 1} of {bench.repeat}")
        ran.append(bench.measured.run(bench.job(kind, targets=targets, rate=rate, seconds=bench.seconds)))
        if kind in ("keep", "new", "dns"):
            bare_us.append(bench.bare_us(kind, targets=targets, rate=rate, seconds=bench.seconds / 2))
        if kind != "plain":
            for name, peer in bench.peers(kind, connections=targets).items():
                found[name] = min(peer, found.get(name, peer), key=lambda each: each.cpu_us)
    return min(ran, key=lambda done: done.cpu_us), found, min(bare_us, default=0.0)


def _judge(bench: Bench, kind: str, agents: dict[tuple[str, int], Done], found: dict[str, peers.Ran]) -> None:
    goals, used_us = bench.goals, agents[kind, JUDGED].cpu_us
    where = f"at {JUDGED} targets"
    if kind == "keep":
        goals.at_most(f"keep-alive request, µs CPU with encode and produce, {where}", used_us, 15)
        goals.at_most(f"keep-alive request ÷ wrk, {where}", used_us / found["wrk"].cpu_us, 2.5)
    elif kind == "new":
        goals.at_most(f"new connection ÷ wrk with Connection: close, {where}", used_us / found["wrk"].cpu_us, 2)
    elif kind == "https":
        goals.at_most(f"HTTPS keep-alive ÷ plain, {where}", used_us / agents["plain", JUDGED].cpu_us, 2)
    elif kind == "dns":
        goals.at_most(f"DNS over UDP ÷ dnsperf, {where}", used_us / found["dnsperf"].cpu_us, 2.5)


def by_rate(bench: Bench) -> str:
    """One target at several rates: what was sent, how late, what it cost beside the bare loop at the same rate."""
    lines = []
    for rate in RATES:
        seconds = max(2.0, min(5.0, 2000 / rate))
        ran, bare = [], []
        for turn in range(bench.repeat):
            say(f"one target, {rate} requests/s, turn {turn + 1} of {bench.repeat}")
            ran.append(bench.measured.run(bench.job("keep", targets=1, rate=rate, seconds=seconds)))
            bare.append(bench.bare_us("keep", targets=1, rate=rate, seconds=min(2.0, seconds)))
        done = min(ran, key=lambda each: each.cpu_us)
        sent = max(each.sent / each.planned for each in ran)
        bench.goals.at_least(f"1 target × {rate:,}/s: sent of those due, %", sent * 100, 99.9)
        cells = [f"{rate:,}", f"{done.planned:,}", f"{sent:.2%}", f"{done.achieved_rate:,.0f}"]
        cells += [f"{done.lateness_p50_us}", f"{done.lateness_p99_us}", f"{done.cpu_us:.1f}", f"{min(bare):.1f}"]
        lines.append([*cells, f"{done.cpu_us / min(bare):.2f}"])
    head = ["requests/s", "due", "sent", "achieved/s", "late p50 µs", "p99 µs", "agent µs", "bare µs", "ratio"]
    return f"HTTP/1.1 keep-alive, one target, by rate\n{table(head, lines)}"


def saturated(bench: Bench) -> str:
    """The floor without any waiting: a closed loop in Python beside a peer."""
    lines = []
    for kind, connections in (("keep", 1), ("keep", JUDGED), ("new", JUDGED), ("dns", JUDGED)):
        say(f"bare closed loop, {NAMES[kind]}, {connections} under way")
        bare = [bench.bare_us(kind, targets=connections, rate=0, seconds=1) for _ in range(bench.repeat)]
        ran = [bench.peers(kind, connections=connections) for _ in range(bench.repeat)]
        name = "dnsperf" if kind == "dns" else "wrk"
        peer_us = min(each[name].cpu_us for each in ran)
        cells = [f"{NAMES[kind]}, {connections} under way", f"{min(bare):.1f}", name, f"{peer_us:.1f}"]
        lines.append([*cells, f"{min(bare) / peer_us:.2f}"])
    head = ["as fast as it can", "bare loop µs", "peer", "peer µs", "ratio"]
    return f"The floor without waiting: a loop in Python that records nothing\n{table(head, lines)}"


@contextmanager
def delaying(delay_us: int) -> Iterator[tuple[int, Callable[[], dict[int, int]]]]:
    """A started delaying server: its port, and how to end it and hear how long it held each request (µs)."""
    command = [sys.executable, "-m", "bench.delays", str(delay_us)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def end() -> dict[int, int]:
            stdin.close()
            return {int(number): held_us for number, held_us in json.loads(stdout.readline()).items()}

        try:
            yield int(stdout.readline()), end
        finally:
            process.kill()


def latency_error(bench: Bench) -> str:
    """What the agent and wrk report beyond the time that a server really held each request back."""
    lines = []
    for delay_us in DELAYS_US:
        say(f"latency's error, delay {delay_us / 1000:g} ms")
        with delaying(delay_us) as (port, end):
            url = f"http://127.0.0.1:{port}/"
            wrk_us = peers.wrk_median_us(peers.wrk(url=url, connections=1, seconds=2))
            target = Point(proto="http", port=port, address="127.0.0.1")
            done = bench.measured.run(Job(points=(target,), rate=100, duration_s=2, keep_rows=True))
            held = end()
        beyond = sorted(done.durations_us[seq] - held[seq] for seq in done.durations_us if seq in held)
        wrk_held_us = statistics.median(held_us for number, held_us in held.items() if number < 0)
        median, p99 = beyond[len(beyond) // 2], beyond[int(len(beyond) * 0.99)]
        cells = [f"{delay_us / 1000:g}", f"{statistics.median(held.values()):.0f}", f"{len(beyond)}"]
        lines.append([*cells, f"{median}", f"{p99}", f"{wrk_us - wrk_held_us:.0f}"])
    head = ["delay ms", "held µs (median)", "requests", "agent: median µs", "agent: p99 µs", "wrk: of medians µs"]
    title = "Latency reported less the time the server held the request (its own account): two ways and two wake-ups"
    return f"{title}\n{table(head, lines)}"


def steady(bench: Bench) -> str:
    """Twenty rounds of 200 targets × 10/s: lateness, and memory from the first to the last."""
    ran = []
    for number in range(20):
        say(f"200 targets × 10/s, round {number + 1} of 20")
        ran.append(bench.measured.run(bench.job("keep", targets=200, rate=2000, seconds=1)))
    memory = [done.resident_bytes / 2**20 for done in ran]
    p99 = sorted(done.lateness_p99_us for done in ran)
    growth = statistics.median(memory[-5:]) - statistics.median(memory[:5])
    bench.goals.at_most("200 targets × 10/s: lateness p99, ms, median of 20 rounds", p99[10] / 1000, 1)
    bench.goals.at_most("200 targets × 10/s: resident memory, MiB", max(memory), 80)
    bench.goals.at_most("200 targets × 10/s: growth from the first five rounds to the last five, MiB", growth, 2)
    head = ["lateness p99 µs: least", "median", "greatest", "resident MiB: first", "last", "greatest", "unsent"]
    cells = [f"{p99[0]}", f"{p99[10]}", f"{p99[-1]}", f"{memory[0]:.1f}", f"{memory[-1]:.1f}", f"{max(memory):.1f}"]
    cells.append(f"{sum(done.unsent for done in ran)}")
    return f"Twenty rounds of one second, 200 targets × 10/s\n{table(head, [cells])}"


def run(options: argparse.Namespace, folder: Path, bootstrap: str) -> None:
    """All of it, printed."""
    cores = sorted(os.sched_getaffinity(0))
    # This thread and what it starts from here on; Kafka is elsewhere.
    os.sched_setaffinity(0, cores[-1:])
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    with servers(folder) as ports, agent(folder=folder, bootstrap=bootstrap, port=ports.http) as measured:
        bench = Bench(measured=measured, ports=ports, folder=folder, options=options)
        parts = [part(bench) for part in (by_targets, by_rate, saturated, latency_error)]
        # Another process: memory is to be that of this load alone.
        with agent(folder=folder, bootstrap=bootstrap, port=ports.http) as fresh:
            bench.measured = fresh
            parts.append(steady(bench))
    print("\n".join(["Goals", *bench.goals.lines, "", *("\n\n".join(parts).splitlines())]))
    if bench.without_hey:
        print(f"\n{bench.without_hey}")


def profiled(options: argparse.Namespace, folder: Path, bootstrap: str) -> None:
    """One kind under cProfile: where the agent's own time goes (the profiler's weight included)."""
    with (
        servers(folder) as ports,
        agent(folder=folder, bootstrap=bootstrap, port=ports.http, profile=True) as measured,
    ):
        bench = Bench(measured=measured, ports=ports, folder=folder, options=options)
        rate = KINDS[options.profile][1]
        measured.run(bench.job(options.profile, targets=JUDGED, rate=rate, seconds=options.seconds))


def main() -> None:
    """Run with a Kafka of its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=2, help="turns of each measurement (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a round (default %(default)s)")
    parser.add_argument("--profile", choices=KINDS, help="instead: one round of that kind under cProfile")
    options = parser.parse_args()
    work = profiled if options.profile else run
    with_kafka(lambda folder, bootstrap: work(options, folder, bootstrap))


if __name__ == "__main__":
    main()
