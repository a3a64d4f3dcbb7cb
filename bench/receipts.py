"""What receipts add to the event volume: bytes of probe-receipts-v1 against probe-results-v1 in Kafka's own logs.

Usage: python bench/receipts.py [--agents N] [--rate R] [--seconds S] [--rounds N]

Runs a whole lab with a full mesh and reads the sizes of the topics' logs (compressed, as they travel and are kept) just
before it ends. Prints one RESULT line. Goal: receipts below 15 % of results.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TASK = """
apiVersion: kdoctor.io/v1beta1
kind: NetReach
metadata:
  name: volume
spec:
  expect: {{meanAccessDelayInMs: 1500, successRate: 1}}
  request: {{durationInSecond: {seconds}, perRequestTimeoutInMS: 500, qps: {rate}}}
  schedule: {{roundNumber: {rounds}, roundTimeoutMinute: 1, schedule: "0 1"}}
  target: {{endpoint: true, clusterIP: false, nodePort: false, ingress: false, loadBalancer: false, ipv4: true}}
"""


def log_bytes(topic: str, *, since_s: float) -> int:
    """Bytes in the logs of a topic of the labs that began since then."""
    total = 0
    for folder in Path("/var/tmp").glob("kpatrol-*lab-*/kafka"):
        for log in _logs(folder, topic):
            with contextlib.suppress(FileNotFoundError):
                found = log.stat()
                total += found.st_size if found.st_ctime >= since_s else 0
    return total


def _logs(folder: Path, topic: str) -> list[Path]:
    try:
        return list(folder.glob(f"**/{topic}-*/*.log"))
    except FileNotFoundError:
        # The lab is just clearing up.
        return []


def main() -> None:
    """Run the lab and watch its logs grow."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=5)
    parser.add_argument("--rate", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    began_s, results, receipts = time.time(), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder) / "task.yaml"
        task.write_text(TASK.format(rate=given.rate, seconds=given.seconds, rounds=given.rounds))
        command = [sys.executable, "-m", "kpatrol", "lab", "-f", str(task), "--agents", str(given.agents), "--json"]
        command += ["--minute-s", str(given.seconds + 3)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as lab:
            while lab.poll() is None:
                results = max(results, log_bytes("probe-results-v1", since_s=began_s))
                receipts = max(receipts, log_bytes("probe-receipts-v1", since_s=began_s))
                time.sleep(0.2)
    requests = given.agents * (given.agents - 1) * given.rate * given.seconds * given.rounds
    print(
        f"RESULT receipts agents={given.agents} rate={given.rate} seconds={given.seconds} rounds={given.rounds} "
        f"requests={requests} results_bytes={results} receipts_bytes={receipts} "
        f"per_request={results / requests:.1f}+{receipts / requests:.2f} share={receipts / max(1, results) * 100:.1f}%"
    )


if __name__ == "__main__":
    main()
