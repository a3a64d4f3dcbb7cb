"""The canary: a loss that one of our agents makes by itself, so that its being found can be watched. Pure.

Where the pair's loss fits the share, its finding is no statement about the network: its kind is `canary`. Where the
pair loses much more or less than that, something else is going on there, and the finding stands as a loss.
"""

from collections.abc import Sequence

import msgspec

from topics.round_verdicts import CanarySeen, Finding
from topics.task_rounds import Canary

KIND = "canary"
# The share is drawn anew for each request: the interval of what was lost need only come this near to it.
NEAR = 1.5


def with_canary(findings: Sequence[Finding], canary: Canary | None) -> tuple[tuple[Finding, ...], CanarySeen | None]:
    """The findings, that of the canary marked as such, and whether there is one of its pair."""
    if canary is None:
        return tuple(findings), None
    there = f"{canary.src_node}>{canary.dst_node}"
    names = (there, "<>".join(sorted((canary.src_node, canary.dst_node))))
    reported = any(f.kind == "loss" and f.element in names for f in findings)
    seen = CanarySeen(src_node=canary.src_node, dst_node=canary.dst_node, share=canary.share, reported=reported)
    return tuple(_marked(f, canary) if f.kind == "loss" and f.element in names else f for f in findings), seen


def _marked(finding: Finding, canary: Canary) -> Finding:
    if not finding.loss.low / NEAR <= canary.share <= finding.loss.high * NEAR:
        return finding
    why = (
        f"; a canary: {canary.dst_node} ignores {canary.share * 100:g} % by itself, and nothing is lost on the network"
    )
    return msgspec.structs.replace(finding, kind=KIND, sentence=finding.sentence + why)
