"""What a round's state amounts to: the agents' accounts, and whether a verdict is due.

`settle` turns a state into accounts that add up; `decide` says what is due: nothing, a provisional or a final verdict.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from streams.judging.trust import TAKEN_BACK, Fitness
from streams.rounds import Finished, RoundState, Share
from topics.round_progress import AGENT_DIED
from topics.round_verdicts import AgentAccount

_GREATEST = ("lateness_p99_us", "loop_lag_max_us", "resident_bytes", "cpu_peak_us")
AGENT_REPLACED = f"{AGENT_DIED}: its pod was replaced, its spool with it"
Due = Literal["nothing", "provisional", "final"]


def settle(*, state: RoundState, planned: Mapping[str, int], nodes: Mapping[str, str]) -> tuple[AgentAccount, ...]:
    """Each agent's account, expected ones and strangers, by name: planned = stored + unsent + missing + unexplained.

    `planned` and `nodes` are of the round's membership.
    """
    agents = sorted({*planned, *state.shares})
    return tuple(_account(state, state.shares.get(a) or Share(agent=a), planned.get(a), nodes.get(a)) for a in agents)


def _account(state: RoundState, share: Share, planned: int | None, node: str | None) -> AgentAccount:
    told = [run.finished for run in share.runs if run.finished is not None]
    planned = planned if planned is None else planned + sum(f.further for f in told)
    stored, missing = share.rows, sum(f.declared_missing for f in told)
    unsent_causes = _unsent(share, room=(planned or 0) - stored - missing)
    unsent = sum(unsent_causes.values())
    causes = sorted({f.cause for f in told if f.declared_missing})
    unexplained = (planned or 0) - stored - unsent - missing
    if unexplained > 0 and not share.finished and (cause := _cause(state, share)):
        missing, unexplained = missing + unexplained, 0
        causes.append(cause)
    said = _said(told, unsent_causes)
    # An incarnation is numbered by the moment it began, in microseconds.
    began_us = min((run.incarnation for run in share.runs), default=0)
    began_late = state.head.round is not None and began_us > state.head.round.start_us
    return AgentAccount(
        agent=share.agent,
        node=node or share.node or share.agent,
        planned=planned or 0,
        stored=stored,
        unsent=unsent,
        declared_missing=missing,
        unexplained=unexplained,
        cause=", ".join(causes),
        state=_agent_state(state, share, planned),
        incarnations=max(1, len(share.runs)),
        **said | {"replaced": said.get("replaced", False) or began_late},
    )


def _unsent(share: Share, *, room: int) -> dict[str, int]:
    """Requests not sent, by cause. An incarnation whose spool was new (the pod was replaced) knows nothing of the one
    before: it sends what that one, stopping, has told as unsent, and tells once more what that one sent. So all of them
    together fill what the rows leave of the share. A single one is taken at its word, so that an account that does not
    add up shows."""
    causes: Counter[str] = Counter()
    for run in share.runs:
        if run.finished is None:
            continue
        unsent = run.finished.unsent
        left = unsent if len(share.runs) == 1 else min(unsent, max(0, room - causes.total()))
        for cause, count in [*run.finished.unsent_causes.items(), ("", unsent)]:
            taken = min(count, left)
            left -= taken
            causes[cause] += taken
    return {cause: count for cause, count in causes.items() if count}


def _said(told: Sequence[Finished], unsent_causes: Mapping[str, int]) -> dict[str, Any]:
    """What an agent's incarnations said of themselves: sums, the worst, the latest."""
    if not told:
        return {}
    return {
        "unsent_causes": {cause: count for cause, count in unsent_causes.items() if cause},
        "cpu_us": sum(f.cpu_us for f in told),
        "throttled_us": sum(f.throttled_us for f in told),
        **{name: max(getattr(f, name) for f in told) for name in _GREATEST},
        "finished_us": max(f.at_us for f in told),
        "clock_offset_us": told[-1].clock_offset_us,
        "node_counters": told[-1].node_counters,
        "replaced": any(f.replaced for f in told),
        "traces": told[-1].traces,
    }


def _cause(state: RoundState, share: Share) -> str:
    """Why an agent that tells nothing more owes nothing more; empty where no cause is on record."""
    if share.gone is not None:
        return share.gone[1] or "agent gone"
    if state.head.cancelled is not None and state.past_deadline:
        return "cancelled"
    return AGENT_REPLACED if _replaced(share, passed=_sink_has_passed(state)) else ""


def _replaced(share: Share, *, passed: bool) -> bool:
    """An incarnation left rows and its account never comes: its spool went with its pod; a later one has told."""
    return passed and share.last_finished and not share.finished


def _agent_state(state: RoundState, share: Share, planned: int | None) -> str:
    if planned is None:
        return "unexpected"
    if share.finished or _replaced(share, passed=_sink_has_passed(state)):
        return "finished"
    if share.gone is not None:
        return "gone"
    return "unfinished" if share.runs else "silent"


def decide(*, state: RoundState, planned: Mapping[str, int]) -> Due:
    """What is due for the round now. Pure."""
    return due_while(state=state, waiting_for=unsettled(state=state, planned=planned))


def due_while(*, state: RoundState, waiting_for: str | None) -> Due:
    """What is due while an agent (None: none any more) is waited for. Pure."""
    head = state.head
    if head.closed or head.round is None:
        return "nothing"
    if waiting_for is not None:
        return "provisional" if state.past_deadline and head.published is None else "nothing"
    published = head.published
    changed = published is None or not published.final or published.digest != digest(state)
    return "final" if changed else "nothing"


def unsettled(*, state: RoundState, planned: Mapping[str, int], first: str = "") -> str | None:
    """An agent of whom more is to be expected, None where there is none; `first` is looked at before the others."""
    passed = _sink_has_passed(state)
    given_up = state.head.cancelled is not None and state.past_deadline
    for agent in (first, *planned) if first in planned else planned:
        share = state.shares.get(agent) or Share(agent=agent)
        if not _settled(share, planned[agent], passed=passed, given_up=given_up):
            return agent
    return None


def _settled(share: Share, owed: int, *, passed: bool, given_up: bool) -> bool:
    if not share.reported:
        return share.gone is not None or given_up or owed == 0
    told = [run for run in share.runs if run.finished is not None]
    all_stored = all(run.batches >= (run.finished.batches if run.finished else 0) for run in told)
    if not (all_stored or passed):
        return False
    explained = owed == share.rows + sum(
        run.finished.unsent + run.finished.declared_missing - run.finished.further for run in told if run.finished
    )
    return share.finished or explained or share.gone is not None or given_up or _replaced(share, passed=passed)


def _sink_has_passed(state: RoundState) -> bool:
    """The sink has read all that was in the results topic when the deadline was told."""
    ends = {p: end for p, end in state.head.end_offsets.items() if end > 0}
    return bool(ends) and all(state.head.positions.get(p, 0) >= end for p, end in ends.items())


def complete(*, state: RoundState, planned: Mapping[str, int]) -> bool:
    """Every expected agent has told its account and the equation holds for each: nothing new can come."""
    accounts = settle(state=state, planned=planned, nodes={})
    finished = all((s := state.shares.get(a)) is not None and s.finished for a, owed in planned.items() if owed)
    return finished and all(a.unexplained == 0 for a in accounts)


def digest(state: RoundState) -> str:
    """Of all that a verdict is made from besides the rows; equal for equal facts."""
    shares = [share for _, share in sorted(state.shares.items())]
    # Neither word says anything about a share that has told its own account, but for why it did not send all.
    facts = [(s.agent, s.runs, None if s.finished else s.gone) for s in shares]
    told = [run.finished for s in shares for run in s.runs if run.finished is not None]
    explains = not all(s.finished for s in shares) or any(TAKEN_BACK in f.unsent_causes for f in told)
    cancelled = state.head.cancelled if explains else None
    return hashlib.blake2b(msgspec.json.encode((facts, cancelled)), digest_size=8).hexdigest()


def fitness(state: RoundState, nodes: Mapping[str, str]) -> list[Fitness]:
    """What each agent that finished said of itself, beside what the round asked."""
    asked = state.head.round
    return [
        Fitness(
            agent=share.agent,
            node=nodes.get(share.agent) or share.node or share.agent,
            unsent=run.finished.unsent,
            unsent_causes=run.finished.unsent_causes,
            asked_rate=run.finished.asked_rate,
            achieved_rate=run.finished.achieved_rate,
            lateness_p99_us=run.finished.lateness_p99_us,
            loop_lag_max_us=run.finished.loop_lag_max_us,
            throttled_us=run.finished.throttled_us,
            cpu_wait_us=run.finished.cpu_wait_us,
            socket_drops=run.finished.socket_drops,
            conntrack_share=run.finished.conntrack_share,
            timeout_us=asked.timeout_ms * 1000 if asked else 0,
            duration_us=int(asked.duration_s * 1e6) if asked else 0,
            node_counters=run.finished.node_counters,
        )
        for share in state.shares.values()
        for run in share.runs
        if run.finished is not None
    ]
