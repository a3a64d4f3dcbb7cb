"""Syntax of names, addresses and URLs, as pure predicates."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_DNS1123_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
DNS1123_SUBDOMAIN = rf"^{_DNS1123_LABEL}(\.{_DNS1123_LABEL})*$"
_SUBDOMAIN = re.compile(DNS1123_SUBDOMAIN)
_LABEL_1123 = re.compile(rf"^{_DNS1123_LABEL}$")
_SPACE_OR_CONTROL = re.compile(r"[\s\x00-\x1f\x7f]")


def is_object_name(text: str) -> bool:
    """A Kubernetes object name: DNS-1123 subdomain of at most 253 characters."""
    return len(text) <= 253 and _SUBDOMAIN.fullmatch(text) is not None


def is_namespace(text: str) -> bool:
    """A namespace or Service name: DNS-1123 label."""
    return _LABEL_1123.fullmatch(text) is not None


def is_ip(text: str) -> bool:
    """An IPv4 or IPv6 address without brackets, prefix or zone."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def is_domain(text: str) -> bool:
    """A name one can ask a DNS server for: labels of letters, digits, hyphens, underscores; a final dot is allowed."""
    name = text.removesuffix(".")
    return 0 < len(name) <= 253 and all(_LABEL.fullmatch(label) for label in name.split("."))


def is_host(text: str) -> bool:
    """An IP address, or a domain name that is not a mistyped IPv4 address."""
    if is_ip(text):
        return True
    return is_domain(text) and not text.removesuffix(".").rpartition(".")[2].isdigit()


def full_url(host: str) -> str:
    """The URL that a task's ``host`` stands for: ``http://`` is put before a text that names no scheme."""
    return host if "://" in host else f"http://{host}"


def is_url(host: str) -> bool:
    """A URL a round can be run against: http or https, a host, perhaps a port; no user, no password."""
    if _SPACE_OR_CONTROL.search(host):
        return False
    try:
        parts = urlsplit(full_url(host))
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or port == 0 or parts.netloc.endswith(":"):
        return False
    name = parts.hostname or ""
    bracketed = "[" in parts.netloc
    return is_ip(name) and ":" in name if bracketed else is_host(name) and ":" not in name
