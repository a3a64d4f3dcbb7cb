"""What a check of many nodes asks of the API server: counted from its audit log, with kubelets that stand in.

Measured beside one exec stream a node: at 200 nodes 22 requests over two waves (45 s); at 500 nodes 25 requests of a
check that is stopped in its third wave, and 33 of the `resume` that goes on to the end (two minutes for both).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kpatrol.check.manifests import LABEL
from kpatrol.check.state import Kept, left_of
from tests.cluster.apiserver import ApiServer, running_apiserver
from tests.cluster.checking import until
from tests.cluster.standins import running_standins

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
QUICK = ("--json", "--requests", "2", "--rate", "4", "--protocol", "tcp", "--wait-s", "240")
# What is allowed for each node beside its exec streams.
ALLOWED = 12


def start(api: ApiServer, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command, running."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KPATROL_", "KUBE"))}
    return subprocess.Popen(
        [sys.executable, "-m", "kpatrol", *arguments, "--kubeconfig", str(api.kubeconfig), *QUICK],
        cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def requests(api: ApiServer) -> Iterator[tuple[str, str]]:
    """What checks asked so far: id, and `exec` for a stream. A stream has two entries in the log: begun, ended."""
    for event in api.audit():
        agent = event.get("userAgent", "")
        if event["user"]["username"] == "admin" and agent.startswith(("OpenAPI-Generator", "Python/")):
            yield event["auditID"], event.get("objectRef", {}).get("subresource", "")


def assert_light(api: ApiServer, *, before: set[str], nodes: int, what: str) -> None:
    """Since then: one exec stream a node, and so few requests that they do not grow with the nodes."""
    asked = {key: kind for key, kind in requests(api) if key not in before}
    streams = sum(kind == "exec" for kind in asked.values())
    others = len(asked) - streams
    print(f"{what}, {nodes} nodes: {others} requests ({others / nodes:.2f} a node) + {streams} exec streams")
    assert streams == nodes, "one stream a node, over all waves"
    assert 0 < others <= nodes < ALLOWED * nodes


def test_requests_to_the_api_server_at_200_nodes(tmp_path: Path) -> None:
    nodes, degree = 200, 6
    with running_apiserver(controllers=True) as api, running_standins(api, nodes=nodes) as seen:
        process = start(api, tmp_path, "check", "--degree", str(degree), "--wave", "3")
        out, told = process.communicate(timeout=300)
        assert process.returncode == 0, told[-3000:] + out[:2000]
        found = json.loads(out)
        total = nodes * degree
        assert (found["good"], found["planned"], found["stored"]) == (total, 2 * total, 2 * total)
        assert "wave 2 of 2" in told
        assert (seen.opened, seen.most) == (nodes, nodes)
        assert_light(api, before=set(), nodes=nodes, what="check")


def test_a_check_of_500_nodes_is_stopped_and_resume_goes_on_to_its_end(tmp_path: Path) -> None:
    """Every node asks 40 others, ten at one time; stopped in the third of four waves."""
    nodes, degree, wave = 500, 40, 10
    state = tmp_path / "kpatrol-check.state.json"
    with running_apiserver(controllers=True) as api, running_standins(api, nodes=nodes) as seen:
        options = ("--degree", str(degree), "--wave", str(wave))
        process = start(api, tmp_path, "check", *options)
        told = until(process, "wave 3 of 4")
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=120)
        assert process.returncode == 2, told + rest
        assert "stopped; `kpatrol resume` goes on from here" in rest
        assert json.loads(out)["exit_code"] == 2
        left = left_of(msgspec.json.decode(state.read_bytes(), type=Kept))
        assert len(left) == nodes * 2 * wave, "two waves of four"
        namespaces = api.commands.json("get", "namespaces", "-l", LABEL)["items"]
        assert all("deletionTimestamp" in namespace["metadata"] for namespace in namespaces)
        assert_light(api, before=set(), nodes=nodes, what="check")
        before = {key for key, _ in requests(api)}

        process = start(api, tmp_path, "resume", *options)
        out, told = process.communicate(timeout=300)
        assert process.returncode == 0, told[-3000:] + out[:2000]
        found: Any = json.loads(out)
        assert {(pair["src"], pair["dst"]) for pair in found["pairs"]} == left, "what was left, and nothing else"
        assert (found["good"], found["bad"], found["unknown"]) == (len(left), 0, 0)
        assert found["planned"] == found["stored"] == 2 * len(left)
        assert "wave 2 of 2" in told, "whole waves stay whole"
        assert_light(api, before=before, nodes=nodes, what="resume")
        assert (seen.opened, seen.most) == (2 * nodes, nodes)
        again = start(api, tmp_path, "resume", *options)
        out, told = again.communicate(timeout=60)
        assert (again.returncode, json.loads(out)["pairs"]) == (0, [])
