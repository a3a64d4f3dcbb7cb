"""What may go wrong between the controller and the API server."""

from __future__ import annotations


class Unreachable(Exception):
    """The API server did not answer, or refused; ``status`` is 0 where there was no answer."""

    def __init__(self, what: str, *, status: int = 0) -> None:
        self.status = status
        super().__init__(what)


class LostLeadership(Exception):
    """Another controller may act now: this process ends and begins anew."""
