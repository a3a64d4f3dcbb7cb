"""Which tasks were deleted, as the controller says in cluster-events-v1 (`TaskDeleted`, object `task/<uid>`).

Read by every worker without a group, from the start each time: to close the alarms of a task once more does nothing.
"""

import logging
from typing import Any

import mode
from aiokafka.errors import KafkaError

from topics import cluster_events
from topics.cluster_events import TASK_DELETED, ClusterEvent
from topics.connection import KafkaConnection
from topics.follow import follow

REJOIN_S = 5.0
log = logging.getLogger(__name__)


class TaskEnds(mode.Service):  # type: ignore[misc]
    """The ends heard of: uid → when."""

    def __init__(self, *, kafka: KafkaConnection, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kafka = kafka
        self.heard: dict[str, int] = {}

    async def on_start(self) -> None:
        """Read on in the background."""
        self.add_future(self._follow())

    def hear(self, event: ClusterEvent) -> None:
        """Take note of an event, if it is one of these."""
        if event.reason == TASK_DELETED and event.object.startswith("task/"):
            self.heard[event.object.removeprefix("task/")] = event.at_us

    async def _follow(self) -> None:
        while not self.should_stop:
            try:
                async for followed in follow(cluster_events.TOPIC, kafka=self._kafka, client_id="kpatrol-alarms-ends"):
                    if followed.record is not None:
                        self.hear(followed.record)
            except (KafkaError, OSError) as error:
                log.warning("%s: %s; reading it again in %.0f s", cluster_events.TOPIC.name, error, REJOIN_S)
                await self.sleep(REJOIN_S)
