"""agent-reports-v1: each agent's heartbeat, netchecker's report included.

Written by agents, read by the controller and the sink. Key: node and flavour; compacted, and kept for a time, so the
newest report of every agent is always there and the recent past too.
"""

import msgspec

from topics.spec import DAY_S, Topic, json_codec
from topics.task_rounds import Record


class TimedUrl(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One timed HTTP request of the report, in microseconds; a phase that was not reached is 0.

    `connected`: a connection was had (for https with TLS). `status` is 0 where no reply came. `connect_us` is name
    lookup and handshake together, `server_us` from the request's end to the reply's first byte, `transfer_us` the rest.
    """

    url: str
    connected: bool = False
    status: int = 0
    dns_us: int = 0
    tcp_us: int = 0
    connect_us: int = 0
    server_us: int = 0
    transfer_us: int = 0
    total_us: int = 0
    error: str = ""


class AgentReport(Record, frozen=True, kw_only=True, tag="AgentReport"):
    """Who an agent is and how it is. `incarnation` is new with every start; it never goes down.

    `interval_s` is the heartbeat's own period: silent for two of them is outdated, for three is gone.
    `leaving` is true in the last report of an orderly stop. `flavour` is `host` in the node's network namespace.
    `lookups` are addresses by name, none where a name had no answer; `uptime_s` is the node's.
    `clock_offset_us` and `clock_error_us` are the kernel's own, None while nothing disciplines the clock.
    """

    agent: str
    incarnation: int
    node: str
    at_us: int
    started_us: int
    interval_s: float
    version: str
    group: str = "default"
    flavour: str = "pod"
    zone: str = ""
    rack: str = ""
    pod: str = ""
    ipv4: str = ""
    ipv6: str = ""
    node_ipv4: str = ""
    node_ipv6: str = ""
    http_port: int = 80
    https_port: int = 0
    tcp_port: int = 0
    udp_port: int = 0
    interfaces: dict[str, tuple[str, ...]] = {}
    lookups: dict[str, tuple[str, ...]] = {}
    timed_urls: tuple[TimedUrl, ...] = ()
    uptime_s: int = 0
    clock_offset_us: int | None = None
    clock_error_us: int | None = None
    spool_bytes: int = 0
    spool_batches: int = 0
    running_rounds: int = 0
    leaving: bool = False


EXAMPLE = AgentReport(
    agent="node-1",
    incarnation=1_790_000_000_000_000,
    node="node-1",
    at_us=1_790_000_000_000_000,
    started_us=1_790_000_000_000_000,
    interval_s=5.0,
    version="0.1.0",
    ipv4="10.0.0.1",
)

_encode, _decode = json_codec(AgentReport)

TOPIC: Topic[AgentReport] = Topic(
    name="agent-reports-v1",
    writers=("agent",),
    readers=("controller", "sink"),
    key=lambda r: f"{r.node}/{r.flavour}/{r.agent}".encode(),
    encode=_encode,
    decode=_decode,
    example=EXAMPLE,
    partitions=4,
    retention_s=DAY_S,
    cleanup="compact,delete",
)
