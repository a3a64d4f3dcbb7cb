"""`make bench`: every measurement that has a budget, one after the other; writes bench/RESULTS.md.

Usage: python -m bench [PART ...]   (all parts write the page; a part alone only prints)

Each part is a program of its own (`python -m bench.PART`), shown as it prints; its progress goes to stderr. Apart from
them is `python -m bench accuracy`: it measures how truly faults are named, and writes bench/ACCURACY.md;
`python -m bench faults` does so in real packets, and writes bench/FAULTS.md.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import accuracy, faults
from bench.machine import machine

RESULTS = Path(__file__).with_name("RESULTS.md")
NOTES = Path(__file__).with_name("NOTES.md")
# Others' share of the machine from which on figures are called noisy.
NOISY = 0.05
# name -> what it measures and against which goal
PARTS = {
    "engine": "CPU of the agent per recorded request, beside wrk, hey, dnsperf and a bare loop on the same servers",
    "sink": "CPU of the sink per row, Kafka to ClickHouse (goal 1 µs), by stage and as a whole",
    "judging": "Time to judge a round of 5,000 nodes, by stage (goal: localisation within 100 ms)",
    "storage": "Disk per stored request (goal 5 B); times of panels (300 ms), a pair's 30 days (100), 90 days (500)",
    "receipts": "Bytes of receipts beside results (goal under 15 %)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """CPU seconds: all cores together since the machine began, of which stolen by its host, and this program's own."""

    at_s: float
    busy_s: float
    stolen_s: float
    own_s: float

    @classmethod
    def now(cls) -> "Times":
        """As they stand; of children that have ended."""
        first = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        user, nice, system, _, _, irq, softirq, steal, *_ = (int(text) / os.sysconf("SC_CLK_TCK") for text in first)
        own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return cls(
            at_s=time.monotonic(),
            busy_s=user + nice + system + irq + softirq,
            stolen_s=steal,
            own_s=sum(used.ru_utime + used.ru_stime for used in own),
        )


def company(before: Times, after: Times) -> str:
    """Who else used the machine meanwhile, and whether the figures are noisy for it."""
    whole_s = (after.at_s - before.at_s) * (os.cpu_count() or 1)
    others = max(0.0, (after.busy_s - before.busy_s) - (after.own_s - before.own_s)) / whole_s
    stolen = (after.stolen_s - before.stolen_s) / whole_s
    text = f"Other processes used {others:.0%} of the machine meanwhile, its host took {stolen:.0%}"
    return f"{text}: **noisy**, read the ratios." if others + stolen > NOISY else f"{text}."


def run(name: str) -> str:
    """What one part printed, shown as it comes. A failure ends everything; a goal missed is none."""
    print(f"== {name}", flush=True)
    lines = []
    command = [sys.executable, "-m", f"bench.{name}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as part:
        assert part.stdout is not None
        for line in part.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if part.returncode != 0:
        raise SystemExit(f"bench.{name} failed with exit code {part.returncode}")
    return "".join(lines)


def page(outputs: dict[str, str], *, noise: str, took_s: float) -> str:
    """The results page: figures of this run, then what is known about them."""
    lines = ["# Benchmarks", "", f"{datetime.now(UTC):%Y-%m-%d}, {machine()}.", noise]
    lines += [f"Repeat with `make bench` ({took_s / 60:.0f} minutes); this page is its output.", ""]
    for name, output in outputs.items():
        lines += [f"## {name}", "", f"{PARTS[name]}. `python -m bench {name}`", "", "```", output.strip(), "```", ""]
    return "\n".join(lines) + "\n" + NOTES.read_text()


def main() -> None:
    """All parts, or those named."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these: {', '.join(PARTS)}")
    names = parser.parse_args().parts or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"PART: found {', '.join(unknown)}, allowed: {', '.join(PARTS)}")
    before = Times.now()
    outputs = {name: run(name) for name in names}
    after = Times.now()
    noise = company(before, after)
    print(f"{after.at_s - before.at_s:.0f} s. {noise}")
    if set(names) == set(PARTS):
        RESULTS.write_text(page(outputs, noise=noise, took_s=after.at_s - before.at_s))
        print(f"written: bench/{RESULTS.name}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["accuracy"]:
        accuracy.main(sys.argv[2:])
    elif sys.argv[1:2] == ["faults"]:
        faults.main(sys.argv[2:])
    else:
        main()
