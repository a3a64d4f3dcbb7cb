"""When an alarm opens, updates and closes: a pure fold over a task's verdicts.

A thing (`alarm_things`) is told once it has been there OPEN_AFTER rounds in a row and, where counts stand for it, its
evidence has passed the bound of the false-alarm rate (`alarm_evidence`); again when it has changed by much; and closed
when it has been gone for CLOSE_AFTER rounds. One that opened FLAPS times within FLAP_ROUNDS stays open until it has
been gone for CALM_AFTER. A failed round that an open alarm accounts for is no alarm of its own. A round says nothing
of nodes whose agent was not fit in it, neither way, and nothing at all of the network where no agent was. The newest
revision of a round counts; a repeated verdict changes nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from streams import alarm_evidence
from streams.alarm_evidence import Evidence
from streams.alarm_things import CRITICAL_LOSS, MANY, TASK, Thing, ends, evidence_query, things, touches
from streams.silences import Silence, reason_of
from topics.alarms import AlarmClosed, AlarmOpened, AlarmRecord, AlarmUpdated
from topics.round_verdicts import RoundVerdict

__all__ = ["CRITICAL_LOSS", "TaskAlarms", "Thing", "end", "fold", "things"]

OPEN_AFTER = 2
CLOSE_AFTER = 2
FLAPS = 3
FLAP_ROUNDS = 40
CALM_AFTER = 10
KEPT_ROUNDS = 12
KEPT_CLOSED = 100
# A loss that has grown or shrunk by this factor is told again.
CHANGED = 2.0
Kind = type[AlarmOpened] | type[AlarmUpdated] | type[AlarmClosed]
# The kind of a transition, the thing, since when, and the sentence.
Decided = tuple[Kind, Thing, int, str]


class SeenRound(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one round showed, by alarm id, in its newest revision; `nodes` took part.

    `blind` is a round of which no agent was fit, `unfit` the nodes that one says nothing of, as far as alarms ask.
    """

    number: int
    revision: int
    round_id: int
    start_us: int
    things: Mapping[str, Thing]
    blind: bool = False
    unfit: tuple[str, ...] = ()
    nodes: int = 2

    def tells_of(self, element: str) -> bool:
        """Whether the round could have shown that an element of the network is at fault."""
        return not self.blind and not (self.unfit and touches(element, self.unfit))


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The last transition of an alarm; `openings` are the numbers of the rounds it was last opened in.

    `rounds` is how many have shown it since `since_us`, up to now.
    """

    transition: int
    open: bool
    at_us: int
    since_us: int
    thing: Thing
    openings: tuple[int, ...] = ()
    silenced: str = ""
    rounds: int = 0

    def flaps(self, number: int) -> bool:
        """Whether it has been opened too often of late."""
        return sum(number - opened <= FLAP_ROUNDS for opened in self.openings) >= FLAPS


class TaskAlarms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All alarms of one task and the rounds they are decided from, oldest first; `evidence` of the rounds before those.

    `ended_us` is when the task was deleted: verdicts of rounds that began before then are passed over.
    """

    rounds: tuple[SeenRound, ...] = ()
    told: Mapping[str, Told] = {}
    evidence: Mapping[str, Evidence] = {}
    ended_us: int = 0


def fold(
    state: TaskAlarms, verdict: RoundVerdict, silences: Sequence[Silence] = ()
) -> tuple[TaskAlarms, tuple[AlarmRecord, ...]]:
    """The state after one more verdict, and what is to be told; the same object where it says nothing new. Pure."""
    if verdict.start_us < state.ended_us:
        return state, ()
    rounds, gone = _with_round(state, verdict)
    if rounds is state.rounds:
        return state, ()
    evidence = _carried(state.evidence, gone)
    told = _counted(state, rounds, number=verdict.round)
    records: list[AlarmRecord] = []

    def silenced(thing: Thing) -> str:
        return reason_of(silences, labels=_labels(verdict.task, thing), at_us=verdict.at_us)

    ids = {*told, *(a for seen in rounds for a in seen.things)}
    # The network's things first: what they account for is decided after them.
    for alarm_id in sorted(ids, key=lambda a: (f":{TASK}:" in a, a)):
        before = evidence.get(alarm_id, Evidence())
        decided = _decide(alarm_id, told=told, rounds=rounds, before=before, silenced=silenced)
        if decided is None:
            continue
        kind, thing, since_us, _ = decided
        record = _record(
            decided,
            alarm_id,
            told=told.get(alarm_id),
            verdict=verdict,
            silenced=silenced(thing),
            rounds=_rounds_of(alarm_id, kind, told.get(alarm_id), rounds, since_us),
        )
        records.append(record)
        told[alarm_id] = _noted(record, thing=thing, before=told.get(alarm_id), number=rounds[-1].number)
    kept = _kept(told)
    return TaskAlarms(rounds=rounds, told=kept, evidence=evidence, ended_us=state.ended_us), tuple(records)


def end(state: TaskAlarms, *, at_us: int, why: str) -> tuple[TaskAlarms, tuple[AlarmRecord, ...]]:
    """Close every open alarm of a task that is no more; the same object where that is known already. Pure."""
    if at_us <= state.ended_us:
        return state, ()
    told, records = dict(state.told), []
    for alarm_id, last in sorted(state.told.items()):
        if not last.open:
            continue
        thing = last.thing
        record = AlarmClosed(
            alarm_id=alarm_id,
            transition=last.transition + 1,
            at_us=at_us,
            since_us=last.since_us,
            task=alarm_id.split(":", 1)[0],
            element=thing.element,
            direction=thing.direction,
            kind=thing.kind,
            severity=thing.severity,
            sentence=f"over: {why}; was: {thing.sentence}",
            round_id=state.rounds[-1].round_id if state.rounds else 0,
            silenced=last.silenced,
            rounds=last.rounds,
            scope=thing.scope,
            spared=thing.spared,
            evidence_sql=evidence_query(task=alarm_id.split(":", 1)[0], thing=thing, since_us=last.since_us),
        )
        records.append(record)
        told[alarm_id] = _noted(record, thing=thing, before=last, number=0)
    return TaskAlarms(told=_kept(told), ended_us=at_us), tuple(records)


def _with_round(state: TaskAlarms, verdict: RoundVerdict) -> tuple[tuple[SeenRound, ...], tuple[SeenRound, ...]]:
    """The rounds with this one, and those that are no longer kept."""
    rounds = state.rounds
    known = next((seen for seen in rounds if seen.number == verdict.round), None)
    if known is not None and known.revision >= verdict.revision:
        return rounds, ()
    if known is None and len(rounds) >= KEPT_ROUNDS and verdict.round < rounds[0].number:
        return rounds, ()
    nodes = len({account.node for account in verdict.accounts})
    seen = SeenRound(
        number=verdict.round,
        revision=verdict.revision,
        round_id=verdict.round_id,
        start_us=verdict.start_us,
        things=things(verdict),
        blind=nodes > 0 and len(verdict.trust.unfit) >= nodes,
        unfit=_asked_of(state, frozenset(verdict.trust.unfit)),
        nodes=max(2, nodes),
    )
    whole = sorted([*(r for r in rounds if r.number != verdict.round), seen], key=lambda r: r.number)
    return tuple(whole[-KEPT_ROUNDS:]), tuple(whole[:-KEPT_ROUNDS])


def _asked_of(state: TaskAlarms, unfit: frozenset[str]) -> tuple[str, ...]:
    """Those of the unfit nodes that alarms or their candidates are about: so the state stays small."""
    if not unfit:
        return ()
    elements = {t.thing.element for t in state.told.values()}
    elements |= {thing.element for seen in state.rounds for thing in seen.things.values()}
    return tuple(sorted({end for element in elements for end in ends(element)} & unfit))


def _carried(before: Mapping[str, Evidence], gone: Sequence[SeenRound]) -> dict[str, Evidence]:
    """The evidence with the rounds that are no longer kept; what says nothing is dropped."""
    carried = dict(before)
    for seen in gone:
        for alarm_id in {*carried, *(a for a, thing in seen.things.items() if thing.measured)}:
            carried[alarm_id] = _one_more(carried.get(alarm_id, Evidence()), seen, alarm_id, _element_of(alarm_id))
    return {alarm_id: evidence for alarm_id, evidence in carried.items() if evidence.total > 0}


def _one_more(before: Evidence, seen: SeenRound, alarm_id: str, element: str) -> Evidence:
    thing = seen.things.get(alarm_id)
    if thing is None and not seen.tells_of(element):
        return before
    if thing is None:
        return alarm_evidence.missed(before, number=seen.number)
    return alarm_evidence.found(before, number=seen.number, rounds=thing.rounds, lost=thing.lost, sent=thing.sent)


def _decide(
    alarm_id: str,
    *,
    told: Mapping[str, Told],
    rounds: tuple[SeenRound, ...],
    before: Evidence,
    silenced: Callable[[Thing], str],
) -> Decided | None:
    """The transition of one alarm: its kind, the thing, since when, and the sentence; None where there is none."""
    last = told.get(alarm_id)
    telling = _telling(alarm_id, rounds, last)
    streak = _streak(alarm_id, telling)
    thing = streak[-1].things[alarm_id] if streak else None
    if last is not None and last.open:
        return _go_on(alarm_id, last=last, thing=thing, telling=telling, told=told, silenced=silenced)
    if thing is None or len(streak) < OPEN_AFTER or _accounted_for(thing, told):
        return None
    if thing.measured and not _proven(alarm_id, thing, rounds, before):
        return None
    sentence = thing.sentence
    if last is not None and last.flaps(rounds[-1].number):
        sentence += f" (comes and goes: opened {FLAPS} times and more in {FLAP_ROUNDS} rounds)"
    return AlarmOpened, thing, streak[0].start_us, sentence


def _go_on(
    alarm_id: str,
    *,
    last: Told,
    thing: Thing | None,
    telling: Sequence[SeenRound],
    told: Mapping[str, Told],
    silenced: Callable[[Thing], str],
) -> Decided | None:
    if thing is not None and _accounted_for(thing, told):
        other = next(told[a].thing.sentence for a in thing.because if a in told and told[a].open)
        return AlarmClosed, last.thing, last.since_us, f"over: it is told as: {other}"
    need = CALM_AFTER if last.flaps(telling[-1].number if telling else 0) else CLOSE_AFTER
    latest = telling[-need:]
    if len(latest) == need and not any(_shows(seen, alarm_id, last.thing) for seen in latest):
        return (
            AlarmClosed,
            last.thing,
            last.since_us,
            f"over: not seen in the last {need} rounds; was: {last.thing.sentence}",
        )
    if thing is not None and (_differs(thing, last.thing) or (last.silenced and not silenced(thing))):
        return AlarmUpdated, thing, last.since_us, thing.sentence
    return None


def _telling(alarm_id: str, rounds: tuple[SeenRound, ...], last: Told | None) -> Sequence[SeenRound]:
    """The rounds that could have shown the thing."""
    thing = next((seen.things[alarm_id] for seen in rounds if alarm_id in seen.things), last.thing if last else None)
    if thing is None or not thing.of_network:
        return rounds
    return [seen for seen in rounds if seen.tells_of(thing.element)]


def _counted(state: TaskAlarms, rounds: Sequence[SeenRound], *, number: int) -> dict[str, Told]:
    """The alarms with one more round for those that it shows; a later revision of it adds nothing."""
    before = next((seen.things for seen in state.rounds if seen.number == number), {})
    now = next((seen.things for seen in rounds if seen.number == number), {})
    return {
        alarm_id: msgspec.structs.replace(t, rounds=t.rounds + 1) if t.open and alarm_id in now.keys() - before else t
        for alarm_id, t in state.told.items()
    }


def _rounds_of(alarm_id: str, kind: Kind, last: Told | None, rounds: Sequence[SeenRound], since_us: int) -> int:
    if kind is not AlarmOpened and last is not None:
        return last.rounds
    return sum(alarm_id in seen.things and seen.start_us >= since_us for seen in rounds)


def _element_of(alarm_id: str) -> str:
    """The element in an alarm's id, which ends in element, direction and kind."""
    return alarm_id.rsplit(":", 3)[1]


def _streak(alarm_id: str, rounds: Sequence[SeenRound]) -> list[SeenRound]:
    """The latest rounds in a row that show the thing, oldest first."""
    streak: list[SeenRound] = []
    for seen in reversed(rounds):
        thing = seen.things.get(alarm_id)
        if thing is None:
            break
        # A row that something else accounted for says nothing of what goes on without it.
        if streak and bool(thing.because) != bool(streak[-1].things[alarm_id].because):
            break
        streak.insert(0, seen)
    return streak


def _shows(seen: SeenRound, alarm_id: str, thing: Thing) -> bool:
    """Whether a round shows the thing, by itself or among many."""
    if alarm_id in seen.things:
        return True
    return any(
        other.element == MANY and thing.element in other.members and other.direction == thing.direction
        for other in seen.things.values()
    )


def _accounted_for(thing: Thing, told: Mapping[str, Told]) -> bool:
    return any(alarm_id in told and told[alarm_id].open for alarm_id in thing.because)


def _proven(alarm_id: str, thing: Thing, rounds: Sequence[SeenRound], before: Evidence) -> bool:
    evidence = before
    for seen in rounds:
        evidence = _one_more(evidence, seen, alarm_id, thing.element)
    return alarm_evidence.is_enough(evidence, nodes=max(seen.nodes for seen in rounds), direction=thing.direction)


def _differs(now: Thing, before: Thing) -> bool:
    if now.severity != before.severity:
        return True
    low, high = sorted((now.rate, before.rate))
    return low > 0 and high / low >= CHANGED


def _record(
    decided: Decided, alarm_id: str, *, told: Told | None, verdict: RoundVerdict, silenced: str, rounds: int
) -> AlarmRecord:
    kind, thing, since_us, sentence = decided
    # Of what nobody was told the beginning of, nobody is told the end.
    quiet = told.silenced if told is not None and told.open else ""
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
        sentence=sentence,
        round_id=verdict.round_id,
        silenced=quiet if kind is AlarmClosed else silenced,
        rounds=rounds,
        scope=thing.scope,
        spared=thing.spared,
        evidence_sql=evidence_query(task=verdict.task, thing=thing, since_us=since_us),
    )


def _labels(task: str, thing: Thing) -> dict[str, str]:
    return {
        "task": task,
        "element": thing.element,
        "direction": thing.direction,
        "kind": thing.kind,
        "severity": thing.severity,
    }


def _noted(record: AlarmRecord, *, thing: Thing, before: Told | None, number: int) -> Told:
    openings = before.openings if before is not None else ()
    if isinstance(record, AlarmOpened):
        openings = (*openings, number)[-FLAPS:]
    return Told(
        transition=record.transition,
        open=not isinstance(record, AlarmClosed),
        at_us=record.at_us,
        since_us=record.since_us,
        thing=thing,
        openings=openings,
        silenced=record.silenced,
        rounds=record.rounds,
    )


def _kept(told: Mapping[str, Told]) -> dict[str, Told]:
    """All open alarms, and the latest closed ones: their count of transitions goes on if they open again."""
    closed = sorted((alarm_id for alarm_id, t in told.items() if not t.open), key=lambda a: told[a].at_us)
    dropped = _first(closed, len(closed) - KEPT_CLOSED)
    return {alarm_id: t for alarm_id, t in told.items() if alarm_id not in dropped}


def _first(items: Iterable[str], count: int) -> frozenset[str]:
    return frozenset(list(items)[: max(0, count)])
