# ruff: noqa: RUF009 - the calls describe fields, as dataclasses.field does
"""NetPatrol: the standing patrol of the mesh, round after round, for ever unless told otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from controller.tasks.schema import Rule, Scalar, boolean, integer, list_of, nested, number
from controller.tasks.shared import Metadata

PROTOCOLS = ("icmp", "udp", "tcp", "http")
UDP_PAYLOAD_MAX_BYTES = 65_507


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What makes a round of the patrol a success."""

    RULES: ClassVar[tuple[Rule, ...]] = ()

    loss_rate: float = number("lossRate", "Greatest share of lost requests.", default=0.01, minimum=0, maximum=1)
    mean_delay_ms: int = integer("meanDelayInMs", "Greatest mean delay in milliseconds.", default=5000, minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetPatrolSpec:
    """What a NetPatrol asks for."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="perRequestTimeoutInMS",
            cel="self.perRequestTimeoutInMS * 5 <= self.intervalSecond * 1000",
            holds=lambda spec: spec.timeout_ms * 5 <= spec.interval_s * 1000,
            found=lambda spec: f"{spec.timeout_ms} ms with an interval of {spec.interval_s} s",
            allowed="at most a fifth of the interval",
        ),
        Rule(
            field="",
            cel="self.ipv4 || self.ipv6",
            holds=lambda spec: spec.ipv4 or spec.ipv6,
            found=lambda _: "ipv4 and ipv6 both false",
            allowed="at least one of ipv4, ipv6 true",
        ),
        Rule(
            field="protocols",
            cel="self.protocols.all(p, self.protocols.exists_one(q, q == p))",
            holds=lambda spec: len(set(spec.protocols)) == len(spec.protocols),
            found=lambda spec: ", ".join(spec.protocols),
            allowed="each protocol once",
        ),
        Rule(
            field="packetSizesInByte",
            cel="self.packetSizesInByte.all(s, self.packetSizesInByte.exists_one(t, t == s))",
            holds=lambda spec: len(set(spec.sizes_bytes)) == len(spec.sizes_bytes),
            found=lambda spec: ", ".join(map(str, spec.sizes_bytes)),
            allowed="each size once",
        ),
        Rule(
            field="canaryLossRate",
            cel="self.canaryLossRate == 0.0 || (self.degree == 0 && self.protocols == ['udp'])",
            holds=lambda spec: not spec.canary_loss or (spec.degree == 0 and spec.protocols == ("udp",)),
            found=lambda spec: f"protocols {', '.join(spec.protocols)} and degree {spec.degree}",
            allowed="with a canary: protocols udp alone and degree 0",
        ),
        Rule(
            field="canaryLossRate",
            cel="self.canaryLossRate == 0.0 || self.canaryLossRate * double(self.requestsPerRound) >= 10.0",
            holds=lambda spec: not spec.canary_loss or spec.canary_loss * spec.requests_per_round >= 10,
            found=lambda spec: f"{spec.canary_loss:g} of {spec.requests_per_round} requests",
            allowed="0, or at least ten requests lost in a round",
        ),
    )

    protocols: tuple[str, ...] = list_of(
        "protocols",
        "Protocols to patrol with.",
        Scalar(type="string", enum=PROTOCOLS),
        default=("udp", "tcp", "http"),
        min_items=1,
        max_items=len(PROTOCOLS),
    )
    interval_s: int = integer("intervalSecond", "Seconds from round to round.", default=60, minimum=5, maximum=3600)
    round_number: int = integer(
        "roundNumber", "How many rounds; -1 = for ever.", default=-1, minimum=-1, maximum=10**9, excluded=(0,)
    )
    requests_per_round: int = integer(
        "requestsPerRound", "Requests of each agent to each target, spread over the round.", default=10, minimum=1,
        maximum=10_000,
    )  # fmt: skip
    timeout_ms: int = integer(
        "perRequestTimeoutInMS", "Milliseconds after which a request is lost.", default=500, minimum=1
    )
    degree: int = integer("degree", "Peers each agent asks in one round; 0 = all of them.", default=0, maximum=100_000)
    sizes_bytes: tuple[int, ...] = list_of(
        "packetSizesInByte",
        "Payload sizes of icmp and udp; 0 = the smallest the protocol has. Nothing is ever fragmented.",
        Scalar(type="integer", minimum=0, maximum=UDP_PAYLOAD_MAX_BYTES),
        default=(0,),
        min_items=1,
        max_items=16,
    )
    full_size: bool = boolean(
        "fullSizePacket", "Also send icmp and udp packets that just fit the MTU, beside the other sizes.", default=False
    )
    source_ports: int = integer(
        "sourcePorts", "UDP source ports that each stream takes in turn.", default=4, minimum=1, maximum=64
    )
    dscp: int = integer("dscp", "Differentiated services code point of every packet.", default=0, maximum=63)
    ipv4: bool = boolean("ipv4", "Use IPv4 addresses.", default=True)
    ipv6: bool = boolean("ipv6", "Use IPv6 addresses.", default=False)
    canary_loss: float = number(
        "canaryLossRate",
        "Makes a canary of the patrol: one agent ignores this share of another's requests by itself, and an alarm says "
        "when that is not found. 0 = none.",
        default=0,
        minimum=0,
        maximum=0.5,
    )
    thresholds: Thresholds = nested("thresholds", "What is good.", Thresholds, absent={})


@dataclass(frozen=True, slots=True, kw_only=True)
class NetPatrol:
    """A NetPatrol object."""

    API_VERSION: ClassVar[str] = "kpatrol.io/v1beta1"
    KIND: ClassVar[str] = "NetPatrol"
    PLURAL: ClassVar[str] = "netpatrols"
    RULES: ClassVar[tuple[Rule, ...]] = ()

    metadata: Metadata = nested("metadata", "Name and labels.", Metadata, absent=None, required=True)
    spec: NetPatrolSpec = nested("spec", "The task.", NetPatrolSpec, absent={})
