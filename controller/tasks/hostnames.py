"""Syntax of names, addresses and URLs: RE2 expressions that Python and the API server read alike, and predicates."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_LABELS = rf"{_LABEL}(\.{_LABEL})*\.?"
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"({_OCTET}\.){{3}}{_OCTET}"
_H16 = "[0-9A-Fa-f]{1,4}"
_LS32 = f"({_H16}:{_H16}|{_IPV4})"
# RFC 3986, IPv6address: what stands before the "::", how many groups after it.
_IPV6_FORMS = (
    f"({_H16}:){{6}}{_LS32}",
    f"::({_H16}:){{5}}{_LS32}",
    f"({_H16})?::({_H16}:){{4}}{_LS32}",
    *(f"(({_H16}:){{0,{n}}}{_H16})?::({_H16}:){{{3 - n}}}{_LS32}" for n in (1, 2)),
    f"(({_H16}:){{0,3}}{_H16})?::{_H16}:{_LS32}",
    f"(({_H16}:){{0,4}}{_H16})?::{_LS32}",
    f"(({_H16}:){{0,5}}{_H16})?::{_H16}",
    f"(({_H16}:){{0,6}}{_H16})?::",
)
_PORT = "0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_SCHEME = "([Hh][Tt][Tt][Pp][Ss]?://)?"
_REST = r"([/?#][^\s\x00-\x1f\x7f]*)?"

DNS1123_LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
# Of an object's name only the whole is limited, not each label.
DNS1123_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
OBJECT_NAME_OR_NONE = rf"^({DNS1123_SUBDOMAIN[1:-1]})?$"
NAMESPACE_OR_NONE = f"^({DNS1123_LABEL})?$"
DOMAIN = f"^{_LABELS}$"
# Two expressions each, because RE2 looks neither ahead nor back: the form, and that a numeric last label is an IPv4
# address.
HOST = (
    rf"^({'|'.join(_IPV6_FORMS)}|{_LABELS})$",
    rf"^(.*:.*|{_IPV4}|(.*\.)?[^.]*[^0-9.][^.]*\.?)$",
)
URL = (
    rf"^{_SCHEME}(\[({'|'.join(_IPV6_FORMS)})\]|{_LABELS})(:{_PORT})?{_REST}$",
    rf"^{_SCHEME}(\[[^\]]*\]|{_IPV4}|([^/?#:]*\.)?[^/?#:.]*[^/?#:.0-9][^/?#:.]*\.?)(:[0-9]+)?{_REST}$",
)
_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def matches(*patterns: str) -> Callable[[str], bool]:
    """The predicate that a text matches every one of the expressions, as the API server would find."""
    compiled = tuple(re.compile(pattern, re.ASCII) for pattern in patterns)
    return lambda text: all(pattern.fullmatch(text) is not None for pattern in compiled)


_is_object_name = matches(DNS1123_SUBDOMAIN)
_is_namespace = matches(f"^{DNS1123_LABEL}$")
_is_domain = matches(DOMAIN)
_is_host = matches(*HOST)
_is_url = matches(*URL)


def is_object_name(text: str) -> bool:
    """A Kubernetes object name: DNS-1123 subdomain of at most 253 characters."""
    return len(text) <= 253 and _is_object_name(text)


def is_namespace(text: str) -> bool:
    """A namespace or Service name: DNS-1123 label."""
    return _is_namespace(text)


def is_ip(text: str) -> bool:
    """An IPv4 or IPv6 address without brackets, prefix or zone."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def is_domain(text: str) -> bool:
    """A name one can ask a DNS server for: labels of letters, digits, hyphens, underscores; a final dot is allowed."""
    return len(text) <= 253 and _is_domain(text)


def is_host(text: str) -> bool:
    """An IP address, or a domain name that is not a mistyped IPv4 address."""
    return len(text) <= 253 and _is_host(text)


def full_url(host: str) -> str:
    """The URL that a task's ``host`` stands for: ``http://`` is put before a text that begins with no scheme."""
    return host if _HAS_SCHEME.match(host) else f"http://{host}"


def is_url(host: str) -> bool:
    """A URL a round can be run against: http or https, a host, perhaps a port; no user, no password."""
    return _is_url(host)
