"""What is killed and cut, and when: drawn from a seed. Pure."""

import random
from dataclasses import dataclass
from typing import Literal

SERVICES = ("sink", "judge", "alarms", "hooks", "controller", "clickhouse")
Action = Literal["kill", "cut data", "cut kafka"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """At `at_s` after the first round's start; a cut heals after `for_s`, a killed broker stays away for as long."""

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
) -> list[Step]:
    """`kills` kills and `cuts` cuts spread over `within_s`; everything there is comes once before anything twice."""
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
    return [
        Step(
            at_s=gap_s * (number + draw.random()),
            action=action,
            name=name,
            for_s=_lasting(draw, action, name, longest_cut_s),
        )
        for number, (action, name) in enumerate(acts)
    ]


def _lasting(draw: random.Random, action: Action, name: str, longest_cut_s: float) -> float:
    if action != "kill":
        return draw.uniform(1, longest_cut_s)
    return draw.uniform(1, 4) if name.startswith("broker-") else 0.0
