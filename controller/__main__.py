"""``python -m controller``: reads its environment, runs until SIGTERM.

Exit code 2: bad configuration or bad task files.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from controller.beside import Beside, BesideConfig
from controller.config import ControllerConfig
from controller.health import Pulse, serving
from controller.loop import Controller
from controller.source_files import StatusFolder, TaskFolder
from controller.tasks import TaskFileErrors
from topics.connection import BadConfiguration


async def _run_until_signal(
    controller: Controller, *, pulse: Pulse, listen: tuple[str, int] | None, beside: Beside
) -> None:
    async with serving(pulse, listen=listen, beside=beside):
        running = asyncio.create_task(_run(controller, beside))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, running.cancel)
        try:
            await running
        except asyncio.CancelledError:
            logging.getLogger("controller").info("stopped")


async def _run(controller: Controller, beside: Beside) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(controller.run())
        group.create_task(beside.run())


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
    controller = Controller(
        kafka=config.kafka,
        source=TaskFolder(config.task_dir, config.limits),
        state=StatusFolder(config.state_dir),
        settings=config.settings,
        pulse=pulse,
        told=beside,
    )
    beside.watch(observed=controller.observed, live=controller)
    try:
        controller.load()
    except TaskFileErrors as errors:
        print(errors, file=sys.stderr)
        return 2
    asyncio.run(_run_until_signal(controller, pulse=pulse, listen=config.health_listen, beside=beside))
    return 0


if __name__ == "__main__":
    sys.exit(main())
