"""Keeps the lab's services running, as a kubelet would: what ends is started again after a short wait.

The services count on it: a watchdog's exit is a recovery, and tests kill on purpose.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kpatrol.lab.processes import Child, ProcessRegister, spawn

POLL_S = 0.2
RESTART_WAIT_S = 0.5
# A service that ends this often within a minute will not be mended by another start.
RESTARTS_A_MINUTE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A process to keep alive: a Python module, or a program of the machine. `prefix` enters a namespace."""

    name: str
    module: str = ""
    program: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()

    def argv(self) -> list[str]:
        """The whole command."""
        command = self.program or (sys.executable, "-m", self.module)
        return [*self.prefix, *command, *self.arguments]


class Supervisor:
    """Services by name; `restarts` counts what had to be started again."""

    def __init__(self, *, register: ProcessRegister, logs: Path, say: Callable[[str], None]) -> None:
        self._register = register
        self._logs = logs
        self._say = say
        self._services: dict[str, Service] = {}
        self._children: dict[str, Child] = {}
        self._held: set[str] = set()
        self._ended_at: dict[str, list[float]] = {}
        self._watch: asyncio.Task[None] | None = None
        self.restarts = 0
        self.failed: str | None = None

    def start(self, service: Service) -> Child:
        """Start a service and keep it alive from now on."""
        self._services[service.name] = service
        self._children[service.name] = self._spawn(service)
        if self._watch is None:
            self._watch = asyncio.create_task(self._keep_alive())
        return self._children[service.name]

    def log_of(self, name: str) -> Path:
        """Where a service writes."""
        return self._logs / f"{name}.log"

    def last_lines(self, name: str, count: int = 15) -> str:
        """The end of a service's log."""
        return self._children[name].last_lines(count)

    def names(self) -> list[str]:
        """All services, in the order started."""
        return list(self._services)

    def is_running(self, name: str) -> bool:
        """Whether it runs just now; one that has ended comes back."""
        return self._children[name].is_running()

    async def kill(self, name: str) -> None:
        """kill -9; it comes back by itself."""
        await self._children[name].kill()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal (STOP and CONT for a hang)."""
        self._children[name].send(number)

    async def hold(self, name: str) -> None:
        """kill -9 and keep it away until `release`."""
        self._held.add(name)
        await self._children[name].kill()

    async def retire(self, name: str, *, grace_s: float = 60.0) -> int:
        """TERM, and not started again: the exit code. One that has not ended after `grace_s` is killed."""
        self._held.add(name)
        return await self._children[name].stop(grace_s=grace_s)

    def release(self, name: str) -> None:
        """Start what was held."""
        self._children[name] = self._spawn(self._services[name])
        self._held.discard(name)

    async def stop(self, *, order: Sequence[str | tuple[str, ...]], grace_s: float = 8.0) -> None:
        """Stop everything: in this order group by prefix (or several) of the name, the rest last."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        names = [n for prefix in order for n in self._services if n.startswith(prefix)]
        names += [n for n in self._services if n not in names]
        for prefix in [*order, ""]:
            group = [n for n in names if n.startswith(prefix) and n in self._children]
            await asyncio.gather(*(self._children.pop(n).stop(grace_s=grace_s) for n in group))

    def _spawn(self, service: Service) -> Child:
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        base = {"PATH": path, "HOME": os.environ.get("HOME", "/"), "PYTHONUNBUFFERED": "1"}
        base |= {k: v for k, v in os.environ.items() if k in ("LANG", "LC_ALL", "TMPDIR", "XDG_CACHE_HOME")}
        return spawn(
            register=self._register,
            name=service.name,
            argv=service.argv(),
            environment=base | dict(service.environment),
            log=self.log_of(service.name),
        )

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            for name, child in list(self._children.items()):
                if child.is_running() or name in self._held:
                    continue
                now = asyncio.get_running_loop().time()
                recent = [t for t in self._ended_at.get(name, []) if now - t < 60] + [now]
                self._ended_at[name] = recent
                if len(recent) > RESTARTS_A_MINUTE:
                    self.failed = f"{name} ends again and again; its last words:\n{child.last_lines()}"
                    return
                self._say(f"{name} ended with {child.exit_code}; starting it again")
                self.restarts += 1
                await asyncio.sleep(RESTART_WAIT_S)
                if name not in self._held:
                    self._children[name] = self._spawn(self._services[name])
