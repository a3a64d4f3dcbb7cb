"""Faults on the lab's network: the text of `--fault`, its meaning, and the nftables rules that make it happen.

    ingress node-3 loss=2%                     what arrives at node-3
    egress node-3 loss=100% proto=udp          what node-3 sends, dropped where it arrives
    pair node-1>node-2 every=50 size>1000      exactly one packet in fifty, of those longer than 1000 bytes
    ingress node-3 loss=5% from=5 to=20        between 5 and 20 seconds after the load has begun
    ingress node-3 loss=100% tuples=1/16       all packets of one source port in sixteen, none of the others

- A drop happens in the receiving node's namespace and on its data interface: dropping where a packet is sent is no
  network loss, the sender's own TCP is told of it. With `every` each receiver counts for itself.
- The hook lies before connection tracking and address rewriting, so forwarded packets are met too and addresses are
  those of the wire. What IPv6 needs for its own upkeep passes: a fault is about packets that somebody counts.
- Every fault keeps two exact counters per namespace: packets it looked at and packets it dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from kpatrol.lab.errors import LabError
from kpatrol.lab.netplan import Node

FaultKind = Literal["ingress", "egress", "pair"]
FaultProto = Literal["tcp", "udp", "icmp"]

# Loss is drawn in ten-thousandths, so 0.01 % is the least that can be asked for.
LOSS_UNITS = 10_000
_FORM = (
    "ingress NODE | egress NODE | pair NODE>NODE, then loss=P% or every=N, and any of proto= size> tuples= from= to="
)
_PROTOCOLS: Mapping[FaultProto, str] = {
    "tcp": "meta l4proto tcp",
    "udp": "meta l4proto udp",
    "icmp": "meta l4proto { icmp, ipv6-icmp }",
}
# What IPv6 itself needs on a link; no request of anybody.
_UPKEEP = (
    "nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, "
    "mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report"
)


class BadFault(LabError):
    """A fault's text that cannot be used: names the field, what was found and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. `source` is None for ingress, `target` is None for egress. One of `loss_units` and `every` is set.

    Times are seconds since the load began; `to_s` None means to the end. Sizes are of the whole IP packet. Only packets
    of one 5-tuple in `tuples` are met, chosen by a hash of addresses and ports, so a connection is met wholly or not.
    """

    text: str
    kind: FaultKind
    source: str | None = None
    target: str | None = None
    loss_units: int | None = None
    every: int | None = None
    proto: FaultProto | None = None
    larger_than_bytes: int | None = None
    tuples: int | None = None
    from_s: float = 0.0
    to_s: float | None = None

    @property
    def loss(self) -> float:
        """The share of matching packets that is dropped, 0 to 1."""
        return 1 / self.every if self.every else (self.loss_units or 0) / LOSS_UNITS


def parse_fault(text: str, *, nodes: Collection[str]) -> Fault:
    """Read one `--fault`; `nodes` are the names there are. Raises `BadFault` with one clear sentence."""
    words = text.split()
    kind = words[0] if words else ""
    if kind not in get_args(FaultKind):
        raise _bad(text, "kind", kind, f"{', '.join(get_args(FaultKind))} ({_FORM})")
    if len(words) < 2:
        raise _bad(text, "place", "", "NODE>NODE" if kind == "pair" else "the name of a node")
    fault = _place(text, kind, words[1], nodes)
    seen: set[str] = set()
    for word in words[2:]:
        fault = _with_option(fault, word, seen)
    return _checked(fault)


def _place(text: str, kind: str, place: str, nodes: Collection[str]) -> Fault:
    if kind == "ingress":
        return Fault(text=text, kind="ingress", target=_node(text, place, nodes))
    if kind == "egress":
        return Fault(text=text, kind="egress", source=_node(text, place, nodes))
    source, arrow, target = place.partition(">")
    if not arrow:
        raise _bad(text, "place", place, "NODE>NODE")
    fault = Fault(text=text, kind="pair", source=_node(text, source, nodes), target=_node(text, target, nodes))
    if source == target:
        raise _bad(text, "place", place, "two different nodes")
    return fault


def _node(text: str, name: str, nodes: Collection[str]) -> str:
    if name not in nodes:
        raise _bad(text, "node", name, ", ".join(nodes))
    return name


def _with_option(fault: Fault, word: str, seen: set[str]) -> Fault:
    match = re.fullmatch(r"([a-z]+)([=>])(.*)", word)
    form = f"{match[1]}{match[2]}" if match else ""
    if match is None or form not in _OPTIONS:
        raise _bad(fault.text, "option", word, " ".join(f"{option}…" for option in _OPTIONS))
    if form in seen:
        raise _bad(fault.text, match[1], word, "each option once")
    seen.add(form)
    return _OPTIONS[form](fault, match[3])


def _with_loss(fault: Fault, value: str) -> Fault:
    match = re.fullmatch(r"(\d{1,3})(?:\.(\d{1,2}))?%", value)
    units = int(match[1]) * 100 + int((match[2] or "").ljust(2, "0")) if match else 0
    if not 0 < units <= LOSS_UNITS:
        raise _bad(fault.text, "loss", value, "more than 0% up to 100%, two decimals at most, e.g. 2% or 0.25%")
    return replace(fault, loss_units=units)


def _with_every(fault: Fault, value: str) -> Fault:
    return replace(fault, every=_integer(fault, "every", value, least=1, greatest=1_000_000))


def _with_proto(fault: Fault, value: str) -> Fault:
    for proto in _PROTOCOLS:
        if value == proto:
            return replace(fault, proto=proto)
    raise _bad(fault.text, "proto", value, ", ".join(_PROTOCOLS))


def _with_size(fault: Fault, value: str) -> Fault:
    return replace(fault, larger_than_bytes=_integer(fault, "size", value, least=0, greatest=65_535))


def _with_tuples(fault: Fault, value: str) -> Fault:
    match = re.fullmatch(r"1/(\d{1,4})", value)
    tuples = int(match[1]) if match else 0
    if not 2 <= tuples <= 1024:
        raise _bad(fault.text, "tuples", value, "1/N with N from 2 to 1024, e.g. 1/16")
    return replace(fault, tuples=tuples)


def _with_from(fault: Fault, value: str) -> Fault:
    return replace(fault, from_s=_seconds(fault, "from", value))


def _with_to(fault: Fault, value: str) -> Fault:
    return replace(fault, to_s=_seconds(fault, "to", value))


_OPTIONS: Mapping[str, Callable[[Fault, str], Fault]] = {
    "loss=": _with_loss,
    "every=": _with_every,
    "proto=": _with_proto,
    "size>": _with_size,
    "tuples=": _with_tuples,
    "from=": _with_from,
    "to=": _with_to,
}


def _integer(fault: Fault, field: str, value: str, *, least: int, greatest: int) -> int:
    number = int(value) if re.fullmatch(r"\d{1,9}", value) else -1
    if not least <= number <= greatest:
        raise _bad(fault.text, field, value, f"a whole number from {least} to {greatest}")
    return number


def _seconds(fault: Fault, field: str, value: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", value):
        raise _bad(fault.text, field, value, "seconds since the load began, e.g. 5 or 2.5")
    return float(value)


def _checked(fault: Fault) -> Fault:
    if (fault.loss_units is None) == (fault.every is None):
        found = "neither" if fault.every is None else "both"
        raise _bad(fault.text, "loss", found, "exactly one of loss=P% and every=N")
    if fault.to_s is not None and fault.to_s <= fault.from_s:
        raise _bad(fault.text, "to", f"{fault.to_s:g}", f"later than from={fault.from_s:g}")
    return fault


def _bad(text: str, field: str, found: str, allowed: str) -> BadFault:
    return BadFault(f"--fault {text!r}: {field}: found {found or 'nothing'!r}, allowed: {allowed}")


def table_of(number: int) -> str:
    """Name of the table that holds fault `number` (counted from 0) in each namespace concerned."""
    return f"kpatrol_fault_{number}"


def receivers(fault: Fault, nodes: Mapping[str, Node]) -> list[str]:
    """The nodes in whose namespace the fault drops packets."""
    if fault.target is not None:
        return [fault.target]
    return [name for name in nodes if name != fault.source]


def render_fault(fault: Fault, *, number: int, nodes: Mapping[str, Node]) -> dict[str, str]:
    """Node name -> nft script that puts the fault into force there; running it again changes no counter."""
    script = _script(fault, table=table_of(number), source=nodes[fault.source] if fault.source else None)
    return dict.fromkeys(receivers(fault, nodes), script)


def render_end(number: int) -> str:
    """The nft script that ends a fault and keeps its counters readable."""
    return f"flush chain inet {table_of(number)} arriving\n"


def _script(fault: Fault, *, table: str, source: Node | None) -> str:
    rules = "\n".join(f"    {rule}" for rule in _rules(fault, source))
    return f"""
table inet {table} {{
  counter examined {{}}
  counter dropped {{}}
  chain arriving {{
    type filter hook prerouting priority -350; policy accept;
  }}
}}
flush chain inet {table} arriving
table inet {table} {{
  chain arriving {{
    iifname != "data" accept
    icmpv6 type {{ {_UPKEEP} }} accept
{rules}
  }}
}}
"""


def _rules(fault: Fault, source: Node | None) -> list[str]:
    """First leave what the fault is not about, then count and drop: one draw for both address families."""
    leave = []
    if source is not None:
        leave.append(f"meta nfproto ipv4 ip saddr != {source.address} accept")
        if source.address6 is not None:
            leave.append(f"meta nfproto ipv6 ip6 saddr != {source.address6} accept")
    matches = []
    if fault.proto is not None:
        matches.append(_PROTOCOLS[fault.proto])
    if fault.larger_than_bytes is not None:
        matches.append(f"meta length > {fault.larger_than_bytes}")
    tail = ["counter name examined", *_draw(fault), "counter name dropped drop"]
    if fault.tuples is None:
        return [*leave, " ".join([*matches, *tail])]
    # A hash of one family's addresses cannot be asked of the other's.
    return [*leave, *(" ".join([*matches, _hashed(ip, fault.tuples), *tail]) for ip in ("ip", "ip6"))]


def _hashed(ip: str, tuples: int) -> str:
    family = "ipv4" if ip == "ip" else "ipv6"
    hashed = f"jhash {ip} saddr . {ip} daddr . th sport . th dport mod {tuples} seed 0x5eed == 0"
    return f"meta nfproto {family} meta l4proto {{ tcp, udp }} {hashed}"


def _draw(fault: Fault) -> list[str]:
    if fault.every is not None:
        return [f"numgen inc mod {fault.every} == 0"] if fault.every > 1 else []
    if fault.loss_units == LOSS_UNITS:
        return []  # nft refuses a comparison that is always true
    return [f"numgen random mod {LOSS_UNITS} < {fault.loss_units}"]
