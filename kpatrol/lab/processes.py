"""Processes of a lab: started so that they end with it, and named so that a reused pid is never taken for one.

A pid alone names nothing: the kernel hands it out again. Pid plus start time does, until the next boot.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kpatrol.lab.commands import find_program

# In the environment of every child and so of all its descendants: the cleaner finds those nobody recorded.
LAB_ID_VARIABLE = "KPATROL_LAB_ID"
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    pid: int
    started: str


class ProcessRegister(Protocol):
    """Where a child is written down; `kpatrol.lab.state.LabState` is one."""

    @property
    def id(self) -> str: ...

    def register_process(self, identity: ProcessIdentity, *, name: str) -> None: ...


def start_time(pid: int) -> str | None:
    """When a process started, as an opaque text; None for one that is gone or only waits to be reaped."""
    if not sys.platform.startswith("linux"):
        return _start_time_by_ps(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name is in brackets and may hold anything, so fields are counted from the last bracket.
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else rest[18]


def _start_time_by_ps(pid: int) -> str | None:
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def identity_of(pid: int) -> ProcessIdentity | None:
    started = start_time(pid)
    return None if started is None else ProcessIdentity(pid, started)


def is_alive(identity: ProcessIdentity) -> bool:
    return start_time(identity.pid) == identity.started


def marked_processes(lab_id: str) -> list[ProcessIdentity]:
    """Every other process of this user whose environment names the lab, recorded or not. Linux only, else empty."""
    mark = f"{LAB_ID_VARIABLE}={lab_id}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue  # gone meanwhile, or another user's
        pid = int(folder.name)
        if pid == os.getpid() or mark not in environment.split(b"\0"):
            continue
        if (identity := identity_of(pid)) is not None:
            found.append(identity)
    return found


class Child:
    """One process of the lab, leader of its own process group."""

    def __init__(self, process: subprocess.Popen[bytes], *, name: str, log: Path) -> None:
        self._process = process
        self.name = name
        self.log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative is the signal that ended it."""
        return self._process.poll()

    def is_running(self) -> bool:
        return self._process.poll() is None

    async def wait(self, *, timeout_s: float) -> int | None:
        """The exit code, or None when it still runs after `timeout_s`."""
        end = time.monotonic() + timeout_s
        while (code := self._process.poll()) is None and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        return code

    def send(self, number: signal.Signals) -> None:
        """Signal the process alone (STOP, CONT, TERM, ...); nothing happens when it has ended."""
        self._process.send_signal(number)

    async def stop(self, *, grace_s: float = 10.0) -> int:
        """TERM, then KILL for the whole group after `grace_s`; returns the exit code."""
        self.send(signal.SIGTERM)
        code = await self.wait(timeout_s=grace_s)
        self._kill_group()
        return self._process.wait() if code is None else code

    async def kill(self) -> int:
        """KILL for the whole group at once; returns the exit code."""
        self._kill_group()
        return self._process.wait()

    def _kill_group(self) -> None:
        # The group's id stays taken while it has members, so a leader that is gone does no harm here.
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return

    def last_lines(self, count: int = 15) -> str:
        """The end of its log, for error messages."""
        try:
            with self.log.open(errors="replace") as lines:
                return "".join(deque(lines, maxlen=count)).strip()
        except FileNotFoundError:
            return ""


def spawn(
    *,
    register: ProcessRegister,
    name: str,
    argv: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    folder: Path | None = None,
) -> Child:
    """Start a process that dies with its parent, write it down, and send its output to `log` (appended).

    `environment` is the whole environment of the child. Call it from a thread that lives as long as the lab:
    the kernel ties the parent's death to the thread that started the child.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*_dies_with_parent(), *argv],
            env={**environment, LAB_ID_VARIABLE: register.id},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,  # the terminal's Ctrl-C is for the lab, which then ends its children in order
        )
    identity = identity_of(process.pid)
    if identity is not None:
        register.register_process(identity, name=name)
    return Child(process, name=name, log=log)


def _dies_with_parent() -> list[str]:
    # setpriv sets the death signal and then becomes the program: same pid, and no Python code between fork and exec.
    setpriv = find_program("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
