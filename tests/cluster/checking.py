"""`kpatrol check` as a person runs it on a test cluster: the command in a folder of its own, and what it printed."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kpatrol.check.manifests import LABEL
from tests.cluster.cluster import Cluster

QUICK = ("--requests", "5", "--rate", "5", "--timeout-ms", "800", "--image-pull-policy", "Never")
MESH = ("--protocol", "icmp", "--protocol", "tcp", "--protocol", "udp", "--protocol", "http")
Key = tuple[str, str, str]


def start(cluster: Cluster, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command, running; where no namespace is named in one of its own, so that it waits for no other's end."""
    if "--namespace" not in arguments:
        arguments = (*arguments, "--namespace", f"check-{secrets.token_hex(3)}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KPATROL_", "KUBE"))}
    return subprocess.Popen(
        [sys.executable, "-m", "kpatrol", *arguments, "--kubeconfig", str(cluster.kubeconfig)],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment | {"LANG": "C"},
    )  # fmt: skip


def until(process: subprocess.Popen[str], words: str) -> str:
    """What it told up to a line with those words."""
    assert process.stderr is not None
    told = ""
    for line in process.stderr:
        told += line
        if words in line:
            return told
    raise AssertionError(f"{words!r} was never told: {told}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """Exit code, the JSON it printed, what it told meanwhile, and how often it was said."""

    code: int
    json: Any
    told: str
    tries: int


def run(cluster: Cluster, folder: Path, *arguments: str) -> Ran:
    """The command to its end; said again where the machine itself was not fit to measure."""
    state = folder / "kpatrol-check.state.json"
    before = state.read_bytes() if state.exists() else None
    for tries in itertools.count(1):
        if before is not None:
            state.write_bytes(before)
        process = start(cluster, folder, *arguments, "--json")
        out, told = process.communicate(timeout=240)
        found = json.loads(out) if out else None
        if tries == 4 or found is None or not {p["reason"] for p in found.get("pairs", ())} & {"not_fit", "not_sent"}:
            break
    return Ran(code=process.returncode, json=found, told=told, tries=tries)


def counts(ran: Ran) -> tuple[int, int, int]:
    """Pairs that are good, bad, not known."""
    return ran.json["good"], ran.json["bad"], ran.json["unknown"]


def keys(found: Any) -> set[Key]:
    return {(p["src"], p["dst"], p["proto"]) for p in found["pairs"]}


def not_good(found: Any) -> dict[Key, str]:
    """The reason of each pair that is not good."""
    return {(p["src"], p["dst"], p["proto"]): p["reason"] for p in found["pairs"] if p["status"] != "good"}


def assert_good(code: int, found: Any, told: str) -> bool:
    """Nothing is bad. True where all is good; on a machine too busy to measure pairs are left of which it says so."""
    left = not_good(found)
    assert set(left.values()) <= {"not_fit", "not_sent"}, (told, left)
    assert code == (2 if left else 0), told
    return not left


def assert_nothing_left(*clusters: Cluster) -> None:
    for cluster in clusters:
        cluster.wait(
            lambda cluster=cluster: not cluster.json("get", "namespaces", "-l", LABEL)["items"],
            what="the check's namespace gone",
        )
        assert cluster.json("get", "daemonsets", "-A", "-l", LABEL)["items"] == []
