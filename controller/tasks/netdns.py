# ruff: noqa: RUF009 - the calls describe fields, as dataclasses.field does
"""Netdns: every agent asks DNS servers for one name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from controller.tasks.hostnames import DOMAIN, HOST, NAMESPACE_OR_NONE, is_domain, is_host, matches
from controller.tasks.schema import Opaque, Rule, Syntax, boolean, integer, list_of, map_of_strings, nested, string
from controller.tasks.shared import (
    REQUEST_ABSENT,
    AgentSpec,
    Expect,
    Metadata,
    Request,
    Schedule,
    round_budget_rules,
)

DNS_PORT = 53
RCODES = {"NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5}
_DOMAIN = Syntax(
    allowed="domain name, labels of up to 63 letters, digits, hyphens or underscores",
    holds=is_domain,
    patterns=(DOMAIN,),
)
_SERVER = Syntax(allowed="IPv4 or IPv6 address, or a host name, without port", holds=is_host, patterns=HOST)
_LABEL = Syntax(
    allowed="name of a Service or namespace",
    holds=matches(NAMESPACE_OR_NONE),
    patterns=(NAMESPACE_OR_NONE,),
    max_length=63,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetUser:
    """One server, by address."""

    RULES: ClassVar[tuple[Rule, ...]] = ()

    server: str = string("server", "Address of the DNS server.", required=True, syntax=_SERVER)
    port: int = integer("port", "Its port.", default=DNS_PORT, minimum=1, maximum=65535)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDns:
    """DNS Services of the cluster: the named one, or those labelled as the cluster's DNS."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="serviceNamespace",
            cel="!has(self.serviceName) || self.serviceName == '' || "
            "(has(self.serviceNamespace) && self.serviceNamespace != '')",
            holds=lambda t: not t.service_name or bool(t.service_namespace),
            found=lambda t: f'nothing beside serviceName "{t.service_name}"',
            allowed="name of a namespace",
        ),
        Rule(
            field="",
            cel="self.testIPv4 || self.testIPv6",
            holds=lambda t: t.test_ipv4 or t.test_ipv6,
            found=lambda _: "testIPv4 and testIPv6 both false",
            allowed="at least one of testIPv4, testIPv6 true",
        ),
    )

    service_name: str | None = string("serviceName", "DNS Service.", syntax=_LABEL)
    service_namespace: str | None = string("serviceNamespace", "Its namespace.", syntax=_LABEL)
    test_ipv4: bool = boolean("testIPv4", "Ask its IPv4 addresses, for A.", default=True)
    test_ipv6: bool = boolean("testIPv6", "Ask its IPv6 addresses, for AAAA.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsTarget:
    """Which servers are asked: targetUser, targetDns, or neither (= the cluster's DNS)."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="",
            cel="!(has(self.targetUser) && has(self.targetDns))",
            holds=lambda target: target.user is None or target.dns is None,
            found=lambda _: "both targetUser and targetDns",
            allowed="one of the two",
        ),
    )

    user: TargetUser | None = nested("targetUser", "One server.", TargetUser, absent=None)
    dns: TargetDns | None = nested("targetDns", "The cluster's DNS.", TargetDns, absent=None)
    latency_metric: bool = boolean("enableLatencyMetric", "Accepted; quantiles are always kept.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsRequest(Request):
    """The load of one agent on one server."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="race",
            cel="self.race == false || (self.protocol == 'udp' && self.attempts == 1 && self.tcpFallback == false)",
            holds=lambda r: not r.race or (r.protocol == "udp" and r.attempts == 1 and not r.tcp_fallback),
            found=lambda r: f"true with protocol {r.protocol}, attempts {r.attempts}, tcpFallback {r.tcp_fallback}",
            allowed="true only with protocol udp, one attempt and no tcpFallback",
        ),
        Rule(
            field="attempts",
            cel="self.protocol == 'udp' || (self.attempts == 1 && self.tcpFallback == false)",
            holds=lambda r: r.protocol == "udp" or (r.attempts == 1 and not r.tcp_fallback),
            found=lambda r: f"{r.attempts} with protocol {r.protocol}, tcpFallback {r.tcp_fallback}",
            allowed="1, and no tcpFallback, unless the protocol is udp",
        ),
    )

    domain: str = string("domain", "Name asked for.", default="kubernetes.default.svc.cluster.local", syntax=_DOMAIN)
    protocol: str = string("protocol", "How it is asked.", default="udp", enum=("udp", "tcp", "tcp-tls"))
    attempts: int = integer(
        "attempts", "Our own: how often a query is sent in all until it is answered.", default=1, minimum=1, maximum=5
    )
    tcp_fallback: bool = boolean(
        "tcpFallback", "Our own: what comes truncated is asked for once more over TCP.", default=False
    )
    race: bool = boolean(
        "race", "Our own: A and AAAA at the same moment from one new port, as resolver libraries do.", default=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsExpect(Expect):
    """What makes a round a success."""

    RULES: ClassVar[tuple[Rule, ...]] = ()

    rcode: str | None = string(
        "rcode", "Our own: the response code that a good reply has. Left out: any, as in kdoctor.", enum=tuple(RCODES)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSelector:
    """Labels to select by."""

    RULES: ClassVar[tuple[Rule, ...]] = ()

    match_labels: Mapping[str, str] = map_of_strings("matchLabels", "Labels that must be equal.")
    match_expressions: tuple[Mapping[str, Any], ...] = list_of(
        "matchExpressions", "Conditions on labels.", Opaque(keys=("key", "operator", "values"))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NetdnsSpec:
    """What a Netdns asks for."""

    RULES: ClassVar[tuple[Rule, ...]] = round_budget_rules()

    agent_spec: AgentSpec | None = nested("agentSpec", "Agents of its own.", AgentSpec, absent=None)
    source_agent_node_selector: LabelSelector | None = nested(
        "sourceAgentNodeSelector", "Accepted and not read, as in kdoctor.", LabelSelector, absent=None
    )
    schedule: Schedule = nested("schedule", "When.", Schedule, absent={})
    request: DnsRequest = nested("request", "How much, and of what.", DnsRequest, absent=REQUEST_ABSENT)
    target: DnsTarget = nested("target", "To where.", DnsTarget, absent={})
    expect: DnsExpect = nested("expect", "What is good.", DnsExpect, absent={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Netdns:
    """A Netdns object."""

    API_VERSION: ClassVar[str] = "kdoctor.io/v1beta1"
    KIND: ClassVar[str] = "Netdns"
    PLURAL: ClassVar[str] = "netdnses"
    RULES: ClassVar[tuple[Rule, ...]] = ()

    metadata: Metadata = nested("metadata", "Name and labels.", Metadata, absent=None, required=True)
    spec: NetdnsSpec = nested("spec", "The task.", NetdnsSpec, absent={})
