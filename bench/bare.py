"""The floor: the least a Python process needs to send and receive the same, with no record of anything.

Usage: python -m bench.bare KIND PORT CONNECTIONS RATE SECONDS   (KIND: keep, new, dns; RATE 0: as fast as it can)

Takes the same system calls in the same places as the agent (a timer, a send, a wait, a receive; `new` connects, too),
the same tick of 200 µs, nothing else: no TCP_INFO, no identity, no timeouts, no row. Prints CPU in µs a request.
"""

import ctypes
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable

from bench.servers import ADDRESSES, NAME

TICK_US = 200
# As the agent: what is due is sent in bursts of so many at most, replies are read in between.
BURST = 32
_REQUEST = (
    b"GET / HTTP/1.1\r\nhost: 127.0.1.1\r\nuser-agent: kpatrol\r\naccept: */*\r\n%s"
    b"traceparent: 00-%s-%s-01\r\nkpatrol-from: bench;1;0;1\r\n\r\n"
)
_KEEP = _REQUEST % (b"", b"a" * 32, b"b" * 16)
_CLOSE = _REQUEST % (b"connection: close\r\n", b"a" * 32, b"b" * 16)
_QUERY = (
    b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
    + b"".join(bytes([len(label)]) + label.encode() for label in NAME.split("."))
    + b"\x00\x00\x01\x00\x01"
)


class Kept:
    """Connected sockets: HTTP on TCP, one request under way on each as the agent has it, or DNS on UDP."""

    def __init__(self, poll: select.epoll, *, kind: str, port: int, connections: int) -> None:
        self._poll = poll
        self._udp = kind == "dns"
        self._places = [(address, port) for address in ADDRESSES[:connections]]
        self._by_descriptor: dict[int, socket.socket] = {}
        self._idle: deque[socket.socket] = deque()
        for _ in self._places:
            self._open()

    def _open(self) -> None:
        sock = socket.socket(type=socket.SOCK_DGRAM if self._udp else socket.SOCK_STREAM)
        sock.connect(self._places[len(self._by_descriptor) % len(self._places)])
        if not self._udp:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self._poll.register(sock.fileno(), select.EPOLLIN)
        self._by_descriptor[sock.fileno()] = sock
        self._idle.append(sock)

    def send(self) -> None:
        """One request."""
        if self._udp:
            self._idle.rotate()
            self._idle[0].send(_QUERY)
            return
        if not self._idle:
            self._open()
        self._idle.popleft().send(_KEEP)

    def ready(self, descriptor: int, _: int) -> bool:
        """Read a reply."""
        sock = self._by_descriptor[descriptor]
        sock.recv(65_536)
        if not self._udp:
            self._idle.append(sock)
        return True


class New:
    """A connection for each request."""

    def __init__(self, poll: select.epoll, *, port: int, connections: int) -> None:
        self._poll = poll
        self._places = [(address, port) for address in ADDRESSES[:connections]]
        self._turn = 0
        self._socks: dict[int, socket.socket] = {}

    def send(self) -> None:
        """One SYN."""
        self._turn = (self._turn + 1) % len(self._places)
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.connect_ex(self._places[self._turn])
        self._poll.register(sock.fileno(), select.EPOLLOUT)
        self._socks[sock.fileno()] = sock

    def ready(self, descriptor: int, events: int) -> bool:
        """Connected: send the request. Readable: read the reply and close."""
        sock = self._socks[descriptor]
        if events & select.EPOLLOUT:
            sock.send(_CLOSE)
            self._poll.modify(descriptor, select.EPOLLIN)
            return False
        sock.recv(65_536)
        del self._socks[descriptor]
        sock.close()
        return True


def paced(poll: select.epoll, traffic: Kept | New, *, rate: float, seconds: float) -> float:
    """CPU per request of an open loop at that rate, in µs."""
    libc = ctypes.CDLL(None)
    timer = libc.timerfd_create(1, os.O_NONBLOCK)
    poll.register(timer, select.EPOLLIN)
    gap_ns = int(max(TICK_US * 1000, 1e9 / rate))
    spec = (ctypes.c_long * 4)(*divmod(gap_ns, 10**9), *divmod(gap_ns, 10**9))
    total, sent, done = int(rate * seconds), 0, 0
    ready: Callable[[int, int], bool] = traffic.ready
    began_s, start_ns = time.process_time(), time.monotonic_ns()
    libc.timerfd_settime(timer, 0, ctypes.byref(spec), None)
    # A lost datagram is never answered.
    end_ns = start_ns + int((seconds + 1) * 1e9)
    while done < total and time.monotonic_ns() < end_ns:
        for descriptor, events in poll.poll(1):
            if descriptor == timer:
                os.read(timer, 8)
                due = min(total, sent + BURST, int((time.monotonic_ns() - start_ns) * rate / 1e9) + 1)
                while sent < due:
                    traffic.send()
                    sent += 1
            else:
                done += ready(descriptor, events)
    os.close(timer)
    return (time.process_time() - began_s) / max(1, done) * 1e6


def closed(poll: select.epoll, traffic: Kept | New, *, under_way: int, seconds: float) -> float:
    """CPU per request with so many under way at all times, in µs."""
    done, end_s, began_s = 0, time.monotonic() + seconds, time.process_time()
    for _ in range(under_way):
        traffic.send()
    while time.monotonic() < end_s:
        for descriptor, events in poll.poll(1):
            if traffic.ready(descriptor, events):
                done += 1
                traffic.send()
    return (time.process_time() - began_s) / max(1, done) * 1e6


def main() -> None:
    """Measure and print."""
    kind, port, connections, rate, seconds = sys.argv[1], *(float(text) for text in sys.argv[2:6])
    with select.epoll() as poll:
        traffic: Kept | New
        if kind == "new":
            traffic = New(poll, port=int(port), connections=int(connections))
        else:
            traffic = Kept(poll, kind=kind, port=int(port), connections=int(connections))
        if rate:
            used_us = paced(poll, traffic, rate=rate, seconds=seconds)
        else:
            used_us = closed(poll, traffic, under_way=int(connections), seconds=seconds)
    print(f"{used_us:.2f}")


if __name__ == "__main__":
    main()
