"""The agent's report of itself, every few seconds: who and where it is, what it serves, how its resolver answers.

The first is sent only when the responder listens, so that whoever becomes a member answers. At most one is on its way:
after an outage the controller hears the newest, not a queue of old ones.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from producers.clock_sync import ClockState, clock_state
from producers.config import Config
from producers.interfaces import interfaces
from producers.publish import Sender
from producers.schedule import Clock
from producers.spool import Spool
from producers.timed_urls import time_urls
from topics import agent_reports
from topics.agent_reports import AgentReport, TimedUrl

log = logging.getLogger(__name__)

_LOOKUP_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What changes from one report to the next."""

    at_us: int
    interfaces: dict[str, tuple[str, ...]]
    lookups: dict[str, tuple[str, ...]]
    spool_bytes: int
    spool_batches: int
    running_rounds: int
    leaving: bool
    clock: ClockState | None = None
    timed_urls: tuple[TimedUrl, ...] = ()
    uptime_s: int = 0


def report(*, config: Config, incarnation: int, started_us: int, version: str, vitals: Vitals) -> AgentReport:
    """One heartbeat. Pure."""
    identity, serving = config.identity, config.serving
    return AgentReport(
        agent=identity.agent,
        incarnation=incarnation,
        node=identity.node,
        at_us=vitals.at_us,
        started_us=started_us,
        interval_s=config.heartbeat_s,
        version=version,
        group=identity.group,
        flavour=config.flavour,
        zone=identity.zone,
        rack=identity.rack,
        pod=identity.pod,
        ipv4=serving.ipv4,
        ipv6=serving.ipv6,
        node_ipv4=serving.node_ipv4,
        node_ipv6=serving.node_ipv6,
        http_port=serving.http_port,
        https_port=serving.https_port,
        tcp_port=serving.tcp_port,
        udp_port=serving.udp_port,
        interfaces=vitals.interfaces,
        lookups=vitals.lookups,
        timed_urls=vitals.timed_urls,
        uptime_s=vitals.uptime_s,
        clock_offset_us=vitals.clock.offset_us if vitals.clock else None,
        clock_error_us=vitals.clock.error_us if vitals.clock else None,
        spool_bytes=vitals.spool_bytes,
        spool_batches=vitals.spool_batches,
        running_rounds=vitals.running_rounds,
        leaving=vitals.leaving,
    )


async def look_up(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Addresses of each name by this machine's resolver; none for a name that has no answer in time."""
    wanted = list(names)
    found = await asyncio.gather(*(_addresses(name) for name in wanted))
    return dict(zip(wanted, found, strict=True))


async def _addresses(name: str) -> tuple[str, ...]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_LOOKUP_PATIENCE_S):
            infos = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(info[4][0]) for info in infos))


def uptime_s(proc: Path = Path("/proc")) -> int:
    """Whole seconds since the node started; 0 where the kernel does not say."""
    try:
        return int(float((proc / "uptime").read_text().split()[0]))
    except (OSError, ValueError, IndexError):
        return 0


class Heartbeat:
    """Sends the reports."""

    def __init__(
        self,
        *,
        config: Config,
        incarnation: int,
        version: str,
        publisher: Sender,
        spool: Spool,
        running: Callable[[], int],
        clock: Clock,
        clock_state: Callable[[], ClockState | None] = clock_state,
    ) -> None:
        self._config = config
        self._incarnation = incarnation
        self._version = version
        self._publisher = publisher
        self._spool = spool
        self._running = running
        self._clock = clock
        self._clock_state = clock_state
        self._started_us = clock.wall_us()
        self._under_way: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Report every `heartbeat_s` until cancelled."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        try:
            while True:
                if self._under_way is None or self._under_way.done():
                    self._under_way = asyncio.create_task(self.beat())
                due_s = max(due_s + self._config.heartbeat_s, loop.time())
                await asyncio.sleep(due_s - loop.time())
        finally:
            if self._under_way is not None:
                self._under_way.cancel()

    async def beat(self, *, leaving: bool = False) -> None:
        """Send one report; returns when Kafka has it."""
        lookups: dict[str, tuple[str, ...]] = {}
        timed: tuple[TimedUrl, ...] = ()
        if not leaving:
            # A URL that hangs must not make the report late.
            patience_s = min(2 * _LOOKUP_PATIENCE_S, self._config.heartbeat_s / 2)
            lookups, timed = await asyncio.gather(
                look_up(self._config.lookups), time_urls(self._config.probe_urls, patience_s=patience_s)
            )
        vitals = Vitals(
            at_us=self._clock.wall_us(),
            interfaces=interfaces(),
            lookups=lookups,
            timed_urls=timed,
            uptime_s=uptime_s(),
            spool_bytes=self._spool.size_bytes,
            spool_batches=len(self._spool),
            running_rounds=self._running(),
            leaving=leaving,
            clock=self._clock_state(),
        )
        record = report(
            config=self._config,
            incarnation=self._incarnation,
            started_us=self._started_us,
            version=self._version,
            vitals=vitals,
        )
        topic = agent_reports.TOPIC
        await self._publisher.send(topic=topic.name, key=topic.key(record), value=topic.encode(record))
