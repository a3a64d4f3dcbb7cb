"""The peers: wrk, hey and dnsperf, each as one process whose CPU time the kernel tells when it ends."""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.servers import ADDRESSES, NAME
from kpatrol.lab.commands import find_program

HEY = "github.com/rakyll/hey@v0.1.4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a peer did: requests answered, seconds of CPU and of time, what it said."""

    requests: int
    cpu_s: float
    took_s: float
    said: str

    @property
    def cpu_us(self) -> float:
        """CPU per request."""
        return self.cpu_s / max(1, self.requests) * 1e6

    @property
    def rate(self) -> float:
        """Requests/s."""
        return self.requests / self.took_s


def measured(command: list[str]) -> tuple[str, float]:
    """What a program printed, and the CPU time it used, start and end included. Raises RuntimeError."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said = out.read().decode(errors="replace")
    if process.returncode != 0:
        raise RuntimeError(f"{Path(command[0]).name} ended with {process.returncode}: {said[-500:]}")
    return said, used.ru_utime + used.ru_stime


def wrk(*, url: str, connections: int, seconds: float, close: bool = False) -> Ran:
    """wrk with one thread, as fast as it can."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}", "--latency"]
    command += ["-H", "Connection: close"] if close else []
    said, cpu_s = measured([*command, url])
    match = re.search(r"(\d+) requests in ([\d.]+)(m?s)", said)
    if match is None:
        raise RuntimeError(f"wrk said: {said}")
    return Ran(
        requests=int(match[1]), cpu_s=cpu_s, took_s=float(match[2]) / (1000 if match[3] == "ms" else 1), said=said
    )


def wrk_median_us(ran: Ran) -> float:
    """The median latency that wrk reports."""
    match = re.search(r"50%\s+([\d.]+)(us|ms|s)", ran.said)
    if match is None:
        raise RuntimeError(f"wrk said: {ran.said}")
    return float(match[1]) * {"us": 1.0, "ms": 1e3, "s": 1e6}[match[2]]


def dnsperf(*, port: int, seconds: float, folder: Path) -> Ran:
    """dnsperf with one thread, as fast as it can, at its best: few sockets, a hundred queries under way."""
    questions = folder / "questions"
    questions.write_text(f"{NAME} A\n")
    command = ["dnsperf", "-s", ADDRESSES[0], "-p", str(port), "-d", str(questions), "-T1", "-c8", "-q100"]
    said, cpu_s = measured([*command, f"-l{max(1, round(seconds))}"])
    requests, took = re.search(r"Queries completed: +(\d+)", said), re.search(r"Run time \(s\): +([\d.]+)", said)
    if requests is None or took is None:
        raise RuntimeError(f"dnsperf said: {said}")
    return Ran(requests=int(requests[1]), cpu_s=cpu_s, took_s=float(took[1]), said=said)


def hey(*, program: Path, url: str, connections: int, seconds: float, close: bool = False) -> Ran:
    """hey on one CPU, as fast as it can."""
    command = [str(program), "-z", f"{max(1, round(seconds))}s", "-c", str(connections), "-cpus", "1"]
    said, cpu_s = measured([*command, *(["-disable-keepalive"] if close else []), url])
    answered = sum(int(count) for count in re.findall(r"\[\d+\]\t(\d+) responses", said))
    took = re.search(r"Total:\s+([\d.]+) secs", said)
    if took is None:
        raise RuntimeError(f"hey said: {said}")
    return Ran(requests=answered, cpu_s=cpu_s, took_s=float(took[1]), said=said)


def get_hey(cache: Path) -> tuple[Path | None, str]:
    """The program hey in a cache folder, built there by Go the first time; or why there is none."""
    folder = cache / f"hey-{HEY.rpartition('@v')[2]}"
    program = folder / "hey"
    if program.exists():
        return program, ""
    go = find_program("go") or find_program("/usr/local/go/bin/go")
    if go is None:
        return None, "hey left out: Go is not installed"
    print("building hey with Go (once)", flush=True)
    try:
        done = subprocess.run(
            [go, "install", HEY],
            env=os.environ | {"GOBIN": str(folder)},
            capture_output=True,
            timeout=180,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, "hey left out: building it took more than three minutes"
    return (program, "") if done.returncode == 0 and program.exists() else (None, "hey left out: Go could not build it")
