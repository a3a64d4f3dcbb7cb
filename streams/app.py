"""A Faust app on the pattern proven safe, and the process around it.

Rules held here and by `tests/unit/streams/test_safe_faust.py`: at least once, acks by hand and in order, one actor per
agent, an exception ends the process and acks nothing, topics are made by `kpatrol topics apply` alone. A table
needs no setting of its own: `app.Table(name, default=…, partitions=…)` has its changelog in `topics.apply`.
"""

import asyncio
import importlib
import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import faust
import uvloop

from streams.config import StreamsConfig
from streams.memory import settle
from streams.metrics import Metrics
from streams.parts import EXIT_RESTART, Hold, Parts
from topics.connection import KafkaConnection

TERM_LIMIT_S = 45.0
GROUPS = {name: f"kpatrol-{name}" for name in ("sink", "judge", "alarms", "hooks", "traces")}
log = logging.getLogger(__name__)


class ServiceModule(Protocol):
    """A module of `streams` that is a service of its own."""

    def attach(self, app: faust.App, parts: Parts) -> Sequence[Any]:
        """Add the service's agents, tables and timers to the app.

        Returns mode services (or none) that must have started before the app joins its group.
        """


class App(faust.App):  # type: ignore[misc]
    """A Faust app that writes nothing to disk: tables live in memory and in their changelogs."""

    def _create_directories(self) -> None:
        """Nothing to create, so the root filesystem may be read-only."""


def build(*, app_id: str, kafka: KafkaConnection, session_timeout_s: float = 20.0) -> faust.App:
    """The app `app_id` (its consumer group) with the settings that the safe pattern needs.

    A member that dies without a word is missed for `session_timeout_s` (broker's minimum 6 s by default).
    """
    return App(
        app_id,
        broker=[f"kafka://{address.strip()}" for address in kafka.bootstrap.split(",")],
        broker_credentials=credentials(kafka),
        store="memory://",
        autodiscover=False,
        processing_guarantee="at_least_once",
        agent_supervisor="mode.supervisors.CrashingSupervisor",
        key_serializer="raw",
        value_serializer="raw",
        stream_wait_empty=True,
        stream_buffer_maxsize=128,
        broker_commit_interval=1.0,
        broker_session_timeout=session_timeout_s,
        broker_heartbeat_interval=min(3.0, session_timeout_s / 6),
        broker_rebalance_timeout=30.0,
        # An idle member must not be thrown out; liveness is the watchdog's business.
        broker_max_poll_interval=1e8,
        consumer_max_fetch_size=4 << 20,
        consumer_auto_offset_reset="earliest",
        producer_compression_type="zstd",
        producer_max_request_size=4 << 20,
        producer_acks=-1,
        table_standby_replicas=0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        worker_redirect_stdouts=False,
    )


def credentials(kafka: KafkaConnection) -> Any:
    """Faust's form of the connection's credentials; None for PLAINTEXT."""
    context = kafka.ssl_context()
    if kafka.sasl_mechanism:
        return faust.SASLCredentials(
            username=kafka.sasl_username,
            password=kafka.sasl_password,
            ssl_context=context,
            mechanism=kafka.sasl_mechanism,
        )
    return faust.SSLCredentials(context=context) if context is not None else None


class Worker(faust.Worker):  # type: ignore[misc]
    """Faust's worker with a bound on stopping: during a JoinGroup a stop may hang until the join ends.

    Ending hard is safe: nothing that is not stored has been acknowledged.
    """

    def _on_sigterm(self) -> None:
        end_after(TERM_LIMIT_S)
        super()._on_sigterm()

    def _on_sigint(self) -> None:
        end_after(TERM_LIMIT_S)
        super()._on_sigint()


def end_after(seconds: float) -> None:
    """End the process hard unless it has ended by itself by then."""

    def end() -> None:
        log.critical("not stopped after %.0f s: ending hard", seconds)
        os._exit(EXIT_RESTART)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def main(*, service: str, config: StreamsConfig) -> NoReturn:
    """Build and run one of GROUPS until it is told to stop or fails; exits the process."""
    from streams import telemetry, unassigned
    from streams.health import Health
    from streams.watchdog import Watchdog

    # Faust's consumer thread makes its own loop from the policy.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    parts = Parts(config=config, metrics=Metrics(), hold=Hold())
    app = build(app_id=GROUPS[service], kafka=config.kafka, session_timeout_s=config.session_timeout_s)
    if config.otlp:
        telemetry.start(service=service, signals=config.otlp, metrics=parts.metrics)
    module: ServiceModule = importlib.import_module(f"streams.{service}")
    before = module.attach(app, parts)
    watchdog = Watchdog(app=app, parts=parts)
    health = Health(listen=config.health, metrics=parts.metrics, ready=lambda: watchdog.ready)
    worker = Worker(app, health, *before, loop=loop, quiet=True, override_logging=False)
    worker.spinner = None
    watchdog.start()
    unassigned.watch()
    settle()
    worker.execute_from_commandline()
    sys.exit(0)
