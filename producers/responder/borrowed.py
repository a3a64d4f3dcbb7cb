"""A socket object on a descriptor that belongs to somebody else: the event loop's transport."""

import os
import socket


class BorrowedSocket(socket.socket):
    """Never closes the descriptor, not even when it is forgotten: by then its number may be another connection's."""

    @classmethod
    def of(cls, shared: socket.socket) -> "BorrowedSocket":
        """A second object for the descriptor of `shared`, for the calls that the loop's own does not offer."""
        return cls(shared.family, socket.SOCK_STREAM, fileno=shared.fileno())

    def give_back(self) -> None:
        """Forget the descriptor; may be called again."""
        if self.fileno() >= 0:
            self.detach()

    def __del__(self) -> None:
        self.give_back()


class CopiedSocket(socket.socket):
    """A descriptor of its own for somebody else's socket: it can be read when the other's is closed already.

    The connection ends with the last descriptor, so whoever has this one gives it back soon.
    """

    @classmethod
    def of(cls, shared: socket.socket) -> "CopiedSocket":
        """A copy of `shared`'s descriptor. Raises OSError where there is none left."""
        return cls(shared.family, socket.SOCK_STREAM, fileno=os.dup(shared.fileno()))

    def give_back(self) -> None:
        """Close it; may be called again."""
        self.close()
