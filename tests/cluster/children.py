"""The processes of one cluster: started with its mark, and every one waited for at the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from kpatrol.lab.processes import Child, spawn
from kpatrol.lab.state import LabState

_PASSED_ON = ("HOME", "TMPDIR", "LANG", "LC_ALL", "XDG_CACHE_HOME")


class Children:
    """Start them from the thread that lives as long as the cluster: the kernel ties their life to it."""

    def __init__(self, lab: LabState) -> None:
        self._lab = lab
        self._all: list[Child] = []

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        folder: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Child:
        """Start it; `settings` are variables of its own."""
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | dict(settings or {})
        # On Debian a plain user's path lacks what containerd and kubelet look for.
        environment["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        child = spawn(register=self._lab, name=name, argv=argv, environment=environment, log=log, folder=folder)
        self._all.append(child)
        return child

    def running(self) -> list[Child]:
        return [child for child in self._all if child.is_running()]

    def kill(self) -> None:
        """kill -9 of all that runs, the youngest first."""
        for child in reversed(self._all):
            asyncio.run(child.kill())
