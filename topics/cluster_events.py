"""cluster-events-v1: node, agent, rollout and service changes that explain findings and annotate graphs.

Written by the controller, read by the sink and the alarms. Key: the object, so one object's changes stay in order.
"""

from topics.spec import DAY_S, Topic, json_codec
from topics.task_rounds import Record

# The object is `task/<uid>`: the alarms close those of the task.
TASK_DELETED = "TaskDeleted"


class ClusterEvent(Record, frozen=True, kw_only=True, tag="ClusterEvent"):
    """Something changed: `object` is kind/name, `reason` one CamelCase word, `message` a sentence."""

    object: str
    node: str
    reason: str
    message: str
    at_us: int


EXAMPLE = ClusterEvent(
    object="agent/node-3",
    node="node-3",
    reason="AgentGone",
    message="node-3 has not reported for 15 s",
    at_us=1_790_000_000_000_000,
)

_encode, _decode = json_codec(ClusterEvent)

TOPIC: Topic[ClusterEvent] = Topic(
    name="cluster-events-v1",
    writers=("controller",),
    readers=("sink", "alarms"),
    key=lambda r: r.object.encode(),
    encode=_encode,
    decode=_decode,
    example=EXAMPLE,
    partitions=1,
    retention_s=30 * DAY_S,
)
