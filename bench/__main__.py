"""`make bench`: every measurement that has a budget, one after the other; writes bench/RESULTS.md.

Each part is a program of its own (`python -m bench.NAME`), run as a process and shown as it prints. Apart from them is
`python -m bench accuracy`: it measures how truly faults are named, and writes bench/ACCURACY.md.
"""

import argparse
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
# name -> (arguments, what it measures and against which goal)
PARTS = {
    "engine": (
        ["--targets", "1", "20", "200"],
        "CPU of the agent per recorded request (goal 15 µs), beside a bare loop",
    ),
    "sink": ([], "CPU of the sink per row, Kafka to ClickHouse (goal 1 µs), by stage and as a whole"),
    "judging": ([], "time to judge a round of 5,000 nodes, by stage (goal: localisation within 100 ms)"),
    "receipts": ([], "bytes of receipts beside results (goal under 15 %)"),
}


def machine() -> str:
    """The machine's shape: what a reader needs to compare, and nothing that names it."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} CPUs, {memory_gib:.0f} GiB, {platform.system()} {platform.release().split('-')[0]}, "
        f"{platform.machine()}, Python {platform.python_version()}"
    )


def run(name: str) -> str:
    """What one part printed; its failure ends everything."""
    arguments, _ = PARTS[name]
    print(f"== {name}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{name}", *arguments], capture_output=True, text=True, check=False
    )
    print(done.stdout, flush=True)
    if done.returncode != 0:
        raise SystemExit(f"bench.{name} failed:\n{done.stderr}")
    return done.stdout


def page(outputs: dict[str, str]) -> str:
    """The results page."""
    lines = ["# Benchmarks", "", f"{datetime.now(UTC):%Y-%m-%d}, {machine()}. Repeat with `make bench`.", ""]
    for name, output in outputs.items():
        arguments, what = PARTS[name]
        command = " ".join(["python -m", f"bench.{name}", *arguments])
        lines += [f"## {name}", "", f"{what}. `{command}`", "", "```", output.strip(), "```", ""]
    return "\n".join(lines)


def main() -> None:
    """All parts, or those named by --only."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be repeated")
    names = parser.parse_args().only or list(PARTS)
    outputs = {name: run(name) for name in names}
    if len(names) == len(PARTS):
        RESULTS.write_text(page(outputs))
        print(f"written: bench/{RESULTS.name}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["accuracy"]:
        from bench import accuracy

        accuracy.main(sys.argv[2:])
    else:
        main()
