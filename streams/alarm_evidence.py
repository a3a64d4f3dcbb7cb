"""How much a row of findings says: a sequential test of each element, held to one false-alarm rate over all. Pure.

In each round an element is either found to lose packets or not. Found, with `lost` of `sent`: the likelihood ratio of
that against a sound network's loss, averaged over the rates a fault may have; its mean over a sound element is at most
one (an e-value), however the element was chosen to be looked at. Half of it, or one half in a round without a finding,
is the round's factor, whose mean is then at most one too. The running product, begun anew where it falls below one,
grows past C in a sound element once in C rounds or less often (E-detectors: Shin, Ramdas, Rinaldo 2022, theorem 2.4).

So with m elements and C = m · FALSE_ALARM_ROUNDS there is at most one false alarm in FALSE_ALARM_ROUNDS rounds over all
of them together, whatever they have in common. A finding's counts may be pooled over several rounds: then only
windows that do not overlap are multiplied.
"""

import math

import msgspec

# Thirty days of rounds a minute apart.
FALSE_ALARM_ROUNDS = 43_200
# What a sound network may lose: the floor that findings are measured from (streams/judging/cover.py).
BACKGROUND = 1e-4
RATES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.99)
_HALF = math.log(2.0)


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The running product's logarithm: `base` up to the latest window, `window` of that one, from `after` to `upto`."""

    base: float = 0.0
    window: float = 0.0
    after: int = 0
    upto: int = 0

    @property
    def total(self) -> float:
        """Logarithm of the product."""
        return self.base + self.window


def log_evidence(*, lost: int, sent: int) -> float:
    """Logarithm of the e-value of `lost` of `sent` packets."""
    kept = max(0, sent - lost)
    logs = [lost * math.log(p / BACKGROUND) + kept * math.log((1 - p) / (1 - BACKGROUND)) for p in RATES]
    top = max(logs)
    return top + math.log(sum(math.exp(value - top) for value in logs) / len(RATES))


def found(before: Evidence, *, number: int, rounds: int, lost: int, sent: int) -> Evidence:
    """After a round that found the element, its counts pooled over `rounds` rounds up to `number`."""
    value = log_evidence(lost=lost, sent=sent) - _HALF
    if number - rounds >= before.upto:
        return Evidence(base=max(before.total, 0.0), window=value, after=number - rounds, upto=number)
    # The window overlaps the last one: it stands in its place.
    return msgspec.structs.replace(before, window=value, upto=number)


def missed(before: Evidence, *, number: int) -> Evidence:
    """After a round that did not find it."""
    return Evidence(base=max(before.total - _HALF, 0.0), window=0.0, after=number, upto=number)


def threshold(*, nodes: int, direction: str) -> float:
    """Logarithm of C, for as many elements as there are of that kind."""
    pairs = direction in ("pair", "both")
    elements = nodes * max(nodes - 1, 1) if pairs else 4 * nodes + 50
    return math.log(elements * FALSE_ALARM_ROUNDS)


def is_enough(evidence: Evidence, *, nodes: int, direction: str) -> bool:
    """Whether the product has grown past C."""
    return evidence.total >= threshold(nodes=nodes, direction=direction)
