"""A socket object on a descriptor that belongs to somebody else: the event loop's transport."""

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
