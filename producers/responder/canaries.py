"""Datagrams that the reflector ignores because a round asks for it: a canary, to see that its loss is reported.

Only those of the round and of the agent that the round names; which of them follows from their numbers, so it can be
told afterwards. What was ignored has not come: it is in no receipt, as if it had been lost on the way.
"""

import hashlib

from topics.task_rounds import RoundScheduled

_DRAWS = 1 << 64


class Canaries:
    """The canaries of the rounds under way in which `agent` is the one to ignore something."""

    def __init__(self, *, agent: str) -> None:
        self._agent = agent
        # Round id to (asker, its share, deadline in microseconds since the epoch).
        self._known: dict[int, tuple[str, float, int]] = {}
        self.ignored = 0

    def heard(self, round_: RoundScheduled, *, now_us: int) -> None:
        """Take note of a round; those past their deadline are forgotten."""
        self._known = {key: known for key, known in self._known.items() if known[2] > now_us}
        canary = round_.canary
        if canary is not None and canary.dst == self._agent:
            self._known[round_.round_id] = (canary.src, canary.share, round_.deadline_us)

    def takes(self, *, round_id: int, agent: str, seq: int) -> bool:
        """Whether this datagram is ignored."""
        known = self._known.get(round_id)
        if known is None or known[0] != agent or not ignored(round_id=round_id, seq=seq, share=known[1]):
            return False
        self.ignored += 1
        return True


def ignored(*, round_id: int, seq: int, share: float) -> bool:
    """Whether a canary of `share` (0 to 1) ignores request `seq` of its asker in a round."""
    digest = hashlib.blake2b(b"%d/%d" % (round_id, seq), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * _DRAWS
