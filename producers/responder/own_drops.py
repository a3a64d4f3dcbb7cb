"""Probes that the responder drops by itself, so that a fault can be shown where no packet can be dropped on a wire.

Said at the start and at the end, with counts: nobody shall take this for the network's doing. Off unless asked for.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FORM = "SHARE or 1/N, each with @AGENT when only one peer is meant, separated by commas: 0.2 or 1/50@node-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """One fault: a random `share` (0 to 1), or every `every`-th when that is not 0; of `source`'s probes, '' = all."""

    share: float = 0.0
    every: int = 0
    source: str = ""


def parse(text: str) -> tuple[Drop, ...]:
    """The drops that KPATROL_DROP_UDP asks for. Raises ValueError, naming the word and what is allowed."""
    return tuple(_parse(word.strip()) for word in text.split(",") if word.strip())


def _parse(word: str) -> Drop:
    amount, _, source = word.partition("@")
    try:
        if amount.startswith("1/"):
            drop = Drop(every=int(amount[2:]), source=source)
            valid = drop.every >= 1
        else:
            drop = Drop(share=float(amount), source=source)
            valid = 0 < drop.share <= 1
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"found {word!r}, allowed: {FORM}")
    return drop


class OwnDrops:
    """Decides probe by probe, and counts. `draw` gives numbers from 0 up to 1."""

    def __init__(self, drops: Sequence[Drop], *, draw: Callable[[], float] = random.random) -> None:
        self._drops = tuple(drops)
        self._draw = draw
        self._met = [0] * len(self._drops)
        self.examined = 0
        self.dropped = 0

    def takes(self, agent: str) -> bool:
        """Whether this probe of `agent` is dropped."""
        concerned = False
        for number, drop in enumerate(self._drops):
            if drop.source not in ("", agent):
                continue
            concerned = True
            self._met[number] += 1
            if self._met[number] % drop.every == 0 if drop.every else self._draw() < drop.share:
                self.examined += 1
                self.dropped += 1
                return True
        self.examined += concerned
        return False
