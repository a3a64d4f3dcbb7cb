"""The verdict of a round: from the round, the agents' accounts and the pair table to a RoundVerdict. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streams.judging import pair_table, rules, summary, trust
from streams.judging.away import lines_to, nodes_left
from streams.judging.canary import with_canary
from streams.judging.directions import Directions, Masks, directions
from streams.judging.evidence import evidence
from streams.judging.localise import Located, locate
from streams.judging.memory import Memory
from streams.judging.pair_table import PairTable
from streams.judging.rules import Reason
from streams.judging.silence import silences
from streams.judging.targets import blamed
from streams.judging.trust import Fitness
from streams.judging.words import delay, percent, plural
from topics.round_verdicts import AgentAccount, Delay, Finding, Requests, RoundVerdict, Verdict
from topics.task_rounds import RoundScheduled


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a round besides its results.

    `cancelled` is the reason given, None where it was not; `last_result_us` when the last agent finished, 0 while none
    has; `final` that nothing more is to come; `trouble` why the results are not (all) known, empty where they are.
    """

    round: RoundScheduled
    accounts: tuple[AgentAccount, ...]
    fitness: Sequence[Fitness]
    final: bool
    last_result_us: int = 0
    cancelled: str | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A verdict, and what is to be remembered of its round for the next ones of the task."""

    verdict: RoundVerdict
    memory: Memory


def judge(*, facts: Facts, pairs: PairTable | None, revision: int, at_us: int) -> RoundVerdict:
    """The verdict on a round by itself; see `judge_among`."""
    return judge_among(facts=facts, pairs=pairs, revision=revision, at_us=at_us, memories=()).verdict


def judge_among(
    *, facts: Facts, pairs: PairTable | None, revision: int, at_us: int, memories: Sequence[Memory]
) -> Judged:
    """The verdict on a round, as of `at_us` (microseconds since the epoch). `pairs` is None where it cannot be read.

    `memories` are of the task's rounds just before, the latest first: rare losses are pooled over them.
    """
    graded, unfit = trust.grade(facts.fitness)
    table = pairs or pair_table.empty()
    told = silences(
        accounts=facts.accounts,
        pairs=table,
        unfit=unfit,
        round_id=facts.round.round_id,
        start_us=facts.round.start_us,
    )
    left = nodes_left(accounts=facts.accounts, pairs=table, silent=told)
    away = lines_to(table, left)
    reasons = tuple(_reasons(facts, pairs, unfit, left))
    requests, round_ = summary.requests(table), facts.round
    sent_delay, ways = summary.delay(table, "sent"), directions(table).without(away)
    loss = summary.packet_loss(ways)
    silent = {a.node for a in facts.accounts if a.planned and a.state not in ("finished", "unexpected")}
    # Requests that an agent could not send because it was away are no failure of its node, nor a success.
    named = {node for r in reasons for node in r.nodes}
    silent |= (named & left) - {node for r in reasons if r.weight == "fail" for node in r.nodes}
    failed = named - silent
    expected = {a.node for a in facts.accounts if a.state != "unexpected"}
    located = _located(facts, table, ways, unfit | left, memories)
    found = _findings(facts, (*located.findings, *_blamed(facts, table, away)), told, unfit)
    findings, canary = with_canary(found, round_.canary)
    verdict = RoundVerdict(
        round_id=round_.round_id,
        round=round_.number,
        task=round_.task,
        task_uid=round_.task_uid,
        kind=round_.kind,
        revision=revision,
        final=facts.final,
        verdict=_verdict(reasons),
        why=why(facts=facts, reasons=reasons, requests=requests, sent_delay=sent_delay),
        start_us=round_.start_us,
        at_us=at_us,
        planned=planned(facts),
        stored=sum(a.stored for a in facts.accounts),
        unsent=sum(a.unsent for a in facts.accounts),
        declared_missing=sum(a.declared_missing for a in facts.accounts),
        unexplained=planned(facts) - sum(a.stored + a.unsent + a.declared_missing for a in facts.accounts),
        duplicates=table.duplicates,
        success_rate=requests.ok / requests.sent if requests.sent else None,
        requests=requests,
        loss=loss.total,
        loss_ends=loss.ends,
        forward_loss=loss.forward,
        reverse_loss=loss.reverse,
        delay=summary.delay(table, "total"),
        sent_delay=sent_delay,
        verdict_delay_s=max(0, at_us - facts.last_result_us) / 1e6 if facts.last_result_us else None,
        trust=graded,
        findings=findings,
        accounts=facts.accounts,
        worst=summary.worst(table, ways),
        succeeded_nodes=tuple(sorted(expected - failed - silent)),
        failed_nodes=tuple(sorted(failed & expected)),
        not_reported_nodes=tuple(sorted(silent)),
        missing_causes=tuple(sorted({a.cause for a in facts.accounts if a.cause})),
        deadline_us=round_.deadline_us,
        created_us=round_.created_us,
        spec=round_.spec,
        unlocated=located.unlocated,
        canary=canary,
    )
    return Judged(verdict=verdict, memory=located.memory)


def _located(
    facts: Facts, table: PairTable, ways: Directions, unfit: frozenset[str], memories: Sequence[Memory]
) -> Located:
    round_ = facts.round
    seen = evidence(table, ways, unfit=unfit)
    return locate(seen, round_id=round_.round_id, number=round_.number, start_us=round_.start_us, memories=memories)


def _blamed(facts: Facts, table: PairTable, away: Masks) -> tuple[Finding, ...]:
    return blamed(pairs=table, away=away, round_id=facts.round.round_id, start_us=facts.round.start_us)


def _findings(
    facts: Facts, told: Sequence[Finding], silent: Sequence[Finding], unfit: frozenset[str]
) -> tuple[Finding, ...]:
    """Losses, wrong answers, silent agents. A node that is dead explains what is lost to it and from it."""
    silent = silent if facts.final else ()
    explained = {f.element for f in silent if f.kind in ("node_dead", "agent_dead")}
    believed = trust.believable(
        (f for f in told if f.element not in explained),
        unfit=unfit,
        nodes=frozenset(fitness.node for fitness in facts.fitness),
    )
    return (*believed, *silent)


def planned(facts: Facts) -> int:
    """Requests owed: by the membership, or by the round's own word while its membership is not known."""
    return sum(a.planned for a in facts.accounts) or facts.round.planned


def _reasons(facts: Facts, pairs: PairTable | None, unfit: frozenset[str], left: frozenset[str]) -> Iterable[Reason]:
    accounts, expect = facts.accounts, facts.round.expect
    yield from rules.of_round(round_=facts.round, accounts=accounts, cancelled=facts.cancelled)
    if pairs is not None:
        yield from rules.of_pairs(pairs=pairs, expect=expect, unfit=unfit, left=left)
    yield from rules.of_accounts(accounts=accounts, cancelled=facts.cancelled is not None, left=left)
    if facts.trouble:
        yield Reason(weight="unknown", text=facts.trouble)
    elif pairs is not None:
        yield from rules.of_missing(accounts=accounts, pairs=pairs, expect=expect)
        if pairs.stored == 0 and any(a.planned for a in accounts):
            yield Reason(weight="unknown", text="no result is stored")


def _verdict(reasons: Sequence[Reason]) -> Verdict:
    if any(r.weight == "void" for r in reasons):
        return "unknown"
    if any(r.weight == "fail" for r in reasons):
        return "fail"
    return "unknown" if reasons else "succeed"


def why(*, facts: Facts, reasons: Sequence[Reason], requests: Requests, sent_delay: Delay) -> str:
    """One sentence with the numbers that decided."""
    expect = facts.round.expect
    succeeded = f"{requests.ok} of {plural(requests.sent, 'request')} succeeded"
    if reasons:
        parts = [r.text for r in reasons] + ([succeeded] if requests.sent else [])
    else:
        mean = delay(sent_delay.mean_us) if sent_delay.mean_us is not None else "none"
        asked = f"(asked: {percent(expect.success_rate)}), mean {mean} (allowed: {expect.mean_delay_ms} ms)"
        parts = [f"{succeeded} {asked}"]
    return "; ".join(parts + _timing(facts))


def _timing(facts: Facts) -> list[str]:
    stored = sum(a.stored for a in facts.accounts)
    if not facts.final:
        return [f"provisional: judged at the deadline with what there is ({stored} of {planned(facts)} stored)"]
    late_us = facts.last_result_us - facts.round.deadline_us
    return [f"the last result came {delay(late_us)} after the deadline"] if late_us > 0 else []
