"""Caps that keep the agent harmless, over all rounds that run at once: requests/s and requests in flight, to one target
and in all. What exceeds a rate is counted unsent with the cause `over_the_cap`, never skipped in silence.

Rates are measured by the due times, not by the moments of sending: what goes out is then the same on every run, and a
stall of our own is not charged to the cap. What piles up in a stall is bounded by the requests in flight and by the
limit on lateness. Rounds that run at once share the caps on requests in flight evenly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from topics.task_rounds import Target

OVER_THE_CAP = "over_the_cap"
# How much earlier than a steady flow allows a request may be due: rounds and streams are not in step with one another.
BURST_US = 20_000.0

Place: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Requests/s and requests in flight, in all and to one target (an address and port), and the greatest lateness.

    A request that cannot be sent within `late_limit_us`, or the round's timeout if that is shorter, is unsent.
    """

    rate: float = 50_000.0
    rate_per_target: float = 50_000.0
    in_flight: int = 4096
    in_flight_per_target: int = 256
    late_limit_us: int = 1_000_000


def place_of(target: Target) -> Place:
    """What shares a cap: whatever answers at one address and port, by whichever name and protocol."""
    return target.address, target.port


class Flow:
    """A rate with some allowance for bursts: when the next request of a steady flow is due."""

    __slots__ = ("allowance_us", "gap_us", "next_us")

    def __init__(self, rate: float) -> None:
        self.gap_us = 1e6 / rate
        self.allowance_us = max(BURST_US, self.gap_us)
        self.next_us = 0.0


class Passage:
    """One round's way through the caps. `room` and `room_to[stream]` are how many requests it may have in flight."""

    def __init__(self, *, flow: Flow, flows: list[Flow], places: list[Place]) -> None:
        self.places = places
        self.room = 1
        self.room_to = [1] * len(places)
        self._all = flow
        self._each = flows

    def admits(self, stream: int, due_us: int) -> bool:
        """Whether a request of that stream, due then by one clock for all rounds, is within both rates; if so it is
        counted. Due times come nearly in order."""
        each, everything = self._each[stream], self._all
        if each.next_us - due_us >= each.allowance_us or everything.next_us - due_us >= everything.allowance_us:
            return False
        # Said without max(): a call for each of two comparisons is a tenth of what the engine does for a request.
        each.next_us = (each.next_us if each.next_us > due_us else due_us) + each.gap_us
        everything.next_us = (everything.next_us if everything.next_us > due_us else due_us) + everything.gap_us
        return True


class Governor:
    """The caps of one agent and what is taken of them now."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._flow = Flow(limits.rate)
        self._flows: dict[Place, Flow] = {}
        self._passages: list[Passage] = []

    def enter(self, targets: Sequence[Target]) -> Passage:
        """A round begins, with a stream to each of these targets."""
        places = [place_of(target) for target in targets]
        for place in places:
            self._flows.setdefault(place, Flow(self.limits.rate_per_target))
        passage = Passage(flow=self._flow, flows=[self._flows[place] for place in places], places=places)
        self._passages.append(passage)
        self._share()
        return passage

    def leave(self, passage: Passage) -> None:
        """The round is over; may be said twice."""
        if passage in self._passages:
            self._passages.remove(passage)
            self._share()

    def _share(self) -> None:
        """Divide the requests in flight anew among the rounds, and forget targets that no round has."""
        streams: dict[Place, int] = {}
        for passage in self._passages:
            for place in passage.places:
                streams[place] = streams.get(place, 0) + 1
        self._flows = {place: flow for place, flow in self._flows.items() if place in streams}
        for passage in self._passages:
            passage.room = max(1, self.limits.in_flight // len(self._passages))
            passage.room_to = [max(1, self.limits.in_flight_per_target // streams[place]) for place in passage.places]
