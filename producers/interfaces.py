"""Every interface of our network namespace with its addresses in CIDR form, asked of the kernel over rtnetlink."""

import ipaddress
import socket
import struct

from producers.netlink import attributes, dump

_RTM_NEWADDR = 20
_RTM_GETADDR = 22
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
# struct ifaddrmsg: family, prefix length, flags, scope, index.
_ADDRESS = struct.Struct("=BBBBI")
_BYTES = {socket.AF_INET: 4, socket.AF_INET6: 16}


def address(body: bytes) -> tuple[int, str] | None:
    """(interface index, CIDR) of one message about an address; None where it holds none of IPv4 or IPv6."""
    if len(body) < _ADDRESS.size:
        return None
    family, prefix, _, _, index = _ADDRESS.unpack_from(body)
    values = attributes(body, after=_ADDRESS.size)
    # On a point-to-point link IFA_ADDRESS is the peer, IFA_LOCAL ourselves.
    raw = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
    if raw is None or len(raw) != _BYTES.get(family) or prefix > 8 * len(raw):
        return None
    return index, f"{ipaddress.ip_address(raw)}/{prefix}"


def interfaces() -> dict[str, tuple[str, ...]]:
    """Addresses by interface name, interfaces without an address included; empty where the kernel does not tell."""
    try:
        names = dict(socket.if_nameindex())
        found = _all_addresses()
    except OSError:
        return {}
    return {name: tuple(cidr for i, cidr in found if i == index) for index, name in names.items()}


def _all_addresses() -> list[tuple[int, str]]:
    asked = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    told = (address(body) for body in dump(ask=_RTM_GETADDR, told=_RTM_NEWADDR, body=asked))
    return [found for found in told if found]
