"""How truly faults are named, and how often there is a name without a fault: by simulation; writes bench/ACCURACY.md.

Usage: python -m bench accuracy [--trials N] [--days D] [--workers W] [--seed S] [--state FILE] [--out FILE]

Trials: two healthy rounds, then a fault for three; the judge's own code (`streams.judging.localise`) names elements by
what the simulated agents counted (`bench.simulator`). A trial is right in the round by which exactly the faulty
elements have been named, each with its direction, and wrong if by then anything else was. Healthy days: rounds without
a fault, whose findings go through the alarms' own rules. What is done is kept in FILE, so a run that was stopped goes
on where it was; with --page the page is written of what is there. Seeds from SEED upwards; those below 750,000 were
used to set the thresholds.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np

from bench.chance import expected
from bench.machine import machine
from bench.simulator import NOBODY, Agents, Background, Fault, Network, Place, round_of
from streams.alarm_rules import TaskAlarms, fold
from streams.alarm_things import INSTRUMENT
from streams.judging import cover, memory, scope, stats
from streams.judging.localise import SURE, Located, locate
from streams.judging.memory import Memory
from streams.memory import keep_freed_memory
from topics.alarms import AlarmOpened
from topics.round_verdicts import EXAMPLE, Trust
from topics.task_rounds import FULL_SIZE

PAGE = Path(__file__).with_name("ACCURACY.md")
REPORTED_SEED = 1_000_000
ROUNDS_A_DAY = 1440
MINUTE_US = 60_000_000
START_US = 1_790_000_000_000_000
RATES = (0.005, 0.01, 0.02, 0.05)
# The rates at which the goals are near; elsewhere fewer trials tell enough.
GOALS, FEW = (0.01, 0.02), 0.15
BASE = Network()
Draw = Callable[[Network, np.random.Generator], list[Fault]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the table. `scope` is what the finding must say of its reach, None where it is not asked."""

    name: str
    rate: float
    network: Network
    draw: Draw
    scope: str | None = None
    weak_agents: float = 0.0
    trials: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One trial: in which round the right was named (0 never), what else was named, and whether anything was said."""

    exact_in: int
    wrong: tuple[str, ...]
    named: int
    unlocated: bool


def cases() -> list[Case]:
    """The table's lines."""
    twins = replace(BASE, sizes=(0, FULL_SIZE))
    with_services = replace(BASE, services=True)
    with_ports = replace(BASE, ports=True)
    found: list[Case] = []
    for rate in RATES:
        many = 1.0 if rate in GOALS else FEW
        for way in ("ingress", "egress"):
            found.append(Case(name=f"node {way}", rate=rate, network=BASE, draw=_one("node", way, rate), trials=many))
        for way in ("ingress", "egress"):
            found.append(Case(name=f"rack {way}", rate=rate, network=BASE, draw=_one("rack", way, rate), trials=FEW))
        found.append(Case(name="zone pair", rate=rate, network=BASE, draw=_one("zone_pair", "pair", rate), trials=FEW))
        found.append(Case(name="layer", rate=rate, network=with_services, draw=_layer(rate), trials=FEW))
        found.append(Case(name="size", rate=rate, network=twins, draw=_size(rate), trials=FEW))
        found.append(Case(name="two at once", rate=rate, network=BASE, draw=_several(2, rate), trials=many))
        found.append(Case(name="three at once", rate=rate, network=BASE, draw=_several(3, rate), trials=many))
    for name, way in (("MTU hole into a node", "ingress"), ("MTU hole out of a node", "egress")):
        hole = _one("node", way, 1.0, size=FULL_SIZE)
        found.append(Case(name=name, rate=1.0, network=twins, draw=hole, scope="size full", trials=FEW))
    for place in ("node", "rack"):
        for name, scope_, tuples in (
            ("1/16 of tuples into a", "tuples", True),
            ("as much at random into a", "", False),
        ):
            draw = _one(place, "ingress", 1 / 16, tuples=tuples)
            case = Case(name=f"{name} {place}", rate=1 / 16, network=with_ports, draw=draw, scope=scope_, trials=FEW)
            found.append(case)
    for rate in RATES[1:]:
        for direction in ("ingress", "egress"):
            draw = _one("node", direction, rate)
            name = f"node {direction}, 1 % of agents unfit or silent"
            many = 1.0 if rate in GOALS else FEW
            found.append(Case(name=name, rate=rate, network=BASE, draw=draw, weak_agents=0.01, trials=many))
        name = "rack ingress, 1 % of agents unfit or silent"
        draw = _one("rack", "ingress", rate)
        found.append(Case(name=name, rate=rate, network=BASE, draw=draw, weak_agents=0.01, trials=FEW))
    for kind in ("bursty", "unequal"):
        for rate in RATES[1:3]:
            network = replace(BASE, kind="bursty" if kind == "bursty" else "unequal")
            name = f"node ingress, {kind} background"
            found.append(Case(name=name, rate=rate, network=network, draw=_one("node", "ingress", rate)))
    return found


def _one(place: str, direction: str, rate: float, *, size: int | None = None, tuples: bool = False) -> Draw:
    def draw(network: Network, rng: np.random.Generator) -> list[Fault]:
        made = Fault(place="node", number=0, direction="ingress", rate=rate, size=size, tuples=tuples)
        return [_placed(made, place, direction, network, rng)]

    return draw


def _placed(fault: Fault, place: str, direction: str, network: Network, rng: np.random.Generator) -> Fault:
    known: Place = "node" if place == "node" else "rack" if place == "rack" else "zone_pair"
    if known == "zone_pair":
        a, b = rng.choice(network.zones, 2, replace=False)
        return replace(fault, place=known, direction="pair", number=int(a * network.zones + b))
    way = "ingress" if direction == "ingress" else "egress"
    count = network.nodes if known == "node" else network.racks
    return replace(fault, place=known, direction=way, number=int(rng.integers(count)))


def _layer(rate: float) -> Draw:
    return lambda network, rng: [Fault(place="layer", number=1, direction="layer", rate=rate)]


def _size(rate: float) -> Draw:
    return lambda network, rng: [Fault(place="size", number=1, direction="size", rate=rate, size=FULL_SIZE)]


def _several(count: int, rate: float) -> Draw:
    """Nodes and racks, at most one pair of zones, no two the same."""

    def draw(network: Network, rng: np.random.Generator) -> list[Fault]:
        made: dict[tuple[str, str], Fault] = {}
        while len(made) < count:
            place = rng.choice(["node", "node", "rack", "zone_pair"])
            direction = rng.choice(["ingress", "egress"])
            bare = Fault(place="node", number=0, direction="ingress", rate=rate)
            fault = _placed(bare, str(place), str(direction), network, rng)
            if fault.place == "zone_pair" and any(f.place == "zone_pair" for f in made.values()):
                continue
            made[network.element(fault)] = fault
        return list(made.values())

    return draw


def watch(
    network: Network, rng: np.random.Generator, *, first: int, agents: Agents = NOBODY
) -> Callable[[Sequence[Fault]], Located]:
    """A judge that goes on from round to round: each call is the next round, with these faults."""
    number, remembered = first, list[Memory]()

    def following(faults: Sequence[Fault]) -> Located:
        nonlocal number, remembered
        seen = round_of(network, number=number, rng=rng, faults=faults, agents=agents)
        start_us = START_US + number * MINUTE_US
        told = locate(seen, round_id=number, number=number, start_us=start_us, memories=remembered)
        number, remembered = number + 1, [told.memory, *remembered][: memory.ROUNDS - 1]
        return told

    return following


def trial(case: Case, seed: int) -> Tried:
    """One fault, from two rounds before it to its third."""
    rng = np.random.default_rng(seed)
    faults = case.draw(case.network, rng)
    expected = {case.network.element(f) for f in faults}
    following = watch(
        case.network, rng, first=int(rng.integers(1, 240)), agents=weak(case, rng, {f.number for f in faults})
    )
    wrong: list[str] = []
    for _ in range(2):
        wrong += [f.sentence for f in following(()).findings]
    named: set[tuple[str, str]] = set()
    spread = False
    for number in (1, 2, 3):
        told = following(faults)
        named |= {(f.element, f.direction) for f in told.findings}
        wrong += [f.sentence for f in told.findings if (f.element, f.direction) not in expected]
        spread |= bool(told.unlocated)
        reach = case.scope is None or all(f.scope == case.scope for f in told.findings)
        if named == expected and reach:
            return Tried(exact_in=number, wrong=tuple(wrong), named=len(named), unlocated=spread)
    return Tried(exact_in=0, wrong=tuple(wrong), named=len(named & expected), unlocated=spread)


def weak(case: Case, rng: np.random.Generator, spared: set[int]) -> Agents:
    """Half of the weak agents throttled, half silent; none of the faulty nodes, of which nobody could then tell."""
    count = round(case.weak_agents * case.network.nodes)
    if not count:
        return NOBODY
    drawn = [int(i) for i in rng.choice(case.network.nodes, count, replace=False) if int(i) not in spared]
    return Agents(silent=frozenset(drawn[::2]), throttled=frozenset(drawn[1::2]))


@dataclass(frozen=True, kw_only=True)
class Day:
    """A healthy day: rounds, findings, alarms, rounds with losses said to be spread, seconds, and what was found."""

    kind: Background
    weak_agents: float
    rounds: int
    findings: int
    alarms: int
    spread: int
    seconds: float
    examples: tuple[str, ...]


def healthy_day(number: int, *, seed: int, rounds: int = ROUNDS_A_DAY, network: Network = BASE) -> Day:
    """One day without a fault. The background's kind changes from day to day, every fifth day has weak agents."""
    keep_freed_memory()
    kind = get_args(Background)[number % 4]
    case = Case(
        name="", rate=0, network=replace(network, kind=kind), draw=_layer(0), weak_agents=0.01 * (number % 5 == 4)
    )
    rng = np.random.default_rng(seed + number)
    began, findings, alarms, spread, examples = time.process_time(), 0, 0, 0, list[str]()
    agents = weak(case, rng, set())
    unfit = tuple(network.names[i] for i in sorted(agents.throttled))
    trust = Trust(grade="degraded", reasons=("throttled",), unfit=unfit) if unfit else Trust()
    following = watch(case.network, rng, first=1 + number * rounds, agents=agents)
    state = TaskAlarms()
    for i in range(rounds):
        told = following(())
        findings += len(told.findings)
        spread += bool(told.unlocated)
        examples += [f.sentence for f in told.findings]
        changes = {"round": i + 1, "round_id": i + 1, "start_us": START_US + i * MINUTE_US, "findings": told.findings}
        changes["trust"] = trust
        state, records = fold(state, msgspec.structs.replace(EXAMPLE, **changes))
        alarms += sum(isinstance(r, AlarmOpened) and r.element != INSTRUMENT for r in records)
    seconds = time.process_time() - began
    return Day(
        kind=kind,
        weak_agents=case.weak_agents,
        rounds=rounds,
        findings=findings,
        alarms=alarms,
        spread=spread,
        seconds=round(seconds, 1),
        examples=tuple(examples[:5]),
    )


class Kept(msgspec.Struct):
    """What has been done of a run: trials by case, days by number."""

    trials: dict[str, list[Tried]] = {}
    days: dict[int, Day] = {}


def kept_in(state: Path) -> Kept:
    """What an earlier run left, nothing where there was none."""
    return msgspec.json.decode(state.read_bytes(), type=Kept) if state.exists() else Kept()


def key_of(case: Case) -> str:
    """The name of a case in the state."""
    return f"{case.name} {case.rate:g}"


def go_on(given: argparse.Namespace, kept: Kept) -> None:
    """Do what is not done yet; each part is written down when it is."""
    jobs: dict[Future[Any], str | int] = {}
    with ProcessPoolExecutor(given.workers) as pool:
        for number, case in enumerate(cases()):
            first = given.seed + 10_000 * (number + 1)
            seeds = range(first, first + round(case.trials * given.trials))
            if seeds and key_of(case) not in kept.trials:
                jobs[pool.submit(trials, number, seeds)] = key_of(case)
        for day in range(given.days):
            if day not in kept.days:
                jobs[pool.submit(healthy_day, day, seed=given.seed)] = day
        for done in as_completed(jobs):
            name = jobs[done]
            if isinstance(name, int):
                kept.days[name] = done.result()
                print(
                    f"day {name + 1}: {kept.days[name].findings} findings, {kept.days[name].alarms} alarms", flush=True
                )
            else:
                kept.trials[name] = done.result()
                right = sum(0 < t.exact_in <= 2 and not t.wrong for t in kept.trials[name])
                print(f"{name}: {right} of {len(kept.trials[name])} within two rounds", flush=True)
            given.state.write_bytes(msgspec.json.encode(kept))


def trials(case_number: int, seeds: Sequence[int]) -> list[Tried]:
    """Several trials of one case, in a process of its own."""
    keep_freed_memory()
    case = cases()[case_number]
    return [trial(case, seed) for seed in seeds]


def share(hits: int, of: int) -> str:
    """ "99.2 % [98.0–99.7]"."""
    low, high = stats.wilson(hits=hits, trials=of)
    return f"{100 * hits / of:.1f} % [{100 * low:.1f}–{100 * high:.1f}]"


def rows(results: Sequence[tuple[Case, list[Tried]]]) -> Iterator[str]:
    """The table's lines."""
    yield "| fault | loss | trials | exact in 1 round | in 2 | in 3 | named nothing | named something else |"
    yield "|---|---|---|---|---|---|---|---|"
    for case, tried in results:
        exact = [sum(0 < t.exact_in <= n and not t.wrong for t in tried) for n in (1, 2, 3)]
        silent = sum(not t.exact_in and not t.named and not t.wrong for t in tried)
        wrong = sum(bool(t.wrong) for t in tried)
        cells = [case.name, f"{100 * case.rate:g} %", str(len(tried)), *(share(e, len(tried)) for e in exact)]
        yield f"| {' | '.join(cells)} | {silent} | {wrong} |"


def nested(network: Network, faults: Sequence[Fault]) -> str:
    """How the faults of a trial share packets: a node and its rack the "same way", a "pair of zones"; empty: not."""
    if any(f.place == "zone_pair" for f in faults) and len(faults) > 1:
        return "pair of zones"
    racks = {(f.number, f.direction) for f in faults if f.place == "rack"}
    nodes = {(int(network.rack[f.number]), f.direction) for f in faults if f.place == "node"}
    return "same way" if racks & nodes else ""


def why_missed(case: Case, seed: int, told: Tried) -> str:
    """The class of a miss: the reason in words."""
    shared = nested(case.network, case.draw(case.network, np.random.default_rng(seed)))
    if told.wrong:
        return "Something else named"
    if shared == "same way":
        return (
            "A node within a rack that loses the same way: the rack accounts for its packets, and twice its rate on "
            "so few is no proof"
        )
    if shared:
        return (
            "Beside a pair of zones that loses: a third of the other's packets go that way, where its loss is on top "
            "of an equal one and proves little"
        )
    return (
        "Too few losses fell on the element to outweigh chance among all elements"
        if told.named == 0
        else ("Some of several named, or the right one without its reach: too few losses on the rest")
    )


def misses(results: Sequence[tuple[Case, list[Tried]]], first_seed: int) -> Iterator[str]:
    """For each class of misses, how many were not exact within three rounds, by loss, and why."""
    number = {key_of(case): place for place, case in enumerate(cases())}
    classes: dict[str, dict[float, int]] = {}
    for case, tried in results:
        seed = first_seed + 10_000 * (number[key_of(case)] + 1)
        for place, told in enumerate(tried):
            if told.exact_in == 0 or told.wrong:
                by_rate = classes.setdefault(why_missed(case, seed + place, told), {})
                by_rate[case.rate] = by_rate.get(case.rate, 0) + 1
    for reason, by_rate in classes.items():
        counts = ", ".join(f"{n} at {100 * rate:g} %" for rate, n in sorted(by_rate.items()))
        yield f"- {reason}: {counts}."
    if not any(t.wrong for _, tried in results for t in tried):
        yield "- Something else named: 0."
    for case, tried in results:
        for sentence in [w for t in tried for w in t.wrong[:1]][:2]:
            yield f"  - {case.name}, {100 * case.rate:g} %: {sentence}"


def page(results: Sequence[tuple[Case, list[Tried]]], days: Sequence[Day], given: argparse.Namespace) -> str:
    """bench/ACCURACY.md."""
    lines = ["# Accuracy of findings", "", *_preamble(given, results, len(days)), "", *rows(results), ""]
    lines += ["## Misses", "", *misses(results, given.seed), "", "## Healthy days", ""]
    lines += ["| background | agents unfit or silent | rounds | findings | alarms | losses said to be spread |"]
    lines += ["|---|---|---|---|---|---|"]
    for kind in get_args(Background):
        for part in (0.0, 0.01):
            mine = [d for d in days if d.kind == kind and d.weak_agents == part]
            if mine:
                counts = [sum(getattr(d, n) for d in mine) for n in ("rounds", "findings", "alarms", "spread")]
                lines += [f"| {kind} | {100 * part:g} % | {' | '.join(map(str, counts))} |"]
    totals = [sum(getattr(d, n) for d in days) for n in ("rounds", "findings", "alarms", "spread")]
    lines += [f"| all | | {' | '.join(map(str, totals))} |", ""]
    seconds = sum(d.seconds for d in days)
    each_ms = 1000 * seconds / max(1, totals[0])
    lines += [f"{each_ms:.1f} ms of CPU a round, the simulation included ({seconds / 60:.1f} minutes in all).", ""]
    lines += [*_by_chance(), ""]
    lines += [f"- found in health: {e}" for d in days for e in d.examples]
    return "\n".join(lines).rstrip() + "\n"


def _by_chance() -> Iterator[str]:
    """What is to be expected of chance in 30 days."""
    rounds = 30 * ROUNDS_A_DAY
    yield (
        "A finding is a statement about a round; an alarm is what wakes somebody: two rounds that find the same, and a "
        "sequential test of their counts that is held to one false alarm in 43,200 rounds at most "
        "(`streams/alarm_evidence.py`). What chance alone makes of a sound network of this size, reckoned from the "
        "same thresholds (`bench/chance.py`):"
    )
    yield ""
    yield f"| background | nodes named falsely, to be expected in {rounds} rounds | false alarms |"
    yield "|---|---|---|"
    for kind in ("independent", "unequal"):
        findings, alarms = expected(
            replace(BASE, kind="unequal" if kind == "unequal" else "independent"), rounds=rounds
        )
        yield f"| {kind} | {findings:.1f} | {alarms:.1g} |"
    yield ""
    yield (
        "Bursts name fewer, since a line counts for little more than one packet. With unequal nodes it is the few that "
        f"lose three to four times {cover.FLOOR:g}, more than is called sound."
    )


def _preamble(given: argparse.Namespace, results: Sequence[tuple[Case, list[Tried]]], days: int) -> Iterator[str]:
    yield (
        f"{machine()}. Repeat with `python -m bench accuracy --seed {given.seed}`, `--trials` as each line says; a run "
        f"that was stopped goes on where it was. Healthy days done so far: {days} of {given.days}."
    )
    yield ""
    yield (
        f"Simulated: {BASE.nodes} nodes in racks of {BASE.per_rack} and {BASE.zones} zones; each probes {BASE.degree} "
        f"others a round with {BASE.packets} packets each; background loss {BASE.background:g}. "
        f"{sum(len(t) for _, t in results)} trials, seeds from {given.seed}; those the thresholds were set with are "
        "below 750,000. The loss is of all packets of the element. Intervals are Wilson's at 95 %."
    )
    yield ""
    yield (
        f"Thresholds, the judge's own: price {cover.PRICE:g} nats and {cover.CROWD:g} of the logarithm of the "
        f"suspects, {cover.FURTHER:g} less beside a wide fault, floor "
        f"{cover.FLOOR:g}, least {cover.LEAST_LOST} lost, {cover.ABOVE_REST:g} times the rest, onset {cover.ONSET:g}, "
        f"burst {cover.BURST:g} nats, {memory.ROUNDS} rounds pooled, reach {scope.SPLIT:g}, "
        f"tuples {scope.TUPLE_GAIN:g}, confidence {SURE:g}."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all and write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench accuracy", description=__doc__)
    parser.add_argument("--trials", type=int, default=200, help="of each line; some have fewer")
    parser.add_argument("--days", type=int, default=30, help="healthy days of 1,440 rounds")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=REPORTED_SEED)
    parser.add_argument("--state", type=Path, default=Path(__file__).with_name(".accuracy.json"))
    parser.add_argument("--page", action="store_true", help="only write the page of what is in the state")
    parser.add_argument("--out", type=Path, default=PAGE)
    given = parser.parse_args(arguments)
    kept = kept_in(given.state)
    if not given.page:
        go_on(given, kept)
    results = [(case, kept.trials[key_of(case)]) for case in cases() if key_of(case) in kept.trials]
    given.out.write_text(page(results, [kept.days[n] for n in sorted(kept.days)], given))
    print(f"written: {given.out.name}")


if __name__ == "__main__":
    main()
