"""What chance alone makes of a sound network: false statements and false alarms to be expected in 30 days. Computed.

Of each node and direction the packets lost in a round are Poisson's; every run of rounds that the judge's own rule
(`streams.judging.cover`, its price, windows and bounds) would name, and every one after which the alarms' own test
(`streams.alarm_evidence`) would pass, is weighed with its probability. Each loss is taken to be on a line of its own,
which names most. What healthy days show by counting, this shows by reckoning, and what is too rare to count.
"""

import itertools
import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from bench.simulator import Network
from streams import alarm_evidence
from streams.judging import memory, stats
from streams.judging.cover import ABOVE_REST, CROWD, FLOOR, LEAST_LOST, ONSET, PRICE, STANDING
from streams.judging.evidence import Floats
from streams.judging.likelihood import gains, ratio

MOST = 10


@cache
def named(counts: Sequence[int], *, packets: int, nodes: int, standing: bool = False) -> tuple[int, int] | None:
    """(rounds, lost) that a node would be named over, None where not; `counts` of each round, the latest first."""
    found: list[tuple[float, int, int]] = []
    price = PRICE + CROWD * math.log(nodes) - STANDING * standing
    for rounds in range(1, len(counts) + 1):
        lost = sum(counts[:rounds])
        if lost < LEAST_LOST:
            continue
        many, tried, rest = np.array([float(lost)]), np.array([float(packets * rounds)]), np.array([FLOOR])
        gain = float(gains(many, tried, rest)[0])
        if rounds > 1:
            now = ratio(np.array([float(counts[0])]), np.array([float(packets)]), many / tried, rest)
            gain = gain - ONSET if float(now[0]) > 0 else 0.0
        low, _ = stats.wilson(hits=lost, trials=packets * rounds)
        if gain > price and low > ABOVE_REST * FLOOR:
            found.append((gain, rounds, lost))
    best = max(found, default=None)
    return best[1:] if best else None


def alarmed(counts: Sequence[int], *, packets: int, nodes: int) -> bool:
    """Whether the latest two rounds would both name it and its evidence would pass; `counts` as above, four rounds."""
    pooled = memory.ROUNDS
    first = named(tuple(counts[1 : pooled + 1]), packets=packets, nodes=nodes)
    second = named(tuple(counts[:pooled]), packets=packets, nodes=nodes, standing=first is not None)
    if first is None or second is None:
        return False
    evidence = alarm_evidence.Evidence()
    for number, (rounds, lost) in ((10, first), (11, second)):
        evidence = alarm_evidence.found(evidence, number=number, rounds=rounds, lost=lost, sent=packets * rounds)
    return alarm_evidence.is_enough(evidence, nodes=nodes, direction="ingress")


def expected(network: Network, *, rounds: int) -> tuple[float, float]:
    """(nodes newly named, alarms about a node) to be expected in so many rounds without a fault."""
    packets = 2 * network.degree * network.packets
    unequal = network.kind.endswith("unequal")
    weights = np.concatenate(network.weight) if unequal else np.ones(2 * network.nodes)
    each = network.background * packets * weights
    chances = [np.exp(-each) * each**k / math.factorial(k) for k in range(MOST)]
    findings, alarms = 0.0, 0.0
    for counts in itertools.product(range(MOST), repeat=memory.ROUNDS + 1):
        if not 4 <= sum(counts) <= MOST:
            continue
        now = named(counts[:-1], packets=packets, nodes=network.nodes)
        before = named(counts[1:], packets=packets, nodes=network.nodes)
        alarm = alarmed(counts, packets=packets, nodes=network.nodes)
        if (now and not before) or alarm:
            chance = _together(chances, counts)
            findings += chance * bool(now and not before)
            alarms += chance * alarm
    return findings * rounds, alarms * rounds


def _together(chances: Sequence[Floats], counts: Sequence[int]) -> float:
    product = np.ones_like(chances[0])
    for count in counts:
        product = product * chances[count]
    return float(product.sum())
