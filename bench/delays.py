"""A server that answers each request after a known time, and afterwards says how long it really held each back.

Usage: python -m bench.delays DELAY_US

Prints its port, serves HTTP/1.1 on one connection after another until stdin ends, then prints a JSON object: request
number (from `kpatrol-from`, else in order) → µs from reading the request to sending the answer. It sleeps in the
kernel with a timer slack of 1 µs and one request at a time, so that what it says is what it did.
"""

import ctypes
import json
import re
import select
import socket
import sys
import threading
import time

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n"
_NUMBER = re.compile(rb"kpatrol-from: [^;]*;[^;]*;[^;]*;(\d+)")
_SET_TIMERSLACK = 29


def talk(sock: socket.socket, delay_us: int, held: dict[int, int]) -> None:
    """Answer one connection to its end."""
    ctypes.CDLL(None).prctl(_SET_TIMERSLACK, 1000, 0, 0, 0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with sock:
        while True:
            try:
                request = sock.recv(65_536)
                came_ns = time.monotonic_ns()
                if not request:
                    return
                left_s = delay_us / 1e6 - (time.monotonic_ns() - came_ns) / 1e9
                if left_s > 0:
                    time.sleep(left_s)
                went_ns = time.monotonic_ns()
                sock.sendall(ANSWER)
            except OSError:
                return
            match = _NUMBER.search(request)
            held[int(match[1]) if match else -1 - len(held)] = (went_ns - came_ns) // 1000


def main() -> None:
    """Serve until stdin ends."""
    delay_us = int(sys.argv[1])
    held: dict[int, int] = {}
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            ready, _, _ = select.select([server, sys.stdin], [], [])
            if sys.stdin in ready:
                break
            sock, _ = server.accept()
            threading.Thread(target=talk, args=(sock, delay_us, held), daemon=True).start()
    print(json.dumps(held), flush=True)


if __name__ == "__main__":
    main()
