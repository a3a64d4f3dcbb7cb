"""Trust in the instrument: was each agent fit to measure in this round.

An agent that was late, throttled, starved or could not send says nothing certain about the network. Its round is
`degraded`, with the reasons; failures that may be its own make the verdict `unknown`, never `fail`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from topics.round_verdicts import Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitness:
    """What one agent said of itself when it finished its share."""

    agent: str
    node: str
    unsent: int = 0
    asked_rate: float = 0.0
    achieved_rate: float = 0.0
    lateness_p99_us: int = 0
    loop_lag_max_us: int = 0
    throttled_us: int = 0
    socket_drops: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Beyond which an agent's account is not taken at its word."""

    lateness_p99_us: int = 5_000
    loop_lag_max_us: int = 250_000
    throttled_us: int = 50_000
    socket_drops: int = 0
    unsent: int = 0
    achieved_share: float = 0.95


LIMITS = Limits()


def faults(fitness: Fitness, *, limits: Limits = LIMITS) -> tuple[str, ...]:
    """What was wrong with one agent, each with its number; empty when it was fit."""
    found = []
    if fitness.unsent > limits.unsent:
        found.append(f"{fitness.unsent} requests not sent")
    if fitness.lateness_p99_us > limits.lateness_p99_us:
        found.append(
            f"1 % sent {fitness.lateness_p99_us / 1000:.1f} ms late or more "
            f"(limit {limits.lateness_p99_us / 1000:g} ms)"
        )
    if fitness.throttled_us > limits.throttled_us:
        found.append(f"CPU throttled for {fitness.throttled_us / 1000:.0f} ms")
    if fitness.loop_lag_max_us > limits.loop_lag_max_us:
        found.append(f"stood still for {fitness.loop_lag_max_us / 1000:.0f} ms")
    if fitness.socket_drops > limits.socket_drops:
        found.append(f"{fitness.socket_drops} packets dropped in its own sockets")
    if 0 < fitness.achieved_rate < limits.achieved_share * fitness.asked_rate:
        found.append(f"{fitness.achieved_rate:.0f} of {fitness.asked_rate:.0f} requests/s reached")
    return tuple(found)


def grade(agents: Iterable[Fitness], *, limits: Limits = LIMITS) -> tuple[Trust, frozenset[str]]:
    """(trust of the round, nodes of the agents that were not fit)."""
    everyone = sorted(agents, key=lambda a: a.agent)
    reasons = {a.agent: faults(a, limits=limits) for a in everyone}
    unfit = [a for a in everyone if reasons[a.agent]]
    trust = Trust(
        grade="degraded" if unfit else "good",
        reasons=tuple(f"{a.agent}: {', '.join(reasons[a.agent])}" for a in unfit),
        lateness_p99_us=max((a.lateness_p99_us for a in everyone), default=0),
        asked_rate=sum(a.asked_rate for a in everyone),
        achieved_rate=sum(a.achieved_rate for a in everyone),
    )
    return trust, frozenset(a.node for a in unfit)
