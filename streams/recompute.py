"""Every final verdict made again from what is stored, and compared with what was told.

The facts of a round are its events in round-progress-v1, folded afresh; its results are the pair table as ClickHouse
has it now. No state of the judge is used. Pure but for the readers handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from streams.judge_rounds import Owed, facts_of
from streams.judging import memory
from streams.judging.memory import Memory
from streams.judging.pair_table import PairTable
from streams.judging.served import Served
from streams.judging.verdict import judge_among
from streams.rounds import RoundKey, RoundState, begin, fold, rounds_of
from topics import share
from topics.mesh_members import Member
from topics.round_progress import BatchesStored, RoundProgress
from topics.round_verdicts import RoundVerdict
from topics.task_rounds import MembersRef, RoundCancelled, RoundScheduled

# When it was told, not what.
_OF_THE_TELLING = ("revision", "at_us", "verdict_delay_s")
# A verdict waits for the other end's receipts for half a second at most: these rest on those that had come by then.
_BY_RECEIPTS = ("loss", "loss_ends", "forward_loss", "reverse_loss", "worst", "findings", "unlocated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What ClickHouse has of a round: the pair table, and the serving side's account of it."""

    pairs: PairTable
    served: Served


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """One round: `differs` names the fields that are not what a clean recomputation says.

    `receipts` tells which of the other end's accounts the told verdict had seen: `all` that are there now, `none`, or
    `some` of them; with `some` the fields of direction and place cannot be held against today's.
    """

    task: str
    round: int
    revision: int
    verdict: str
    differs: tuple[str, ...]
    receipts: str

    def row(self) -> dict[str, object]:
        """For a table or JSON."""
        return {
            "task": self.task,
            "round": self.round,
            "revision": self.revision,
            "verdict": self.verdict,
            "receipts": self.receipts,
            "equal": not self.differs,
            "differs": ", ".join(self.differs),
        }


def states(events: Iterable[RoundProgress]) -> dict[RoundKey, RoundState]:
    """Every round's state, from all events of its topic in order."""
    found: dict[RoundKey, RoundState] = {}
    for event in events:
        for key in _concerned(event, found):
            found[key] = fold(found.get(key) or begin(task_uid=key[0], round_id=key[1]), event)
    return found


def _concerned(event: RoundProgress, known: Mapping[RoundKey, RoundState]) -> set[RoundKey]:
    keys = set(rounds_of(event))
    if isinstance(event, RoundCancelled) and event.round_id == 0:
        keys |= known.keys()
    elif isinstance(event, BatchesStored):
        keys |= {key for key in known if key[0] == event.task_uid}
    return keys


def recompute(
    *,
    events: Iterable[RoundProgress],
    told: Iterable[RoundVerdict],
    find_members: Callable[[MembersRef], tuple[Member, ...] | None],
    read: Callable[[RoundScheduled], Results],
) -> list[Recomputed]:
    """Compare the newest verdict of each round that is final, in the order of tasks and rounds.

    `read` raises ClickHouseAway or ClickHouseRefused.
    """
    newest: dict[int, RoundVerdict] = {}
    for verdict in told:
        known = newest.get(verdict.round_id)
        if known is None or verdict.revision >= known.revision:
            newest[verdict.round_id] = verdict
    folded = states(events)
    memories: dict[str, dict[int, Memory]] = {}
    return [
        _compare(verdict, folded, find_members, read, memories.setdefault(verdict.task_uid, {}))
        for verdict in sorted(newest.values(), key=lambda v: (v.task, v.task_uid, v.round))
        if verdict.final
    ]


def _compare(
    told: RoundVerdict,
    folded: Mapping[RoundKey, RoundState],
    find_members: Callable[[MembersRef], tuple[Member, ...] | None],
    read: Callable[[RoundScheduled], Results],
    remembered: dict[int, Memory],
) -> Recomputed:
    state = folded.get((told.task_uid, told.round_id))
    if state is None or state.head.round is None:
        return _said(told, ("round: none of its events is there",), "none")
    round_ = state.head.round
    members = find_members(round_.members)
    if members is None:
        return _said(told, ("members: the round's membership is not there",), "none")
    owed = Owed(planned=share.planned(round_=round_, members=members), nodes={m.agent: m.node for m in members})
    results = read(round_)

    def judged(pairs: PairTable) -> RoundVerdict:
        done = judge_among(
            facts=facts_of(state, owed, final=True, trouble=""),
            pairs=pairs,
            revision=told.revision,
            at_us=told.at_us,
            memories=[remembered[n] for n in _before(told.round) if n in remembered],
        )
        remembered[told.round] = done.memory
        return done.verdict

    bare = different(told, judged(results.pairs))
    full = different(told, judged(replace(results.pairs, served=results.served)))
    for name, found in (("all", full), ("none", bare)):
        if not set(found) & set(_BY_RECEIPTS):
            return _said(told, found, name)
    return _said(told, tuple(f for f in full if f not in _BY_RECEIPTS), "some")


def _before(number: int) -> Sequence[int]:
    return range(number - 1, number - memory.ROUNDS, -1)


def _said(told: RoundVerdict, differs: tuple[str, ...], receipts: str) -> Recomputed:
    return Recomputed(
        task=told.task,
        round=told.round,
        revision=told.revision,
        verdict=told.verdict,
        differs=differs,
        receipts=receipts,
    )


def different(told: RoundVerdict, again: RoundVerdict) -> tuple[str, ...]:
    """The fields in which two verdicts differ, but for when they were told; both as they travel."""
    one, other = (
        msgspec.to_builtins(msgspec.json.decode(msgspec.json.encode(v), type=RoundVerdict)) for v in (told, again)
    )
    names = sorted(one.keys() | other.keys())
    return tuple(n for n in names if n not in _OF_THE_TELLING and one.get(n) != other.get(n))
