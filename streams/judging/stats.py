"""Statistics of rare loss and of delays: intervals, mergeable histograms, their quantiles.

A histogram maps bucket → count, where bucket = min(255, floor(8·log2(max(us, 1)))): the exponential histogram of
OpenTelemetry at scale 3, 8 buckets an octave, each 9 % wide. ClickHouse and pyarrow make the same buckets.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from topics.round_verdicts import Loss

Z95 = 1.959963984540054
BUCKETS = 256
PER_OCTAVE = 8

Histogram = Mapping[int, int]
Counts = npt.NDArray[np.float64]


def wilson(*, hits: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval (Wilson 1927) of a share; (0, 1) when nothing was tried."""
    if trials <= 0:
        return 0.0, 1.0
    low, high = wilson_arrays(np.array([float(hits)]), np.array([float(trials)]), z=z)
    return float(low[0]), float(high[0])


def wilson_arrays(hits: Counts, trials: Counts, *, z: float = Z95) -> tuple[Counts, Counts]:
    """`wilson` of many shares at once; exact 0 and 1 at the ends, where rounding would leave 1e-19."""
    n = np.maximum(trials, 1.0)
    share = np.minimum(hits / n, 1.0)
    centre = share + z * z / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = np.where((trials <= 0) | (hits <= 0), 0.0, (centre - half) / scale)
    high = np.where((trials <= 0) | (hits >= trials), 1.0, (centre + half) / scale)
    return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)


def loss(*, sent: int, lost: int) -> Loss:
    """Packet loss with its interval at 95 %. More lost than sent (a late retransmit counted twice) counts as all."""
    lost = min(lost, sent)
    low, high = wilson(hits=lost, trials=sent)
    return Loss(sent=sent, lost=lost, rate=lost / sent if sent else 0.0, low=low, high=high)


def bucket(us: int) -> int:
    """Bucket of a delay in microseconds."""
    return min(BUCKETS - 1, math.floor(PER_OCTAVE * math.log2(max(us, 1))))


def bounds(index: int) -> tuple[float, float]:
    """(low, high) of a bucket in microseconds: low inclusive, high exclusive."""
    return float(2.0 ** (index / PER_OCTAVE)), float(2.0 ** ((index + 1) / PER_OCTAVE))


def merged(histograms: Iterable[Histogram]) -> dict[int, int]:
    """The histogram of all together."""
    total: dict[int, int] = {}
    for histogram in histograms:
        for index, count in histogram.items():
            total[index] = total.get(index, 0) + count
    return total


def quantile(histogram: Histogram, q: float) -> float | None:
    """The q-quantile (0…1) in microseconds, interpolated geometrically inside its bucket; None of an empty one."""
    total = sum(histogram.values())
    if total == 0:
        return None
    wanted = q * total
    below = 0
    for index in sorted(histogram):
        count = histogram[index]
        if count and below + count >= wanted:
            return float(2.0 ** ((index + (wanted - below) / count) / PER_OCTAVE))
        below += count
    return bounds(max(histogram))[1]
