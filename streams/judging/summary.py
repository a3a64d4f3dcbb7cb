"""The numbers of a verdict that come from the pair table: requests, loss, delays, the worst pairs."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from streams.judging import stats
from streams.judging.directions import Directions, Masks
from streams.judging.pair_table import Ints, PairTable
from topics.outcome import Outcome
from topics.round_verdicts import Delay, Loss, LossEnds, Pair, Requests

WORST = 20
# Never sent, or stopped by us: they say nothing about the target.
NOT_TRIED = (Outcome.unsent, Outcome.cancelled)
Origin = Literal["total", "sent"]


def tried(pairs: PairTable) -> Ints:
    """For each line, requests that were sent and left to end by themselves."""
    return pairs.counts("n") - pairs.outcome_counts(NOT_TRIED)


def requests(pairs: PairTable) -> Requests:
    """All requests of the round by their end."""
    ok, sent = int(pairs.counts("ok").sum()), int(tried(pairs).sum())
    return Requests(sent=sent, ok=ok, failed=sent - ok, by_outcome=pairs.by_outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketLoss:
    """Packet loss of a round: in all, and by direction of the pairs of which both ends have counted."""

    total: Loss
    forward: Loss | None
    reverse: Loss | None
    ends: LossEnds


def packet_loss(ways: Directions) -> PacketLoss:
    """Packet loss of the whole round."""
    known = ways.known
    spoken = ways.forward_sent + ways.open_sent > 0
    ends: LossEnds = "client" if not known.any() else "both" if known[spoken].all() else "some"
    return PacketLoss(
        total=stats.loss(
            sent=int((ways.forward_sent + ways.reverse_sent + ways.open_sent).sum()),
            lost=int((ways.forward_lost + ways.reverse_lost + ways.open_lost).sum()),
        ),
        forward=_of(ways.forward_sent, ways.forward_lost, known),
        reverse=_of(ways.reverse_sent, ways.reverse_lost, known),
        ends=ends,
    )


def _of(sent: Ints, lost: Ints, known: Masks) -> Loss | None:
    return stats.loss(sent=int(sent[known].sum()), lost=int(lost[known].sum())) if known.any() else None


def delay(pairs: PairTable, origin: Origin) -> Delay:
    """Delay of the round's successful requests, from the planned time (`total`) or the moment of sending (`sent`)."""
    ok = int(pairs.counts("ok").sum())
    return _delay(
        ok=ok,
        sum_us=int(pairs.counts(f"{origin}_us_sum").sum()),
        max_us=int(pairs.counts(f"{origin}_us_max").max(initial=0)),
        histogram=pairs.histogram(f"hist_{origin}"),
    )


def _delay(*, ok: int, sum_us: int, max_us: int, histogram: dict[int, int]) -> Delay:
    if ok == 0:
        return Delay()
    p50, p90, p99 = (_at_most(stats.quantile(histogram, q), max_us) for q in (0.5, 0.9, 0.99))
    return Delay(mean_us=sum_us / ok, p50_us=p50, p90_us=p90, p99_us=p99, max_us=max_us)


def _at_most(value: float | None, limit: int) -> float | None:
    """A quantile read from a bucket may lie above the greatest value in it."""
    return None if value is None else min(value, float(limit))


def worst(pairs: PairTable, ways: Directions, *, count: int = WORST) -> tuple[Pair, ...]:
    """The pairs a reader should see first: the lossiest that lost anything, then the slowest; `count` at most."""
    if len(pairs) == 0:
        return ()
    n = np.maximum(tried(pairs), 1)
    packets = ways.forward_sent + ways.reverse_sent + ways.open_sent
    failed = (tried(pairs) - pairs.counts("ok")) / n
    lost = (ways.forward_lost + ways.reverse_lost + ways.open_lost) / np.maximum(packets, 1)
    mean = pairs.counts("sent_us_sum") / np.maximum(pairs.counts("ok"), 1)
    by_loss = np.lexsort((-mean, -lost, -failed))
    lossy = [int(i) for i in by_loss[:count] if failed[i] > 0 or lost[i] > 0]
    if len(lossy) > count // 2:
        lossy = lossy[: count // 2]
    slow = [int(i) for i in np.argsort(-mean, kind="stable")[:count] if int(i) not in lossy]
    return tuple(_pair(pairs.row(i), ways, i) for i in (lossy + slow)[:count])


def _pair(line: dict[str, Any], ways: Directions, index: int) -> Pair:
    mine = np.zeros(len(ways.known), dtype=bool)
    mine[index] = True
    both = mine & ways.known
    outcomes: dict[str, int] = line["outcomes"]
    sent = line["n"] - sum(outcomes.get(o.name, 0) for o in NOT_TRIED)
    by_outcome = {o.name: outcomes[o.name] for o in Outcome if outcomes.get(o.name)}
    return Pair(
        src=line["src_node"],
        dst=line["dst"],
        target=line["target"],
        proto=line["proto"],
        layer=line["layer"],
        requests=Requests(sent=sent, ok=line["ok"], failed=sent - line["ok"], by_outcome=by_outcome),
        loss=stats.loss(
            sent=int(ways.forward_sent[index] + ways.reverse_sent[index] + ways.open_sent[index]),
            lost=int(ways.forward_lost[index] + ways.reverse_lost[index] + ways.open_lost[index]),
        ),
        forward_loss=_of(ways.forward_sent, ways.forward_lost, both),
        reverse_loss=_of(ways.reverse_sent, ways.reverse_lost, both),
        delay=_delay(
            ok=line["ok"],
            sum_us=line["total_us_sum"],
            max_us=line["total_us_max"],
            histogram=line["hist_total"],
        ),
    )
