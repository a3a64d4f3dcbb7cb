# ruff: noqa: RUF009 - the calls describe fields, as dataclasses.field does
"""NetReach: every agent asks every other, by each of the ways a cluster offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from controller.tasks.schema import Rule, boolean, nested
from controller.tasks.shared import (
    REQUEST_ABSENT,
    AgentSpec,
    Expect,
    Metadata,
    Request,
    Schedule,
    round_budget_rules,
)

_WAYS = ("endpoint", "multus_interface", "cluster_ip", "node_port", "load_balancer", "ingress")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetReachTarget:
    """Which addresses of the agents are asked."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="",
            cel="self.ipv4 || self.ipv6",
            holds=lambda target: target.ipv4 or target.ipv6,
            found=lambda _: "ipv4 and ipv6 both false",
            allowed="at least one of ipv4, ipv6 true",
        ),
        Rule(
            field="",
            cel="self.endpoint || self.multusInterface || self.clusterIP || self.nodePort || self.loadBalancer || "
            "self.ingress",
            holds=lambda target: any(getattr(target, way) for way in _WAYS),
            found=lambda _: "every target false",
            allowed="at least one of endpoint, multusInterface, clusterIP, nodePort, loadBalancer, ingress true",
        ),
    )

    ipv4: bool = boolean("ipv4", "Use IPv4 addresses.", default=True)
    ipv6: bool = boolean("ipv6", "Use IPv6 addresses.", default=False)
    endpoint: bool = boolean("endpoint", "Each agent's own address.", default=True)
    multus_interface: bool = boolean("multusInterface", "The agents' further interfaces.", default=False)
    cluster_ip: bool = boolean("clusterIP", "The agents' Service address.", default=True)
    node_port: bool = boolean("nodePort", "The node port of the agents' Service.", default=True)
    load_balancer: bool = boolean("loadBalancer", "The load balancer's address.", default=False)
    ingress: bool = boolean("ingress", "The Ingress address.", default=False)
    latency_metric: bool = boolean("enableLatencyMetric", "Accepted; quantiles are always kept.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetReachSpec:
    """What a NetReach asks for."""

    RULES: ClassVar[tuple[Rule, ...]] = round_budget_rules()

    agent_spec: AgentSpec | None = nested("agentSpec", "Agents of its own.", AgentSpec, absent=None)
    schedule: Schedule = nested("schedule", "When.", Schedule, absent={})
    request: Request = nested("request", "How much.", Request, absent=REQUEST_ABSENT)
    target: NetReachTarget = nested("target", "To where.", NetReachTarget, absent={})
    expect: Expect = nested("expect", "What is good.", Expect, absent={})


@dataclass(frozen=True, slots=True, kw_only=True)
class NetReach:
    """A NetReach object."""

    API_VERSION: ClassVar[str] = "kdoctor.io/v1beta1"
    KIND: ClassVar[str] = "NetReach"
    PLURAL: ClassVar[str] = "netreaches"
    RULES: ClassVar[tuple[Rule, ...]] = ()

    metadata: Metadata = nested("metadata", "Name and labels.", Metadata, absent=None, required=True)
    spec: NetReachSpec = nested("spec", "The task.", NetReachSpec, absent={})
