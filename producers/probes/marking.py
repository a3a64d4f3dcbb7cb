"""How a probe's packets look from outside, as socket options: traffic class, never fragmented, source address.

Options that Python's socket module does not name are Linux's numbers (linux/in.h, linux/in6.h).
"""

import socket

_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _IPV6_DONTFRAG = 10, 23, 62
_IP_MTU, _IPV6_MTU = 14, 24
# Sets "don't fragment" and does not believe a path MTU that was learned: every packet is really sent.
_PROBE = 3
_IP_RECVERR, _IPV6_RECVERR = 11, 25
# What an IPv4 or IPv6 header and the eight bytes of a UDP or echo header take of the MTU.
_OVERHEAD_BYTES = {socket.AF_INET: 28, socket.AF_INET6: 48}


def set_dscp(sock: socket.socket, dscp: int) -> None:
    """Mark what the socket sends with a differentiated services code point, 0 to 63. Raises OSError."""
    if not dscp:
        return
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)


def never_fragment(sock: socket.socket) -> None:
    """What does not fit into a packet is refused here (EMSGSIZE) or lost on the way, never cut. Raises OSError."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PROBE)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PROBE)


def keep_errors(sock: socket.socket) -> None:
    """Have the kernel keep every ICMP error with the packet it is about (see net_errors). Raises OSError."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)


def full_payload_bytes(*, address: str, source_address: str) -> int:
    """The largest UDP or ICMP echo payload that this machine takes for sendable to an address: of the interface's MTU,
    or less where the route or a learned path says so. Raises OSError when there is no route."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if source_address and (":" in source_address) == (family == socket.AF_INET6):
            sock.bind((source_address, 0))
        sock.connect((address, 9))
        if family == socket.AF_INET6:
            mtu = sock.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
        else:
            mtu = sock.getsockopt(socket.IPPROTO_IP, _IP_MTU)
    return min(65_507, mtu - _OVERHEAD_BYTES[family])
