"""task-rounds-v1: the rounds that the agents run.

Written by the controller, read by every agent without a consumer group (each sees all rounds). Key: task uid, so
the rounds of one task stay in order. A new leader reads the topic to its end before it publishes; where two
records of one round exist, the first wins.
"""

from typing import Any

import msgspec

from topics.outcome import Layer, Proto
from topics.spec import DAY_S, Topic, json_codec

# A payload size that each agent works out for itself: the largest that its path to the target takes unfragmented.
FULL_SIZE = 0xFFFF
# The kind of a round that looks more closely at what another has found.
FOLLOW_UP = "FollowUp"


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """Base of every control record."""


class Expect(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the task calls good: least share of successes, greatest mean delay, HTTP status, DNS rcode (None: any)."""

    success_rate: float = 1.0
    mean_delay_ms: int = 5000
    status_code: int | None = None
    rcode: int | None = None


class Target(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to send requests to.

    `name` is the report's name of it (kdoctor's form, e.g. `AgentPodV4IP_pod_10.0.0.1`), `dst` the short name that
    tables group by. `address` is an IP or a host name; empty with `own_node` = the probing agent's own node address.
    `agent` is set where the target is one of our agents: any other who answers is `wrong_peer`. `url_path` and
    `record_type` replace those of the round's `http` and `dns` where they are not empty. A target that is `together`
    is asked at the very moments of the one before it.
    """

    name: str
    dst: str
    proto: Proto
    layer: Layer
    address: str
    port: int
    family: int = 4
    own_node: bool = False
    agent: str = ""
    dst_node: str = ""
    dst_zone: str = ""
    dst_rack: str = ""
    size: int = 0
    url_path: str = ""
    record_type: str = ""
    together: bool = False


class Mesh(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Probes among the members themselves. `degree` 0 is the full mesh; k is a ring mesh of k offsets a round.

    `sizes` are payloads of UDP and ICMP in bytes, 0 the smallest and FULL_SIZE what just fits the MTU; other protocols
    are asked once whatever the sizes. `source_ports` is how many ports a UDP stream takes in turn, `dscp` the packets'
    mark. `hops` above 0 has every agent trace its ways to its UDP peers beside the load, with hop limits up to that.
    """

    protos: tuple[Proto, ...] = (Proto.http,)
    families: tuple[int, ...] = (4,)
    degree: int = 0
    sizes: tuple[int, ...] = (0,)
    source_ports: int = 4
    dscp: int = 0
    hops: int = 0


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an HTTP request carries; `url_path` with query. `verify` with an empty `ca_file` uses the system's roots.

    Key material never enters a topic: files are paths inside an agent that mounts them. So is `body_folder`: its files
    are the body, as one JSON object of names and texts.
    """

    method: str = "GET"
    host_header: str = ""
    url_path: str = "/"
    headers: tuple[str, ...] = ()
    body: str = ""
    body_folder: str = ""
    http2: bool = False
    tls: bool = False
    verify: bool = False
    server_name: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    new_connection: bool = False


class DnsRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A DNS question. `protocol` is udp, tcp or tcp-tls; `record_type` A or AAAA.

    Over UDP: `attempts` in all at a query that times out, `tcp_fallback` asks once more by TCP what came truncated;
    each is a row. With `race` two targets that are `together` are asked from one new socket at the same moment.
    """

    domain: str
    record_type: str = "A"
    protocol: str = "udp"
    attempts: int = 1
    tcp_fallback: bool = False
    race: bool = False


class Canary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A loss that we make ourselves to see that it is reported: `dst` ignores `share` (0 to 1) of `src`'s datagrams.

    Both are names of agents. Which ones it ignores follows from round and number of the request.
    """

    src: str
    dst: str
    src_node: str
    dst_node: str
    share: float


class MembersRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which membership a round is made for: `count` members, `digest` as in mesh-members-v1."""

    group: str
    epoch: int
    digest: str
    count: int


class RoundScheduled(Record, frozen=True, kw_only=True, tag="RoundScheduled"):
    """One round of a task, complete: an agent needs this and the membership, nothing else.

    Times are microseconds since the epoch. `rate` is requests/s of each agent to each target. `planned` is the
    number of requests all members together owe (topics.share computes it). `unresolved` names what the task asked
    for and the cluster does not have. `load_class` is `exclusive` (runs alone on its agents), `normal`, or `background`
    (gives way to an exclusive one that waits). `spec` is the task's own, under its YAML names, and `created_us` when
    the task was made: what a report still says when the task is gone. `only` names the agents that take part, empty for
    all members; `follows` is the uid of the task whose finding a round of kind FOLLOW_UP looks at more closely.
    """

    round_id: int
    number: int
    task_uid: str
    task: str
    kind: str
    start_us: int
    deadline_us: int
    duration_s: float
    rate: float
    timeout_ms: int
    members: MembersRef
    planned: int
    expect: Expect = Expect()
    mesh: Mesh | None = None
    targets: tuple[Target, ...] = ()
    http: HttpRequest | None = None
    dns: DnsRequest | None = None
    unresolved: tuple[str, ...] = ()
    load_class: str = "normal"
    cluster: str = "lab"
    spec: dict[str, Any] = {}
    created_us: int = 0
    only: tuple[str, ...] = ()
    follows: str = ""
    canary: Canary | None = None


class RoundCancelled(Record, frozen=True, kw_only=True, tag="RoundCancelled"):
    """Stop a round at once; an empty task_uid with round_id 0 stops everything (the global stop)."""

    round_id: int
    task_uid: str
    reason: str
    at_us: int


TaskRound = RoundScheduled | RoundCancelled

EXAMPLE = RoundScheduled(
    round_id=7,
    number=1,
    task_uid="4b2f",
    task="netreach/reach-task",
    kind="NetReach",
    start_us=1_790_000_000_000_000,
    deadline_us=1_790_000_060_000_000,
    duration_s=10.0,
    rate=10.0,
    timeout_ms=1500,
    members=MembersRef(group="default", epoch=1, digest="ab12", count=3),
    planned=600,
    mesh=Mesh(),
    http=HttpRequest(),
)

_encode, _decode = json_codec(TaskRound)

TOPIC: Topic[TaskRound] = Topic(
    name="task-rounds-v1",
    writers=("controller",),
    readers=("agent", "controller"),
    key=lambda r: r.task_uid.encode(),
    encode=_encode,
    decode=_decode,
    example=EXAMPLE,
    partitions=1,
    retention_s=7 * DAY_S,
)
