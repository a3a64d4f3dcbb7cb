"""alarms-v1: alarms opened, updated and closed; each record is readable by a person as it is.

Written by the alarms app, read by the hooks, the sink and anyone. Key: alarm id. Compacted, so the last word on every
alarm stays. One partition: an alarm's transitions are few and their order matters.
"""

from typing import Literal

from topics.spec import DAY_S, Topic, json_codec
from topics.task_rounds import Record

Severity = Literal["warning", "critical"]


class Alarm(Record, frozen=True, kw_only=True):
    """What every transition carries. `transition` counts from 1 and with `alarm_id` is the idempotency key.

    `since_us` is the start of the first round that showed it, `rounds` how many have since. `scope` is what of the
    element's traffic is met, `spared` what of it was measured and is not; `evidence_sql` is a query over the views that
    shows what it rests on. `tasks` are those that show it, `silenced` the reason of the maintenance that it falls into:
    then no hook is told.
    """

    alarm_id: str
    transition: int
    at_us: int
    since_us: int
    task: str
    element: str
    direction: str
    kind: str
    severity: Severity
    sentence: str
    round_id: int
    tasks: tuple[str, ...] = ()
    silenced: str = ""
    rounds: int = 0
    scope: str = ""
    spared: tuple[str, ...] = ()
    evidence_sql: str = ""


class AlarmOpened(Alarm, frozen=True, kw_only=True, tag="AlarmOpened"):
    """The thing has begun and lasted long enough to be told."""


class AlarmUpdated(Alarm, frozen=True, kw_only=True, tag="AlarmUpdated"):
    """It goes on and has changed by enough to be told again."""


class AlarmClosed(Alarm, frozen=True, kw_only=True, tag="AlarmClosed"):
    """It has been gone for long enough."""


AlarmRecord = AlarmOpened | AlarmUpdated | AlarmClosed

EXAMPLE = AlarmOpened(
    alarm_id="netreach/reach-task:node-3:ingress:loss",
    transition=1,
    at_us=1_790_000_010_000_000,
    since_us=1_790_000_000_000_000,
    task="netreach/reach-task",
    element="node-3",
    direction="ingress",
    kind="loss",
    severity="critical",
    sentence="node-3 loses 2.1 % [1.7-2.6] of what it receives, all peers, HTTP, since round 4",
    round_id=7,
    rounds=2,
    spared=("what it sends", "host network"),
    evidence_sql="SELECT * FROM v_finding WHERE task = 'netreach/reach-task' AND element = 'node-3'",
)

_encode, _decode = json_codec(AlarmRecord)

TOPIC: Topic[AlarmRecord] = Topic(
    name="alarms-v1",
    writers=("alarms",),
    readers=("hooks", "sink"),
    key=lambda r: r.alarm_id.encode(),
    encode=_encode,
    decode=_decode,
    example=EXAMPLE,
    partitions=1,
    retention_s=30 * DAY_S,
    cleanup="compact,delete",
)
