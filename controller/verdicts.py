"""What the controller keeps of a verdict: enough for a status line. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from topics.round_verdicts import RoundVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A round's verdict as the status shows it. Times are microseconds since the epoch."""

    number: int
    verdict: Literal["succeed", "fail", "unknown"]
    why: str
    revision: int
    final: bool
    at_us: int
    succeeded_nodes: tuple[str, ...]
    failed_nodes: tuple[str, ...]
    not_reported_nodes: tuple[str, ...]


def judged(verdict: RoundVerdict) -> Judged:
    """The part of a verdict that the status needs."""
    return Judged(
        number=verdict.round,
        verdict=verdict.verdict,
        why=verdict.why,
        revision=verdict.revision,
        final=verdict.final,
        at_us=verdict.at_us,
        succeeded_nodes=verdict.succeeded_nodes,
        failed_nodes=verdict.failed_nodes,
        not_reported_nodes=verdict.not_reported_nodes,
    )


def newer(known: Judged | None, other: Judged) -> Judged:
    """Of two verdicts of one round the one that holds: the higher revision."""
    return known if known is not None and known.revision >= other.revision else other
