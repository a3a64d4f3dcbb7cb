"""Where packets are lost: the fewest elements of the network that explain a round's losses, as statements. Pure.

Elements: what a node receives, what it sends, a single pair, what comes into or goes out of a rack or a zone, a pair
of zones, a protocol or layer, a packet size (`elements`); within each how far it reaches, down to 5-tuples (`scope`).
The method is told in `cover`. Evidence is pooled with what is remembered of the rounds before (`memory`).

Where only the client has counted, a lost reply is charged to the way there: a node's ingress fault also shows in what
it sends. There, once one direction of a node is named, the other is taken as its echo; where both lose alike, the
direction is left open. Losses that no element explains are said to be spread, and none is blamed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streams.judging import stats
from streams.judging.cover import ABOVE_REST, FLOOR, PRICE, cover
from streams.judging.directions import Directions, directions
from streams.judging.evidence import Evidence, Indexes, evidence
from streams.judging.findings import finding, shown
from streams.judging.likelihood import gains
from streams.judging.memory import Memory, Standing, recall, remember
from streams.judging.pair_table import PairTable
from streams.judging.words import plural
from topics.round_verdicts import Finding

# A statement less sure than this is not made.
SURE = 0.6


@dataclass(frozen=True, kw_only=True)
class Located:
    """What a round says of places. `unlocated` tells of losses that no element explains; empty where there are none."""

    findings: tuple[Finding, ...]
    memory: Memory
    unlocated: str = ""


def localise(*, pairs: PairTable, ways: Directions | None = None, round_id: int, start_us: int) -> tuple[Finding, ...]:
    """The elements that explain one round's losses, taken by itself, worst first; empty where none stands out."""
    if len(pairs) == 0:
        return ()
    seen = evidence(pairs, ways or directions(pairs))
    return locate(seen, round_id=round_id, number=0, start_us=start_us).findings


def locate(seen: Evidence, *, round_id: int, number: int, start_us: int, memories: Sequence[Memory] = ()) -> Located:
    """The elements that explain the losses of a round and those remembered before it, the latest first."""
    pooled = recall(seen, memories)
    since = {(s.element, s.direction): (s.since_us, s.rounds) for s in memories[0].standing} if memories else {}
    named, unexplained, along = cover(pooled, standing=since)
    told = [(s, finding(pooled, s, round_id=round_id, start_us=start_us, since=since)) for s in named]
    unsure = [f for _, f in told if f.confidence < SURE]
    findings = tuple(f for _, f in told if f.confidence >= SURE)
    memory = remember(
        seen=pooled,
        unexplained=unexplained,
        explained=[*(s.lines for s in named), *along],
        standing=[Standing(f.element, f.direction, f.since_us, f.seen_rounds) for f in findings],
        number=number,
        start_us=start_us,
    )
    words = [f"not sure enough to name: {f.sentence}" for f in unsure] + _spread(pooled, unexplained)
    return Located(findings=findings, memory=memory, unlocated="; ".join(words))


def _spread(seen: Evidence, unexplained: Indexes) -> list[str]:
    """Losses of the round at hand far above what a sound network loses, which no element explains."""
    lines = unexplained[seen.age[unexplained] == 0]
    lost, tried = float(seen.lost[lines].sum()), float(seen.tried.sum())
    if lost < 1 or tried <= 0:
        return []
    low, high = stats.wilson(hits=int(lost), trials=int(tried))
    gain = float(gains(np.array([lost]), np.array([tried]), np.array([FLOOR]))[0])
    if low <= ABOVE_REST * FLOOR or gain <= PRICE:
        return []
    pairs = len(np.unique(seen.src[lines] * len(seen.nodes) + seen.dst[lines]))
    ends = len(np.unique(np.concatenate([seen.src[lines], seen.dst[lines]])))
    rate = shown(lost / tried, low, high)
    return [f"{rate} is lost on {plural(pairs, 'pair')} of {plural(ends, 'place')}, and no single element explains it"]
