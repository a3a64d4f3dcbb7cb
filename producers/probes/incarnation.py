"""Which start of the target's agent answers: what the first answer of a round says holds for the round.

An agent that was started again is another target than the one that the round began with: its answers are
`target_gone`, neither a success nor a loss.
"""

AGENT_REPLACED = "agent_replaced"


class Incarnation:
    """The incarnation that answered first, of one target."""

    __slots__ = ("_first",)

    def __init__(self) -> None:
        self._first: bytes | int = 0

    def replaced(self, incarnation: bytes | int) -> bool:
        """Whether another one than the first answers now; an empty one is not remembered."""
        if not self._first:
            self._first = incarnation
        return incarnation != self._first
