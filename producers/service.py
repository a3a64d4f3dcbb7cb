"""The agent's parts, put together, started in order and stopped in order.

Start: folder and incarnation, responder, Kafka (for ever, if it must be), old shares, rounds, heartbeat.
Stop (SIGTERM, SIGINT): no new rounds; running ones stop and are accounted; receipts; the leaving heartbeat. All of it
is bounded in time: what Kafka does not take stays in the spool for the next incarnation.
"""

import asyncio
import contextlib
import functools
import importlib.metadata
import logging
import signal
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from producers.config import Config, Serving
from producers.health import Answer, serve_health
from producers.heartbeat import Heartbeat
from producers.instrument import Instrument
from producers.journal import Journal
from producers.line import Line
from producers.load.caps import Governor
from producers.load.engine import run_load
from producers.membership import KnownMembers
from producers.metrics import Metrics
from producers.outbox import Outbox
from producers.receipts import Receipts
from producers.responder import serve
from producers.responder.canaries import Canaries
from producers.rounds import KEEP_US, Parts, Rounds
from producers.schedule import Clock
from producers.serving_account import ServingAccount
from producers.share import Store
from producers.spool import Spool
from producers.underload import Bench, Load
from topics import mesh_members, task_rounds

log = logging.getLogger(__name__)

_ROUNDS_PATIENCE_S = 2.0
_LAST_WORDS_S = 0.7


def version() -> str:
    """Version of the installed distribution."""
    try:
        return importlib.metadata.version("kpatrol")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def new_trace_id() -> bytes:
    """A trace id from the OpenTelemetry SDK's generator (16 bytes)."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    return RandomIdGenerator().generate_trace_id().to_bytes(16, "big")


def tls_context(serving: Serving) -> ssl.SSLContext | None:
    """What the HTTPS responder shows; None where it is off. Raises OSError, ssl.SSLError."""
    if not serving.https_port:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(serving.tls_cert_file, serving.tls_key_file)
    return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """The parts of one running agent."""

    config: Config
    clock: Clock
    metrics: Metrics
    instrument: Instrument
    members: KnownMembers
    spool: Spool
    line: Line
    outbox: Outbox
    rounds: Rounds
    receiving: ServingAccount
    heartbeat: Heartbeat


def build(
    *,
    config: Config,
    line: Line,
    load: Load,
    receipts: Receipts,
    spool: Spool,
    journal: Journal,
    incarnation: int,
    canaries: Canaries | None = None,
) -> Agent:
    """Put the parts together; nothing runs yet."""
    clock, metrics, instrument = Clock(), Metrics(), Instrument(flavour=config.flavour)
    publisher = line.sender
    members = KnownMembers(group=config.identity.group)
    outbox = Outbox(spool=spool, publisher=publisher)
    store = Store(spool=spool, outbox=outbox)
    receiving = ServingAccount(
        receipts=receipts, identity=config.identity, incarnation=incarnation, store=store, metrics=metrics
    )
    bench = Bench(
        config=config,
        incarnation=incarnation,
        version=version(),
        store=store,
        instrument=instrument,
        load=load,
        trace_id=new_trace_id,
    )
    rounds = Rounds(
        Parts(
            bench=bench,
            journal=journal,
            publisher=publisher,
            members=members,
            metrics=metrics,
            clock=clock,
            after_round=receiving.round_over,
            canaries=canaries,
        )
    )
    outbox.on_settled = rounds.on_settled
    heartbeat = Heartbeat(
        config=config,
        incarnation=incarnation,
        version=version(),
        publisher=publisher,
        spool=spool,
        running=lambda: rounds.turns.running,
        clock=clock,
        clock_state=instrument.clock,
    )
    return Agent(
        config=config,
        clock=clock,
        metrics=metrics,
        instrument=instrument,
        members=members,
        spool=spool,
        line=line,
        outbox=outbox,
        rounds=rounds,
        receiving=receiving,
        heartbeat=heartbeat,
    )


def _governed(config: Config) -> Load:
    """The load engine under the agent's caps."""
    return functools.partial(run_load, governor=Governor(config.limits))


async def run(config: Config, line: Line) -> None:
    """The agent until SIGTERM or SIGINT. Raises what a part that must not end has ended with."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    spool = Spool(folder=config.spool_dir, max_bytes=config.spool_max_bytes)
    journal = Journal(folder=config.spool_dir)
    now_us = time.time_ns() // 1000
    journal.forget(now_us=now_us, keep_us=KEEP_US)
    incarnation = journal.next_incarnation(now_us=now_us)
    identity = config.identity
    log.info("event=agent_starts agent=%s node=%s incarnation=%d", identity.agent, identity.node, incarnation)
    receipts, canaries = Receipts(), Canaries(agent=identity.agent)
    agent = build(
        config=config,
        line=line,
        load=_governed(config),
        receipts=receipts,
        spool=spool,
        journal=journal,
        incarnation=incarnation,
        canaries=canaries,
    )
    async with _responding(config, incarnation, receipts, canaries), _health(agent):
        left = agent.rounds.recover()
        log.info("event=agent_listens spool_batches=%d unfinished_rounds=%d", len(spool), left)
        await _work(agent, stop)
    spool.close()
    log.info("event=agent_stopped spool_batches=%d", len(spool))


async def _work(agent: Agent, stop: asyncio.Event) -> None:
    publishing = asyncio.create_task(agent.line.run())
    sending = asyncio.create_task(agent.outbox.run())
    listening = [
        asyncio.create_task(part)
        for part in (_hear_members(agent), _hear_rounds(agent), agent.receiving.run(), agent.heartbeat.run())
    ]
    stopping = asyncio.create_task(stop.wait())
    everything = [publishing, sending, *listening]
    try:
        done, _ = await asyncio.wait([stopping, *everything], return_when=asyncio.FIRST_COMPLETED)
        if stopping not in done:
            done.pop().result()
            raise RuntimeError("a part of the agent ended by itself")
        log.info("event=agent_stops running_rounds=%d", agent.rounds.turns.running)
        await _cancel(*listening)
        await agent.rounds.stop(patience_s=_ROUNDS_PATIENCE_S)
        agent.receiving.flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await agent.heartbeat.beat(leaving=True)
                await agent.outbox.empty()
    finally:
        await _cancel(stopping, *everything)


async def _cancel(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _hear_members(agent: Agent) -> None:
    name = f"kpatrol-agent-{agent.config.identity.agent}-members"
    async for followed in agent.line.hear(mesh_members.TOPIC, as_name=name):
        if followed.record is not None:
            agent.members.add(followed.record)


async def _hear_rounds(agent: Agent) -> None:
    name = f"kpatrol-agent-{agent.config.identity.agent}-rounds"
    async for followed in agent.line.hear(task_rounds.TOPIC, as_name=name):
        agent.rounds.heard(followed)


@contextlib.asynccontextmanager
async def _responding(config: Config, incarnation: int, receipts: Receipts, canaries: Canaries) -> AsyncIterator[None]:
    serving = config.serving
    responder = await serve(
        agent=config.identity.agent,
        incarnation=incarnation,
        address=serving.addresses,
        stream_addresses=serving.stream_addresses,
        http_port=serving.http_port,
        https_port=serving.https_port,
        tcp_port=serving.tcp_port,
        udp_port=serving.udp_port,
        drops=serving.drop_udp,
        canaries=canaries,
        tls=tls_context(serving),
        receipts=receipts,
    )
    try:
        yield
    finally:
        await responder.close()


@contextlib.asynccontextmanager
async def _health(agent: Agent) -> AsyncIterator[None]:
    if agent.config.health_listen is None:
        yield
        return
    host, port = agent.config.health_listen
    pages = {
        "/livez": lambda: Answer("200 OK", "ok\n"),
        # Being away from Kafka is no reason to be taken out of service: the peers' probes are still to be answered.
        "/readyz": lambda: Answer("200 OK", "ok\n"),
        "/metrics": lambda: Answer("200 OK", _metrics(agent)),
    }
    server = await serve_health(host=host, port=port, pages=pages)
    try:
        yield
    finally:
        server.close()


def _metrics(agent: Agent) -> str:
    metrics, now = agent.metrics, agent.instrument.read()
    metrics.set("rounds_running", agent.rounds.turns.running)
    metrics.set("spool_batches", len(agent.spool))
    metrics.set("spool_bytes", agent.spool.size_bytes)
    metrics.set("publish_repeats_total", agent.line.repeats)
    metrics.set("kafka_reachable", int(agent.line.reachable))
    metrics.set("cpu_us_total", now.cpu_us)
    metrics.set("throttled_us_total", now.cpu.throttled_us)
    metrics.set("resident_bytes", now.resident_bytes)
    metrics.set("socket_drops_total", now.socket_drops + sum(now.own_drops.values()))
    return metrics.text()
