"""What is killed and cut, and when: drawn from a seed. Pure."""

import random
from dataclasses import dataclass, replace
from typing import Literal

COMING_BACK_S = 15.0
SERVICES = ("sink", "judge", "alarms", "hooks", "controller", "clickhouse")
Action = Literal["kill", "cut data", "cut kafka", "take away"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """At `at_s` after the first round's start; after `for_s` a cut heals, a killed broker or what was away is back."""

    at_s: float
    action: Action
    name: str
    for_s: float = 0.0

    def words(self) -> str:
        lasting = f" for {self.for_s:.1f} s" if self.for_s else ""
        return f"{self.at_s:6.1f} s  {self.action} {self.name}{lasting}"


def plan(
    *,
    seed: int,
    kills: int,
    cuts: int,
    within_s: float,
    agents: tuple[str, ...],
    brokers: int,
    longest_cut_s: float = 4.0,
    outage: tuple[float, float] | None = None,
) -> list[Step]:
    """`kills` kills and `cuts` cuts spread over `within_s`; everything there is comes once before anything twice.

    `outage` (from when, how long; seconds): ClickHouse is away; its own kills come before and after.
    """
    draw = random.Random(seed)
    everything = [*SERVICES, *(f"agent-{name}" for name in agents), *(f"broker-{n + 1}" for n in range(brokers))]
    names: list[str] = []
    while len(names) < kills:
        names += draw.sample(everything, k=len(everything))
    acts: list[tuple[Action, str]] = [("kill", name) for name in names[:kills]]
    kinds: tuple[Action, Action] = ("cut data", "cut kafka")
    for number in range(cuts):
        acts.insert(draw.randrange(len(acts) + 1), (kinds[number % 2], draw.choice(agents)))
    gap_s = within_s / len(acts)
    steps = [
        Step(
            at_s=gap_s * (number + draw.random()),
            action=action,
            name=name,
            for_s=_lasting(draw, action, name, longest_cut_s),
        )
        for number, (action, name) in enumerate(acts)
    ]
    return steps if outage is None else _without_clickhouse(draw, steps, *outage)


def _without_clickhouse(draw: random.Random, steps: list[Step], from_s: float, for_s: float) -> list[Step]:
    """One step more: it is taken away. What would kill it until it is well back changes places with a kill outside."""
    inside = [0 <= step.at_s - from_s <= for_s + COMING_BACK_S for step in steps]
    late = [n for n, step in enumerate(steps) if inside[n] and step.name == "clickhouse"]
    free = [n for n, s in enumerate(steps) if not inside[n] and s.action == "kill" and s.name != "clickhouse"]
    left = list(steps)
    for one, other in zip(late, draw.sample(free, k=min(len(free), len(late))), strict=True):
        left[one], left[other] = (
            replace(steps[there], at_s=steps[here].at_s) for here, there in ((one, other), (other, one))
        )
    away = Step(at_s=from_s, action="take away", name="clickhouse", for_s=for_s)
    return sorted([*left, away], key=lambda step: step.at_s)


def _lasting(draw: random.Random, action: Action, name: str, longest_cut_s: float) -> float:
    if action != "kill":
        return draw.uniform(1, longest_cut_s)
    return draw.uniform(1, 4) if name.startswith("broker-") else 0.0
