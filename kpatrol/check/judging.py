"""What the rounds came to: the judge's own fold, pair table and verdict, on records instead of a database. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from kpatrol.check.gather import Gathered
from kpatrol.check.mesh import Site
from streams.judge_rounds import Owed, facts_of
from streams.judging import pair_table, served, trust
from streams.judging.pair_table import PairTable
from streams.judging.verdict import judge
from streams.rounds import begin, fold, rounds_of
from topics import share
from topics.probe_receipts import Receipts
from topics.probe_results import Batch
from topics.round_progress import RoundProgress
from topics.round_verdicts import RoundVerdict
from topics.task_rounds import RoundScheduled


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One round, its verdict, the pairs that it was judged by, and the nodes whose agents were not fit to measure."""

    site: Site
    round: RoundScheduled
    verdict: RoundVerdict
    pairs: PairTable
    unfit: frozenset[str]


def judged(*, gathered: Gathered, at_us: int) -> list[Judged]:
    """Each round's verdict, final: nothing more can come."""
    records = _by_round(gathered)
    return [_judged(site, round_, records[round_.round_id], at_us) for site, round_ in gathered.rounds]


@dataclass(frozen=True, slots=True)
class _Records:
    """What came of one round."""

    batches: list[Batch] = field(default_factory=list)
    receipts: list[Receipts] = field(default_factory=list)
    events: list[RoundProgress] = field(default_factory=list)


def _by_round(gathered: Gathered) -> Mapping[int, _Records]:
    """Sorted once: a `resume` of many nodes has a round for each of them."""
    found: defaultdict[int, _Records] = defaultdict(_Records)
    for batch in gathered.batches:
        found[batch.head.round_id].batches.append(batch)
    for event in gathered.events:
        for _, round_id in rounds_of(event):
            found[round_id].events.append(event)
    for receipts in gathered.receipts:
        column = receipts.rows.column("round_id").to_numpy()
        for round_id in np.unique(column).tolist():
            rows = receipts.rows.filter(pa.array(column == round_id))
            found[round_id].receipts.append(Receipts(head=receipts.head, rows=rows))
    return found


def _judged(site: Site, round_: RoundScheduled, gathered: _Records, at_us: int) -> Judged:
    state = begin(task_uid=round_.task_uid, round_id=round_.round_id)
    for event in gathered.events:
        state = fold(state, event)
    planned = share.planned(round_=round_, members=site.members)
    owed = Owed(planned=planned, nodes={member.agent: member.node for member in site.members})
    pairs = pair_table.from_batches(batches=gathered.batches, round_id=round_.round_id)
    other_end = served.from_batches(receipts=gathered.receipts, batches=gathered.batches, round_id=round_.round_id)
    pairs = replace(pairs, served=other_end)
    facts = facts_of(state, owed, final=True, trouble="")
    verdict = judge(facts=facts, pairs=pairs, revision=1, at_us=at_us)
    _, unfit = trust.grade(facts.fitness)
    return Judged(site=site, round=round_, verdict=verdict, pairs=pairs, unfit=unfit)
