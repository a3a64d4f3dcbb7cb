"""Real Helm on the project's chart: rendering and releases."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.binaries import ensure

CHART = Path(__file__).parents[2] / "deploy" / "chart"
# Helm built outside of its own pipeline takes every cluster for a very old one when there is none to ask.
KUBERNETES = "1.35.0"


class HelmFailed(Exception):
    """Helm's own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Helm:
    """The program; with a kubeconfig also against a cluster."""

    chart: Path = CHART
    kubeconfig: Path | None = None

    def run(self, *arguments: str) -> str:
        """What it said on standard output. Raises HelmFailed."""
        program = str(ensure("helm")["helm"])
        env = {**os.environ, "KUBECONFIG": str(self.kubeconfig or "/nowhere")}
        done = subprocess.run([program, *arguments], env=env, capture_output=True, text=True, timeout=180, check=False)
        if done.returncode:
            raise HelmFailed(f"{done.stderr}\n{done.stdout}")
        return done.stdout

    def documents(self, *arguments: str) -> list[dict[str, Any]]:
        """The objects that `helm template` gives, hooks included."""
        text = self.run(
            "template", "kpatrol", str(self.chart), "--namespace", "kpatrol", "--kube-version", KUBERNETES, *arguments
        )
        return [document for document in yaml.safe_load_all(text) if document]


def as_list(documents: Sequence[dict[str, Any]]) -> str:
    """One document for kubectl; JSON, because YAML's dialects differ on what is a word and what is a truth value."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)})


def pod_specs(documents: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every pod's metadata and spec, by kind/name of the object that makes it."""
    found: dict[str, dict[str, Any]] = {}
    for document in documents:
        name = f"{document['kind']}/{document['metadata']['name']}"
        if document["kind"] == "Pod":
            found[name] = {"metadata": document["metadata"], "spec": document["spec"]}
        elif document["kind"] in ("Deployment", "DaemonSet", "StatefulSet", "Job"):
            found[name] = document["spec"]["template"]
    return found
