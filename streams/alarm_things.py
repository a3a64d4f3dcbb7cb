"""What is wrong in one round, as things that an alarm may be about. Pure.

Each finding is a thing; more than FEW findings of one kind and direction have one cause and are one thing, whose
sentence lists them; a failed round is a thing too, and names the findings that account for it. An instrument that was
not fit is one as well. No finding rests on it (`streams.judging.trust`), so those that were made stand beside it; of a
node whose agent has told nothing of itself (yet) nobody knows whether it was fit, and a loss there is left out.
"""

import re
from collections.abc import Collection, Sequence

import msgspec

from topics.alarms import Severity
from topics.round_verdicts import Finding, RoundVerdict

FEW = 5
CRITICAL_LOSS = 0.01
MANY, INSTRUMENT, TASK, CANARY = "many", "instrument", "task", "canary"
_SHOWN = 8
_LONGEST = 600
# Kinds whose counts an agent that was not fit may have forged.
_LOST = ("loss", "errors")


class Thing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something wrong in one round. `rate` is the loss, where it is one; `lost` of `sent` are pooled over `rounds`.

    `members` are the elements of a thing of many; `because` the alarm ids of what accounts for it; `scope` and `spared`
    are the finding's.
    """

    element: str
    direction: str
    kind: str
    severity: Severity
    sentence: str
    rate: float = 0.0
    lost: int = 0
    sent: int = 0
    rounds: int = 1
    members: tuple[str, ...] = ()
    because: tuple[str, ...] = ()
    scope: str = ""
    spared: tuple[str, ...] = ()

    @property
    def measured(self) -> bool:
        """Whether it is a loss of the network that counts stand for."""
        return self.kind == "loss"

    @property
    def of_network(self) -> bool:
        """Whether it takes a fit instrument to show it."""
        return self.element not in (INSTRUMENT, TASK, CANARY)


def things(verdict: RoundVerdict) -> dict[str, Thing]:
    """What is wrong in a round, by alarm id."""
    mute = {a.node for a in verdict.accounts if a.planned and a.state not in ("finished", "unexpected")}
    unsaid = {*verdict.trust.unfit, *mute}
    findings = [f for f in verdict.findings if f.kind != CANARY]
    found = _network([f for f in findings if not (f.kind in _LOST and touches(f.element, unsaid))])
    if verdict.trust.grade != "good":
        text = f"instrument degraded: {'; '.join(verdict.trust.reasons)}"
        found.append(_thing(INSTRUMENT, "degraded", "warning", text))
    if verdict.verdict != "succeed":
        severity: Severity = "critical" if verdict.verdict == "fail" else "warning"
        text = f"{verdict.task} {'fails' if verdict.verdict == 'fail' else 'cannot be told'}: {verdict.why}"
        because = tuple(_alarm_id(verdict.task, thing) for thing in found)
        found.append(msgspec.structs.replace(_thing(TASK, verdict.verdict, severity, text), because=because))
    found += _canary(verdict, unsaid)
    return {_alarm_id(verdict.task, thing): thing for thing in found}


def _canary(verdict: RoundVerdict, unsaid: Collection[str]) -> list[Thing]:
    """That a loss made on purpose was not found; nothing where an agent of the two was not fit to show it."""
    canary = verdict.canary
    if canary is None or canary.reported or not {canary.src_node, canary.dst_node}.isdisjoint(unsaid):
        return []
    text = (
        f"the canary was not found: {canary.dst_node} ignores {canary.share * 100:g} % of what {canary.src_node} "
        "sends it by itself, and no finding says so; losses of the network may go unreported as well"
    )
    return [_thing(CANARY, "unreported", "critical", text)]


def ends(element: str) -> list[str]:
    """The two of a pair, else the element itself."""
    return re.split("<>|>", element)


def touches(element: str, nodes: Collection[str]) -> bool:
    """Whether an element is one of the nodes, or a pair with one of them."""
    return any(end in nodes for end in ends(element))


def _alarm_id(task: str, thing: Thing) -> str:
    return f"{task}:{thing.element}:{thing.direction}:{thing.kind}"


def _thing(element: str, kind: str, severity: Severity, sentence: str) -> Thing:
    return Thing(element=element, direction="", kind=kind, severity=severity, sentence=sentence)


def _network(findings: Sequence[Finding]) -> list[Thing]:
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.direction, finding.kind), []).append(finding)
    found: list[Thing] = []
    for group in groups.values():
        found += [_of_one(f) for f in group] if len(group) <= FEW else [_of_many(group)]
    return found


def _of_one(finding: Finding) -> Thing:
    return Thing(
        element=finding.element,
        direction=finding.direction,
        kind=finding.kind,
        severity="critical" if finding.loss.rate >= CRITICAL_LOSS else "warning",
        sentence=finding.sentence,
        rate=finding.loss.rate,
        lost=finding.loss.lost,
        sent=finding.loss.sent,
        rounds=finding.rounds,
        scope=finding.scope,
        spared=finding.spared,
    )


def _of_many(group: Sequence[Finding]) -> Thing:
    worst = sorted(group, key=lambda f: (-f.loss.rate, f.element))
    shown = ", ".join(f.element for f in worst[:_SHOWN])
    more = f" and {len(worst) - _SHOWN} more" if len(worst) > _SHOWN else ""
    sentence = f"{len(worst)} elements at once ({worst[0].direction}): {shown}{more}; the worst: {worst[0].sentence}"
    lost, sent = sum(f.loss.lost for f in group), sum(f.loss.sent for f in group)
    return Thing(
        element=MANY,
        direction=worst[0].direction,
        kind=worst[0].kind,
        severity="critical",
        sentence=sentence[:_LONGEST],
        rate=lost / sent if sent else 0.0,
        lost=lost,
        sent=sent,
        rounds=max(f.rounds for f in group),
        members=tuple(sorted(f.element for f in group))[:200],
    )


def evidence_query(*, task: str, thing: Thing, since_us: int) -> str:
    """A query over the views for what an alarm rests on, the latest round first."""
    since = f"task = {_text(task)} AND round_at >= fromUnixTimestamp64Milli({since_us // 1000}, 'UTC')"
    if not thing.of_network:
        columns = "round_at, round_number, verdict, why, trust, trust_reasons"
        return f"SELECT {columns} FROM v_round WHERE {since} ORDER BY round_at DESC"
    which = f"direction = {_text(thing.direction)} AND kind = {_text(thing.kind)}"
    which += "" if thing.element == MANY else f" AND element = {_text(thing.element)}"
    columns = "round_at, element, sentence, loss_lost, loss_sent, spared, confidence, evidence_sql"
    return f"SELECT {columns} FROM v_finding WHERE {since} AND {which} ORDER BY round_at DESC, element"


def _text(value: str) -> str:
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"
