"""Trust in the instrument: was each agent fit to measure in this round.

An agent that was late, throttled, starved or could not send says nothing certain about the network. Its round is
`degraded`, with the reasons; failures that may be its own make the verdict `unknown`, never `fail`.

What counts as unfit follows from what it would do to the results (LIMITS):
- Lateness. What is sent late is also read late, since it is the same loop. Beside the round's timeout that forges
  losses (a reply in time read as none), so it may be a small share of it. Whatever the timeout, 50 ms is half a period
  of a CPU quota: who runs out of one is later than that in far more than 1 %. And below 10 ms it is what sharing a
  CPU does to anybody: five agents on two cores are 3 to 5 ms late in their worst 1 %, 20 ms beside other work. The
  gap between requests says nothing: at 1,000/s each ms is one.
- A standstill of the loop, likewise beside the timeout: everything under way is read so much later.
- Throttling beside the round's length: a quota reached now and then in a long round touches few requests.
- What has no threshold: requests not sent (but for those that were told to stop), packets dropped in own sockets.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from streams.judging.words import plural
from topics.round_progress import NodeCounters
from topics.round_verdicts import Finding, Trust

# The engine's word for requests that a person or a changed task took back: no weakness of the instrument.
TAKEN_BACK = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitness:
    """What one agent said of itself when it finished its share, and what it was asked to do.

    `timeout_us` and `duration_us` are the round's; 0 is not known.
    """

    agent: str
    node: str
    unsent: int = 0
    unsent_causes: Mapping[str, int] = field(default_factory=dict)
    asked_rate: float = 0.0
    achieved_rate: float = 0.0
    lateness_p99_us: int = 0
    loop_lag_max_us: int = 0
    throttled_us: int = 0
    cpu_wait_us: int = 0
    socket_drops: int = 0
    conntrack_share: float = 0.0
    timeout_us: int = 0
    duration_us: int = 0
    node_counters: NodeCounters | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Beyond which an agent's account is not taken at its word. Shares are of the round's own times."""

    lateness_least_us: int = 10_000
    lateness_most_us: int = 50_000
    lateness_of_timeout: float = 0.05
    stall_least_us: int = 100_000
    stall_of_timeout: float = 0.25
    throttled_least_us: int = 50_000
    throttled_of_duration: float = 0.01
    achieved_share: float = 0.95
    conntrack_share: float = 0.95

    def lateness_us(self, fitness: Fitness) -> int:
        """How late the latest 1 % may be."""
        allowed = int(self.lateness_of_timeout * fitness.timeout_us)
        return max(self.lateness_least_us, min(self.lateness_most_us, allowed))

    def stall_us(self, fitness: Fitness) -> int:
        """How long the agent may stand still."""
        return max(self.stall_least_us, int(self.stall_of_timeout * fitness.timeout_us))

    def throttled_us(self, fitness: Fitness) -> int:
        """How long the CPU may have been withheld."""
        return max(self.throttled_least_us, int(self.throttled_of_duration * fitness.duration_us))


LIMITS = Limits()


def faults(fitness: Fitness, *, limits: Limits = LIMITS) -> tuple[str, ...]:
    """What was wrong with one agent, each with its number; empty when it was fit."""
    return tuple(
        text
        for text in (
            _not_sent(fitness),
            _late(fitness, limits.lateness_us(fitness)),
            _throttled(fitness, limits.throttled_us(fitness)),
            _stood_still(fitness, limits.stall_us(fitness)),
            f"{plural(fitness.socket_drops, 'packet')} dropped in its own sockets" if fitness.socket_drops else "",
            _slow(fitness, limits.achieved_share),
            _crowded(fitness, limits.conntrack_share),
        )
        if text
    )


def _not_sent(fitness: Fitness) -> str:
    unsent = fitness.unsent - fitness.unsent_causes.get(TAKEN_BACK, 0)
    if unsent <= 0:
        return ""
    causes = sorted(((-n, cause) for cause, n in fitness.unsent_causes.items() if cause != TAKEN_BACK))
    why = ", ".join(f"{cause.replace('_', ' ')}: {-n}" for n, cause in causes)
    return f"{unsent} requests not sent" + (f" ({why})" if why else "")


def _late(fitness: Fitness, limit_us: int) -> str:
    if fitness.lateness_p99_us <= limit_us:
        return ""
    waited = f"; waited {fitness.cpu_wait_us / 1000:.0f} ms for a CPU" if fitness.cpu_wait_us > limit_us else ""
    return f"1 % sent {fitness.lateness_p99_us / 1000:.1f} ms late or more (limit {limit_us / 1000:g} ms{waited})"


def _throttled(fitness: Fitness, limit_us: int) -> str:
    if fitness.throttled_us <= limit_us:
        return ""
    return f"CPU throttled for {fitness.throttled_us / 1000:.0f} ms"


def _stood_still(fitness: Fitness, limit_us: int) -> str:
    if fitness.loop_lag_max_us <= limit_us:
        return ""
    return f"stood still for {fitness.loop_lag_max_us / 1000:.0f} ms"


def _slow(fitness: Fitness, share: float) -> str:
    # What was taken back was not to be sent; the rate then says nothing.
    if fitness.unsent_causes.get(TAKEN_BACK) or not 0 < fitness.achieved_rate < share * fitness.asked_rate:
        return ""
    return f"{fitness.achieved_rate:.0f} of {fitness.asked_rate:.0f} requests/s reached"


def _crowded(fitness: Fitness, share: float) -> str:
    if fitness.conntrack_share <= share:
        return ""
    return f"connection tracking {100 * fitness.conntrack_share:.0f} % full"


def believable(findings: Iterable[Finding], *, unfit: frozenset[str], nodes: frozenset[str]) -> tuple[Finding, ...]:
    """The findings that do not rest on agents that were not fit: none about such a node or a pair with one, and none at
    all where no agent of the round's `nodes` was fit."""
    if nodes and nodes <= unfit:
        return ()
    return tuple(f for f in findings if unfit.isdisjoint(re.split("<>|>", f.element)))


# What a node's kernel may have dropped itself, in the order of a packet's way in and out. No grade is lowered by it.
_NODE_DROPS = (
    ("interface_rx_drops", "received and dropped by its interfaces"),
    ("softnet_drops", "dropped before the network stack (softnet)"),
    ("conntrack_insert_failed", "not entered in connection tracking"),
    ("conntrack_drops", "dropped by connection tracking"),
    ("udp_buffer_errors", "dropped at full UDP buffers"),
    ("tcp_drops", "dropped by its TCP"),
    ("qdisc_drops", "dropped by its queues"),
    ("interface_tx_drops", "dropped in sending by its interfaces"),
)


def node_note(fitness: Fitness) -> str:
    """What the node's own kernel dropped while the share ran; empty where nothing, or where nobody looked."""
    seen = fitness.node_counters
    dropped = [f"{n} {words}" for name, words in _NODE_DROPS if seen is not None and (n := getattr(seen, name))]
    return f"{fitness.node}, its own kernel's count of packets: {', '.join(dropped)}" if dropped else ""


def grade(agents: Iterable[Fitness], *, limits: Limits = LIMITS) -> tuple[Trust, frozenset[str]]:
    """(trust of the round, nodes of the agents that were not fit)."""
    everyone = sorted(agents, key=lambda a: a.agent)
    reasons = {a.agent: faults(a, limits=limits) for a in everyone}
    unfit = [a for a in everyone if reasons[a.agent]]
    trust = Trust(
        grade="degraded" if unfit else "good",
        reasons=tuple(f"{a.agent}: {', '.join(reasons[a.agent])}" for a in unfit),
        notes=tuple(note for a in everyone if (note := node_note(a))),
        unfit=tuple(sorted({a.node for a in unfit})),
        lateness_p99_us=max((a.lateness_p99_us for a in everyone), default=0),
        asked_rate=sum(a.asked_rate for a in everyone),
        achieved_rate=sum(a.achieved_rate for a in everyone),
    )
    return trust, frozenset(a.node for a in unfit)
