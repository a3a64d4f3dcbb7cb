# ruff: noqa: RUF009 - the calls describe fields, as dataclasses.field does
"""AppHttpHealthy: every agent asks one URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from controller.tasks.hostnames import NAMESPACE_OR_NONE, OBJECT_NAME_OR_NONE, URL, full_url, is_url, matches
from controller.tasks.schema import Rule, Scalar, Syntax, boolean, list_of, nested, string
from controller.tasks.shared import (
    REQUEST_ABSENT,
    AgentSpec,
    Expect,
    Metadata,
    Request,
    Schedule,
    round_budget_rules,
)

METHODS = ("GET", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "PATCH", "HEAD")
# RFC 9110, field-name = token.
_HEADER_ITEM = r"^[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*:[^\r\n\x00]*$"
_OBJECT_NAME = Syntax(
    allowed="name of a Kubernetes object", holds=matches(OBJECT_NAME_OR_NONE), patterns=(OBJECT_NAME_OR_NONE,)
)
_NAMESPACE = Syntax(
    allowed="name of a namespace", holds=matches(NAMESPACE_OR_NONE), patterns=(NAMESPACE_OR_NONE,), max_length=63
)


def split_header(item: str) -> tuple[str, str]:
    """Name and value of a header item: split at the first colon, so a value may hold further ones."""
    name, _, value = item.partition(":")
    return name.strip(), value.strip()


_HEADER = Scalar(
    type="string",
    syntax=Syntax(allowed='"Name: value"', holds=matches(_HEADER_ITEM), patterns=(_HEADER_ITEM,), max_length=8192),
)
_URL = Syntax(
    allowed="http(s)://host[:port][/path], the host a name, an IPv4 address or an IPv6 address in brackets, "
    "no user or password",
    holds=is_url,
    patterns=URL,
    max_length=2048,
)


def _needs_namespace(*, name: str, namespace: str, attribute: str) -> Rule:
    return Rule(
        field=namespace,
        cel=f"!has(self.{name}) || self.{name} == '' || (has(self.{namespace}) && self.{namespace} != '')",
        holds=lambda t: not getattr(t, f"{attribute}_name") or bool(getattr(t, f"{attribute}_namespace")),
        found=lambda t: f'nothing beside {name} "{getattr(t, f"{attribute}_name")}"',
        allowed="name of a namespace",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpTarget:
    """The request that is made."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        _needs_namespace(name="bodyConfigmapName", namespace="bodyConfigmapNamespace", attribute="body_configmap"),
        _needs_namespace(name="tlsSecretName", namespace="tlsSecretNamespace", attribute="tls_secret"),
    )

    host: str = string("host", "URL.", required=True, syntax=_URL)
    method: str = string("method", "HTTP method.", required=True, enum=METHODS)
    http2: bool = boolean("http2", "HTTP/2, on https only.", default=False)
    new_connection: bool = boolean(
        "newConnection", "Our own: a connection of its own for each request, instead of kept ones.", default=False
    )
    header: tuple[str, ...] = list_of("header", "Items of the form Name: value.", _HEADER, max_items=100)
    body_configmap_name: str | None = string("bodyConfigmapName", "ConfigMap of the body.", syntax=_OBJECT_NAME)
    body_configmap_namespace: str | None = string("bodyConfigmapNamespace", "Its namespace.", syntax=_NAMESPACE)
    tls_secret_name: str | None = string("tlsSecretName", "Secret with ca.crt, tls.crt, tls.key.", syntax=_OBJECT_NAME)
    tls_secret_namespace: str | None = string("tlsSecretNamespace", "Its namespace.", syntax=_NAMESPACE)
    latency_metric: bool = boolean("enableLatencyMetric", "Accepted; quantiles are always kept.", default=False)

    @property
    def url(self) -> str:
        """The URL with its scheme."""
        return full_url(self.host)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppHttpHealthySpec:
    """What an AppHttpHealthy asks for."""

    RULES: ClassVar[tuple[Rule, ...]] = round_budget_rules()

    target: HttpTarget = nested("target", "To where.", HttpTarget, absent=None, required=True)
    agent_spec: AgentSpec | None = nested("agentSpec", "Agents of its own.", AgentSpec, absent=None)
    schedule: Schedule = nested("schedule", "When.", Schedule, absent={})
    request: Request = nested("request", "How much.", Request, absent=REQUEST_ABSENT)
    expect: Expect = nested("expect", "What is good.", Expect, absent={})


@dataclass(frozen=True, slots=True, kw_only=True)
class AppHttpHealthy:
    """An AppHttpHealthy object."""

    API_VERSION: ClassVar[str] = "kdoctor.io/v1beta1"
    KIND: ClassVar[str] = "AppHttpHealthy"
    PLURAL: ClassVar[str] = "apphttphealthies"
    RULES: ClassVar[tuple[Rule, ...]] = ()

    metadata: Metadata = nested("metadata", "Name and labels.", Metadata, absent=None, required=True)
    spec: AppHttpHealthySpec = nested("spec", "The task.", AppHttpHealthySpec, absent=None, required=True)
