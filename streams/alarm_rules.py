"""When an alarm opens, is updated and closes: a pure fold over a task's verdicts. First version.

A thing is told once it has been there in OPEN_AFTER rounds in a row, again when it has changed by much, and closed when
it has been gone for CLOSE_AFTER rounds. Things: each finding, a failed round, a round that cannot be told. A round
whose instrument was not fit raises an alarm of its own and none about the network. The newest revision of a round
counts; a repeated verdict changes nothing.
"""

from collections.abc import Iterable, Mapping

import msgspec

from topics.alarms import AlarmClosed, AlarmOpened, AlarmRecord, AlarmUpdated, Severity
from topics.round_verdicts import RoundVerdict

OPEN_AFTER = 2
CLOSE_AFTER = 2
KEPT_ROUNDS = 8
KEPT_CLOSED = 100
# A loss that has grown or shrunk by this factor is told again.
CHANGED = 2.0
CRITICAL_LOSS = 0.01


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong in one round. `rate` is the loss, where it is one."""

    element: str
    direction: str
    kind: str
    severity: Severity
    sentence: str
    rate: float = 0.0


class SeenRound(msgspec.Struct, frozen=True, kw_only=True):
    """What one round showed, by alarm id, in its newest revision."""

    number: int
    revision: int
    round_id: int
    start_us: int
    things: Mapping[str, Thing]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """The last transition of an alarm."""

    transition: int
    open: bool
    at_us: int
    since_us: int
    thing: Thing


class TaskAlarms(msgspec.Struct, frozen=True, kw_only=True):
    """All alarms of one task and the rounds they are decided from, oldest first."""

    rounds: tuple[SeenRound, ...] = ()
    told: Mapping[str, Told] = {}


def things(verdict: RoundVerdict) -> dict[str, Thing]:
    """What is wrong in a round, by alarm id."""
    found: list[Thing] = []
    if verdict.trust.grade == "good":
        found += [
            Thing(
                element=f.element,
                direction=f.direction,
                kind=f.kind,
                severity="critical" if f.loss.rate >= CRITICAL_LOSS else "warning",
                sentence=f.sentence,
                rate=f.loss.rate,
            )
            for f in verdict.findings
        ]
    else:
        text = f"instrument degraded: {'; '.join(verdict.trust.reasons)}"
        found.append(Thing(element="instrument", direction="", kind="degraded", severity="warning", sentence=text))
    if verdict.verdict != "succeed":
        severity: Severity = "critical" if verdict.verdict == "fail" else "warning"
        text = f"{verdict.task} {'fails' if verdict.verdict == 'fail' else 'cannot be told'}: {verdict.why}"
        found.append(Thing(element="task", direction="", kind=verdict.verdict, severity=severity, sentence=text))
    return {f"{verdict.task}:{t.element}:{t.direction}:{t.kind}": t for t in found}


def fold(state: TaskAlarms, verdict: RoundVerdict) -> tuple[TaskAlarms, tuple[AlarmRecord, ...]]:
    """The state after one more verdict, and what is to be told; the same object where it says nothing new. Pure."""
    rounds = _with_round(state.rounds, verdict)
    if rounds is state.rounds:
        return state, ()
    told = dict(state.told)
    records: list[AlarmRecord] = []
    recent = rounds[-max(OPEN_AFTER, CLOSE_AFTER) :]
    for alarm_id in sorted({*told, *(a for seen in recent for a in seen.things)}):
        record = _transition(alarm_id, told.get(alarm_id), rounds, verdict)
        if record is not None:
            records.append(record)
            told[alarm_id] = _told(record, rounds, alarm_id, told.get(alarm_id))
    return TaskAlarms(rounds=rounds, told=_kept(told)), tuple(records)


def _with_round(rounds: tuple[SeenRound, ...], verdict: RoundVerdict) -> tuple[SeenRound, ...]:
    known = next((seen for seen in rounds if seen.number == verdict.round), None)
    if known is not None and known.revision >= verdict.revision:
        return rounds
    if known is None and len(rounds) >= KEPT_ROUNDS and verdict.round < rounds[0].number:
        return rounds
    seen = SeenRound(
        number=verdict.round,
        revision=verdict.revision,
        round_id=verdict.round_id,
        start_us=verdict.start_us,
        things=things(verdict),
    )
    others = [r for r in rounds if r.number != verdict.round]
    return tuple(sorted([*others, seen], key=lambda r: r.number))[-KEPT_ROUNDS:]


def _transition(
    alarm_id: str, told: Told | None, rounds: tuple[SeenRound, ...], verdict: RoundVerdict
) -> AlarmRecord | None:
    streak = _streak(alarm_id, rounds)
    if told is not None and told.open:
        if _absent(alarm_id, rounds):
            return _record(AlarmClosed, alarm_id, told, told.thing, told.since_us, verdict)
        if streak and _differs(streak[-1].things[alarm_id], told.thing):
            return _record(AlarmUpdated, alarm_id, told, streak[-1].things[alarm_id], told.since_us, verdict)
        return None
    if len(streak) >= OPEN_AFTER:
        return _record(AlarmOpened, alarm_id, told, streak[-1].things[alarm_id], streak[0].start_us, verdict)
    return None


def _streak(alarm_id: str, rounds: tuple[SeenRound, ...]) -> list[SeenRound]:
    """The latest rounds in a row that show the thing, oldest first."""
    streak: list[SeenRound] = []
    for seen in reversed(rounds):
        if alarm_id not in seen.things:
            break
        streak.insert(0, seen)
    return streak


def _absent(alarm_id: str, rounds: tuple[SeenRound, ...]) -> bool:
    latest = rounds[-CLOSE_AFTER:]
    return len(latest) == CLOSE_AFTER and all(alarm_id not in seen.things for seen in latest)


def _differs(now: Thing, before: Thing) -> bool:
    if now.severity != before.severity:
        return True
    low, high = sorted((now.rate, before.rate))
    return low > 0 and high / low >= CHANGED


def _record(
    kind: type[AlarmOpened] | type[AlarmUpdated] | type[AlarmClosed],
    alarm_id: str,
    told: Told | None,
    thing: Thing,
    since_us: int,
    verdict: RoundVerdict,
) -> AlarmRecord:
    closed = kind is AlarmClosed
    return kind(
        alarm_id=alarm_id,
        transition=told.transition + 1 if told is not None else 1,
        at_us=verdict.at_us,
        since_us=since_us,
        task=verdict.task,
        element=thing.element,
        direction=thing.direction,
        kind=thing.kind,
        severity=thing.severity,
        sentence=f"over: not seen in the last {CLOSE_AFTER} rounds; was: {thing.sentence}"
        if closed
        else thing.sentence,
        round_id=verdict.round_id,
    )


def _told(record: AlarmRecord, rounds: tuple[SeenRound, ...], alarm_id: str, before: Told | None) -> Told:
    streak = _streak(alarm_id, rounds)
    thing = streak[-1].things[alarm_id] if streak else before.thing if before is not None else None
    assert thing is not None, "a transition is of something seen now or told before"
    is_open = not isinstance(record, AlarmClosed)
    return Told(transition=record.transition, open=is_open, at_us=record.at_us, since_us=record.since_us, thing=thing)


def _kept(told: Mapping[str, Told]) -> dict[str, Told]:
    """All open alarms, and the latest closed ones: their count of transitions goes on if they open again."""
    closed = sorted((alarm_id for alarm_id, t in told.items() if not t.open), key=lambda a: told[a].at_us)
    return {a: t for a, t in told.items() if a not in _first(closed, len(closed) - KEPT_CLOSED)}


def _first(items: Iterable[str], count: int) -> frozenset[str]:
    return frozenset(list(items)[: max(0, count)])
