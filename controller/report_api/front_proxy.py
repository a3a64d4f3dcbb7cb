"""Who asks, by the aggregation layer's word: its client certificate, then the headers that it sets. Pure.

The rules stand in the ConfigMap kube-system/extension-apiserver-authentication, which kube-apiserver keeps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from controller.report_api.refusals import unauthorized

_CA = "requestheader-client-ca-file"


class NoFrontProxy(Exception):
    """The ConfigMap does not say whose certificate to trust."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontProxy:
    """Whom to believe: the authority, the names that its certificates may carry (none: any), and which headers."""

    ca_pem: str
    allowed_names: frozenset[str] = frozenset()
    user_headers: Sequence[str] = ("X-Remote-User",)
    uid_headers: Sequence[str] = ("X-Remote-Uid",)
    group_headers: Sequence[str] = ("X-Remote-Group",)
    extra_prefixes: Sequence[str] = ("X-Remote-Extra-",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks."""

    user: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def key(self) -> tuple[Any, ...]:
        """What tells two callers apart."""
        return (self.user, self.uid, self.groups, tuple(sorted(self.extra.items())))


def front_proxy(data: Mapping[str, str]) -> FrontProxy:
    """Reads the ConfigMap. Raises NoFrontProxy."""
    ca_pem = data.get(_CA, "")
    if not ca_pem.strip():
        raise NoFrontProxy(
            f"ConfigMap kube-system/extension-apiserver-authentication: {_CA} is empty, expected the authority of the "
            "aggregation layer; start kube-apiserver with --requestheader-client-ca-file"
        )
    usual = FrontProxy(ca_pem=ca_pem)
    return FrontProxy(
        ca_pem=ca_pem,
        allowed_names=frozenset(_names(data, "requestheader-allowed-names", ())),
        user_headers=_names(data, "requestheader-username-headers", usual.user_headers),
        uid_headers=_names(data, "requestheader-uid-headers", usual.uid_headers),
        group_headers=_names(data, "requestheader-group-headers", usual.group_headers),
        extra_prefixes=_names(data, "requestheader-extra-headers-prefix", usual.extra_prefixes),
    )


def _names(data: Mapping[str, str], key: str, usual: Sequence[str]) -> Sequence[str]:
    text = data.get(key, "")
    if not text:
        return usual
    try:
        names = json.loads(text)
    except ValueError as error:
        raise NoFrontProxy(f"ConfigMap extension-apiserver-authentication: {key}: found {text!r}") from error
    return tuple(str(name) for name in names) or usual


def caller(*, certificate: Mapping[str, Any] | None, headers: Sequence[tuple[str, str]], rules: FrontProxy) -> Caller:
    """Who asks. ``certificate`` is the verified client certificate as Python's ssl gives it. Raises Refusal (401)."""
    if not certificate:
        raise unauthorized("no client certificate of the aggregation layer")
    name = common_name(certificate)
    if rules.allowed_names and name not in rules.allowed_names:
        raise unauthorized(f"the client certificate's name {name!r} is not the aggregation layer's")
    user = _first(headers, rules.user_headers)
    if not user:
        raise unauthorized(f"the aggregation layer named no user ({', '.join(rules.user_headers)})")
    groups = tuple(value for wanted in rules.group_headers for key, value in headers if key.lower() == wanted.lower())
    return Caller(
        user=user, uid=_first(headers, rules.uid_headers), groups=groups, extra=_extra(headers, rules.extra_prefixes)
    )


def common_name(certificate: Mapping[str, Any]) -> str:
    """The certificate's common name."""
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return ""


def _first(headers: Sequence[tuple[str, str]], wanted: Sequence[str]) -> str:
    for name in wanted:
        for key, value in headers:
            if key.lower() == name.lower() and value:
                return value
    return ""


def _extra(headers: Sequence[tuple[str, str]], prefixes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for key, value in headers:
        for prefix in prefixes:
            if key.lower().startswith(prefix.lower()):
                found.setdefault(unquote(key[len(prefix) :]).lower(), []).append(value)
    return {key: tuple(values) for key, values in found.items()}
