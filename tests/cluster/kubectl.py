"""Real kubectl, run to its end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kpatrol.lab.commands import run_command


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubectl:
    """kubectl as one user; `prefix` is put before the command (to enter a namespace)."""

    program: Path
    kubeconfig: Path
    folder: Path
    prefix: tuple[str, ...] = ()

    def run(self, *arguments: str, stdin: str = "", kubeconfig: Path | None = None, timeout_s: float = 60) -> str:
        """What it said on standard output; raises `CommandFailed` with its error."""
        # Its cache of what the server knows is per server; here servers come and go on the same ports.
        command = [
            *self.prefix,
            str(self.program),
            f"--kubeconfig={kubeconfig or self.kubeconfig}",
            f"--cache-dir={self.folder / 'kubectl-cache'}",
            *arguments,
        ]
        return run_command(command, stdin=stdin, timeout_s=timeout_s)

    def json(self, *arguments: str, kubeconfig: Path | None = None) -> Any:
        """`kubectl … -o json`, parsed."""
        return json.loads(self.run(*arguments, "-o", "json", kubeconfig=kubeconfig))
