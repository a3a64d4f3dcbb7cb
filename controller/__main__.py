"""``python -m controller``: reads its environment, runs until SIGTERM.

Exit codes: 2 bad configuration or bad task files, 69 the API server cannot be reached, 75 another controller leads now.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import uuid
from dataclasses import dataclass

from controller.beside import Beside, BesideConfig
from controller.config import ControllerConfig
from controller.health import Pulse, serving
from controller.kubernetes.book import Where
from controller.kubernetes.errors import LostLeadership, Unreachable
from controller.loop import Controller
from controller.netchecker_api.facts import ClusterFacts
from controller.place import Lead, StatusSink, TaskSource
from controller.report_api.access import Access
from controller.source_files import StatusFolder, TaskFolder
from controller.tasks import TaskFileErrors
from topics.connection import BadConfiguration


async def _run_until_signal(
    controller: Controller,
    *,
    pulse: Pulse,
    listen: tuple[str, int] | None,
    beside: Beside,
    access: Access | None,
) -> None:
    async with serving(pulse, listen=listen, beside=beside):
        running = asyncio.create_task(_run(controller, beside, access))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, running.cancel)
        try:
            await running
        except asyncio.CancelledError:
            logging.getLogger("controller").info("stopped")


async def _run(controller: Controller, beside: Beside, access: Access | None) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(controller.run())
        group.create_task(beside.run(access=access))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    source: TaskSource
    sink: StatusSink
    lead: Lead | None
    facts: ClusterFacts | None = None
    access: Access | None = None


def _place(config: ControllerConfig) -> _Place:
    """Files or Kubernetes, ready to be read. Raises Unreachable."""
    given = config.kubernetes
    if given is None:
        source = TaskFolder(config.task_dir, config.limits)
        return _Place(source=source, sink=StatusFolder(config.state_dir), lead=None)
    # The client's library is large; a controller of files does without.
    from controller.kubernetes.door import connect
    from controller.kubernetes.lease import Leadership
    from controller.kubernetes.owner import strangers
    from controller.kubernetes.place import KubernetesPlace
    from controller.report_api.access import KubernetesAccess

    door = connect()
    for line in strangers(door):
        logging.getLogger("controller").error("%s", line)
    where = Where(
        namespace=given.namespace,
        agents=given.agents,
        multus_annotations=given.multus_annotations,
        dns_labels=given.dns_labels,
    )
    kubernetes = KubernetesPlace(door, where=where, limits=config.limits, me=given.pod, rack_label=given.rack_label)
    kubernetes.start()
    me = f"{given.pod}_{uuid.uuid4().hex[:8]}"
    lead = Leadership(door, namespace=given.namespace, name=given.lease, me=me)
    access = KubernetesAccess(door.api)
    return _Place(source=kubernetes, sink=kubernetes, lead=lead, facts=kubernetes, access=access)


def main() -> int:
    """Runs the controller; the exit code."""
    try:
        config = ControllerConfig.from_env(os.environ)
        beside = Beside(BesideConfig.from_env(os.environ), kafka=config.kafka)
    except (BadConfiguration, OSError) as error:
        print(f"controller: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(level=config.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Of what aiokafka tells at INFO nothing helps an operator.
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    pulse = Pulse()
    try:
        place = _place(config)
        controller = Controller(
            kafka=config.kafka,
            source=place.source,
            state=place.sink,
            settings=config.settings,
            pulse=pulse,
            lead=place.lead,
            told=beside,
        )
        beside.watch(observed=controller.observed, live=controller, facts=place.facts)
        controller.load()
    except TaskFileErrors as errors:
        print(errors, file=sys.stderr)
        return 2
    except Unreachable as error:
        print(f"controller: {error}", file=sys.stderr)
        return 69
    code = 0
    try:
        asyncio.run(
            _run_until_signal(controller, pulse=pulse, listen=config.health_listen, beside=beside, access=place.access)
        )
    except* LostLeadership as lost:
        logging.getLogger("controller").warning("%s: beginning anew", lost.exceptions[0])
        code = 75
    return code


if __name__ == "__main__":
    sys.exit(main())
