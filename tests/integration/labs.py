"""Runs of the whole lab as a user starts it, and what every one of them must hold."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TASKS = Path(__file__).parent / "tasks"
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@dataclass(frozen=True)
class LabRun:
    """What a finished `kpatrol lab --json` said."""

    code: int
    report: dict[str, Any]
    errors: str

    def leftovers(self) -> list[str]:
        """What this lab has left."""
        return leftovers(lab_id(self.errors))

    def rounds(self, task: str = "") -> list[dict[str, Any]]:
        """The rounds of a task; without a name, of all tasks."""
        tasks = self.report["tasks"]
        return [r for t in tasks if task in ("", t["task"]) for r in t["rounds"]]


def run_lab(*arguments: str, logs: Path, timeout_s: float = 240) -> LabRun:
    """Start the lab, wait for its end, read its report."""
    command = [sys.executable, "-m", "kpatrol", "lab", "--json", "--logs", str(logs), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode in (0, 1, 2), done.stderr
    assert done.stdout, f"no report\n{done.stderr}\n{last_words(logs)}"
    return LabRun(code=done.returncode, report=json.loads(done.stdout), errors=done.stderr)


def last_words(logs: Path) -> str:
    """The end of every log, for a failed test's output."""
    return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')[-1500:]}" for p in sorted(logs.glob("*.log")))


def assert_adds_up(rounds: list[dict[str, Any]]) -> None:
    """The equation of every round, and nothing twice."""
    assert rounds
    for r in rounds:
        said = {
            k: r[k] for k in ("round", "planned", "stored", "unsent", "declared_missing", "unexplained", "duplicates")
        }
        assert r["planned"] == r["stored"] + r["unsent"] + r["declared_missing"], said
        assert r["unexplained"] == 0, said
        assert r["duplicates"] == 0, said
        assert r["final"], said


def assert_sound(rounds: list[dict[str, Any]]) -> None:
    """Nothing is lost or blamed; on a busy machine the instrument may say of itself that it was not fit."""
    for r in rounds:
        assert r["verdict"] == "succeed" or (r["verdict"], r["trust"]) == ("unknown", "degraded"), r["why"]
        assert r["trust"] == "degraded" or r["findings"] == [], r["findings"]


def lab_id(stderr: str) -> str:
    """The id that a lab tells when it starts; empty when none was started."""
    found = re.search(r"^lab ([0-9a-f]+): logs in", stderr, re.MULTILINE)
    return found[1] if found else ""


def leftovers(lab: str) -> list[str]:
    """Namespaces, interfaces, folders and processes that an ended lab has left. Other labs may run beside the tests."""
    assert lab
    namespaces = said("ip", "netns", "list").split("\n")
    links = [line.split(": ")[1] for line in said("ip", "-o", "link").splitlines() if ": " in line]
    folders = [str(p) for base in {"/tmp", "/var/tmp", os.environ.get("XDG_RUNTIME_DIR") or "/tmp"}
               for p in Path(base).glob(f"kpatrol-{os.getuid()}*/lab-*")]  # fmt: skip
    folders += [str(p) for p in Path("/var/tmp").glob(f"kpatrol-{os.getuid()}-lab-*")]
    return [name for name in [*namespaces, *links, *folders, *_marked()] if lab in name]


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _marked() -> list[str]:
    """Processes whose environment names a lab: `id: command`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found += [f"{v.decode()}: {command}" for v in variables if v.startswith(b"KPATROL_LAB_ID=")]
    return found
