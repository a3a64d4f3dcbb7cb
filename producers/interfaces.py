"""Every interface of our network namespace with its addresses in CIDR form, asked of the kernel over rtnetlink.

The wire format is a pure function over bytes; one socket is opened for the question and closed.
"""

import ipaddress
import socket
import struct

_RTM_NEWADDR = 20
_RTM_GETADDR = 22
_NLMSG_DONE = 3
_NLMSG_ERROR = 2
_REQUEST_DUMP = 0x301
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_HEADER = struct.Struct("=IHHII")
_ADDRESS = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")


def addresses(reply: bytes) -> tuple[list[tuple[int, str]], bool]:
    """((interface index, CIDR) of each address in a reply, whether the dump is over)."""
    found: list[tuple[int, str]] = []
    offset = 0
    while offset + _HEADER.size <= len(reply):
        length, kind, _, _, _ = _HEADER.unpack_from(reply, offset)
        if kind in (_NLMSG_DONE, _NLMSG_ERROR) or length < _HEADER.size:
            return found, True
        if kind == _RTM_NEWADDR:
            found += _address(reply[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3
    return found, False


def _address(body: bytes) -> list[tuple[int, str]]:
    family, prefix, _, _, index = _ADDRESS.unpack_from(body)
    values: dict[int, bytes] = {}
    offset = _ADDRESS.size
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            break
        values[kind] = body[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    # On a point-to-point link IFA_ADDRESS is the peer, IFA_LOCAL ourselves.
    raw = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
    if family not in (socket.AF_INET, socket.AF_INET6) or raw is None:
        return []
    return [(index, f"{ipaddress.ip_address(raw)}/{prefix}")]


def interfaces() -> dict[str, tuple[str, ...]]:
    """Addresses by interface name, interfaces without an address included; empty where the kernel does not tell."""
    try:
        names = dict(socket.if_nameindex())
        found = _dump()
    except OSError:
        return {}
    return {name: tuple(cidr for i, cidr in found if i == index) for index, name in names.items()}


def _dump() -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(1.0)
        body = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        netlink.send(_HEADER.pack(_HEADER.size + len(body), _RTM_GETADDR, _REQUEST_DUMP, 1, 0) + body)
        over = False
        while not over:
            part, over = addresses(netlink.recv(1 << 16))
            found += part
    return found
