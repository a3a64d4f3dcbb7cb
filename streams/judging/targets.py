"""Requests that came and were answered wrongly: which target, source or layer they have in common. Pure.

Not the network's loss: the connection is refused, TLS or the name fails, the answer is an error. A target that fails
for all sources alike is one finding that names the target, not one for each source. The same cover as for losses
(`cover`), over requests instead of packets.
"""

from dataclasses import dataclass

import numpy as np

from streams.judging import stats
from streams.judging.cover import Suspect, cover
from streams.judging.directions import Masks
from streams.judging.elements import name_of
from streams.judging.evidence import Evidence, evidence_of
from streams.judging.findings import clock, confidence, evidence_query, shown
from streams.judging.pair_table import PairTable
from streams.judging.summary import tried
from topics.outcome import Outcome
from topics.round_verdicts import Finding

# What an answer was that is no success, and how people say it.
WORDS = {
    Outcome.http_error: "answers with an HTTP error",
    Outcome.tls_error: "fails in the TLS handshake",
    Outcome.refused: "refuses the connection",
    Outcome.dns_error: "answers the name with an error",
    Outcome.bad_reply: "answers with something else than asked",
}
_DIRECTIONS = {"ingress": "server", "egress": "client"}


def blamed(*, pairs: PairTable, away: Masks, round_id: int, start_us: int) -> tuple[Finding, ...]:
    """What the wrong answers of a round have in common, worst first; empty where none stands out. Lines `away` asked
    something of an agent that was not there."""
    wrong = np.where(away, 0, pairs.outcome_counts(WORDS))
    if not wrong.any():
        return ()
    seen = evidence_of(pairs, tried=np.where(away, 0, tried(pairs)), lost=wrong)
    named, _, _ = cover(seen)
    return tuple(_finding(pairs, seen, s, round_id=round_id, start_us=start_us) for s in named)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """Who saw it, and what it was."""

    sources: int
    of_sources: int
    targets: int
    of_targets: int
    outcomes: tuple[tuple[Outcome, int], ...]


def _finding(pairs: PairTable, seen: Evidence, suspect: Suspect, *, round_id: int, start_us: int) -> Finding:
    name = name_of(seen, suspect.family, int(suspect.lines[0]))
    direction = _DIRECTIONS.get(suspect.family.direction, suspect.family.direction)
    loss = stats.loss(sent=round(suspect.tried), lost=round(suspect.lost))
    what = _seen(pairs, seen, suspect)
    rate = shown(loss.rate, loss.low, loss.high)
    kinds = ", ".join(sorted({seen.kinds[int(k)][0].upper() for k in np.unique(seen.kind[suspect.lines])}))
    return Finding(
        element=name,
        direction=direction,
        kind="errors",
        sentence=f"{_sentence(name, suspect, what, rate)}, {kinds}, since {clock(start_us)}; "
        "the requests came and were answered: no packet loss",
        loss=loss,
        confidence=round(confidence(suspect), 4),
        evidence_sql=evidence_query(suspect=suspect, name=name, both_ends=False, round_id=round_id, start_us=start_us),
        since_us=start_us,
        scope=what.outcomes[0][0].name,
    )


def _sentence(name: str, suspect: Suspect, what: _Seen, rate: str) -> str:
    how = "; ".join(f"{WORDS[outcome]} ({n} times)" for outcome, n in what.outcomes)
    match suspect.family.direction:
        case "ingress":
            return f"{name} {how}: {rate} of the requests to it, from {what.sources} of {what.of_sources} sources"
        case "egress":
            return (
                f"requests of {name} to {what.targets} of {what.of_targets} targets fail, those of others do not: "
                f"{rate}; the target {how}"
            )
        case "pair":
            src, _, dst = name.partition(">")
            return f"{dst} {how} when {src} asks: {rate}, one source and target only"
        case _:
            return f"{name}: {rate} of the requests; the target {how}"


def _seen(pairs: PairTable, seen: Evidence, suspect: Suspect) -> _Seen:
    lines = suspect.lines
    lossy = lines[seen.lost[lines] > 0]
    # A line of this evidence is a line of the pair table.
    counts = [(outcome, int(pairs.outcome_counts((outcome,))[lines].sum())) for outcome in WORDS]
    return _Seen(
        sources=len(np.unique(seen.src[lossy])),
        of_sources=len(np.unique(seen.src[lines])),
        targets=len(np.unique(seen.dst[lossy])),
        of_targets=len(np.unique(seen.dst[lines])),
        outcomes=tuple(sorted(((o, n) for o, n in counts if n), key=lambda c: -c[1])),
    )
