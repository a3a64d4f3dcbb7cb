"""The memberships our group's rounds refer to, within a bounded amount of memory, and waiting for one to arrive."""

import asyncio

from topics.mesh_members import Member, MembersChunk, Memberships
from topics.task_rounds import MembersRef

MOST_MEMBERS = 10_000
FEWEST_EPOCHS = 2


class KnownMembers:
    """The newest epochs of one group: as many as hold `MOST_MEMBERS` members together, at least two.

    A round names the epoch that was newest when it was scheduled, so older ones are not asked for again.
    """

    def __init__(self, *, group: str, most_members: int = MOST_MEMBERS) -> None:
        self._group = group
        self._most_members = most_members
        self._epochs: dict[int, Memberships] = {}
        self._sizes: dict[int, int] = {}
        self._changed = asyncio.Event()

    def add(self, chunk: MembersChunk) -> None:
        """Take one chunk; chunks of other groups and of epochs long past are passed over."""
        if chunk.group != self._group:
            return
        memberships = self._epochs.setdefault(chunk.epoch, Memberships())
        if memberships.add(chunk):
            members = memberships.get(group=chunk.group, epoch=chunk.epoch, digest=chunk.digest)
            self._sizes[chunk.epoch] = len(members or ())
            self._prune()
            self._changed.set()

    def get(self, ref: MembersRef) -> tuple[Member, ...] | None:
        """The members of that epoch; None while it has not arrived whole with that digest."""
        memberships = self._epochs.get(ref.epoch)
        return memberships.get(group=ref.group, epoch=ref.epoch, digest=ref.digest) if memberships else None

    async def wait(self, ref: MembersRef) -> tuple[Member, ...]:
        """The members of that epoch, once they have arrived."""
        while (members := self.get(ref)) is None:
            self._changed.clear()
            await self._changed.wait()
        return members

    def _prune(self) -> None:
        kept = 0
        for position, epoch in enumerate(sorted(self._epochs, reverse=True)):
            kept += self._sizes.get(epoch, 0)
            if position >= FEWEST_EPOCHS and kept > self._most_members:
                del self._epochs[epoch]
                self._sizes.pop(epoch, None)
