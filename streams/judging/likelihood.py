"""How much likelier losses are at a rate of their own than at that of the rest, in nats. Pure."""

import numpy as np

from streams.judging.evidence import Floats


def gains(lost: Floats, tried: Floats, p0: Floats) -> Floats:
    """Log-likelihood gained by giving each element its own loss rate instead of `p0`; 0 where that is not above."""
    p1 = possible(lost / np.maximum(tried, 1.0))
    return np.where((p1 > p0) & (tried > 0), ratio(lost, tried, p1, p0), 0.0)


def possible(rate: Floats) -> Floats:
    """Rates that have a logarithm, and whose complement has one."""
    return np.clip(rate, 1e-12, 1 - 1e-9)


def at_most(mean: Floats) -> Floats:
    """What a line may lose that is expected to lose `mean` packets: two deviations above it, one packet at least."""
    return np.asarray(np.maximum(np.ceil(mean + 2 * np.sqrt(mean)), 1.0), dtype=np.float64)


def ratio(lost: Floats, tried: Floats, p1: Floats, p0: Floats) -> Floats:
    """Log-likelihood of `p1` over `p0`."""
    kept = np.maximum(tried - lost, 0.0)
    return np.asarray(lost * np.log(p1 / p0) + kept * np.log((1 - p1) / (1 - p0)), dtype=np.float64)
