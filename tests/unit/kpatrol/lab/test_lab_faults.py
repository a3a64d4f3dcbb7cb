"""The text of a fault, its meaning and its rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpatrol.lab.faults import BadFault, Fault, parse_fault, receivers, render_end, render_fault
from kpatrol.lab.inject import Change, timeline
from kpatrol.lab.netplan import NetworkPlan, NodeSpec, free_control_range, plan_network

NODES = ["node-1", "node-2", "node-3"]


def parsed(text: str) -> Fault:
    return parse_fault(text, nodes=NODES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ingress node-3 loss=2%", {"kind": "ingress", "target": "node-3", "source": None, "loss_units": 200}),
        ("egress node-3 loss=100%", {"kind": "egress", "source": "node-3", "target": None, "loss_units": 10_000}),
        ("pair node-1>node-2 loss=0.05%", {"kind": "pair", "source": "node-1", "target": "node-2", "loss_units": 5}),
        ("ingress node-1 loss=2.5% proto=udp", {"proto": "udp", "loss_units": 250}),
        ("ingress node-1 every=50 size>1000", {"every": 50, "larger_than_bytes": 1000, "loss_units": None}),
        ("ingress node-1 loss=100% tuples=1/16", {"tuples": 16, "loss_units": 10_000}),
        ("  ingress   node-1 loss=5%  from=5 to=20 ", {"from_s": 5.0, "to_s": 20.0}),
        ("ingress node-1 to=2.5 loss=5%", {"from_s": 0.0, "to_s": 2.5}),
    ],
)
def test_a_good_text_gives_its_fault(text: str, expected: dict[str, object]) -> None:
    fault = parsed(text)
    assert {name: getattr(fault, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "field", "found", "allowed"),
    [
        ("", "kind", "nothing", "ingress, egress, pair"),
        ("sideways node-1 loss=2%", "kind", "sideways", "ingress, egress, pair"),
        ("ingress", "place", "nothing", "the name of a node"),
        ("pair", "place", "nothing", "NODE>NODE"),
        ("ingress node-9 loss=2%", "node", "node-9", "node-1, node-2, node-3"),
        ("pair node-1 loss=2%", "place", "node-1", "NODE>NODE"),
        ("pair node-1>node-1 loss=2%", "place", "node-1>node-1", "two different nodes"),
        ("pair node-1>node-9 loss=2%", "node", "node-9", "node-1, node-2, node-3"),
        ("ingress node-1", "loss", "neither", "exactly one of loss=P% and every=N"),
        ("ingress node-1 loss=2% every=5", "loss", "both", "exactly one of loss=P% and every=N"),
        ("ingress node-1 loss=2", "loss", "2", "e.g. 2% or 0.25%"),
        ("ingress node-1 loss=0%", "loss", "0%", "more than 0%"),
        ("ingress node-1 loss=101%", "loss", "101%", "up to 100%"),
        ("ingress node-1 loss=-1%", "loss", "-1%", "more than 0%"),
        ("ingress node-1 loss=0.001%", "loss", "0.001%", "two decimals at most"),
        ("ingress node-1 loss=2% loss=3%", "loss", "loss=3%", "each option once"),
        ("ingress node-1 every=0", "every", "0", "a whole number from 1"),
        ("ingress node-1 loss=2% proto=sctp", "proto", "sctp", "tcp, udp, icmp"),
        ("ingress node-1 loss=2% size>x", "size", "x", "a whole number from 0 to 65535"),
        ("ingress node-1 loss=2% tuples=16", "tuples", "16", "1/N with N from 2 to 1024"),
        ("ingress node-1 loss=2% tuples=1/1", "tuples", "1/1", "1/N with N from 2 to 1024"),
        ("ingress node-1 loss=2% size=5", "option", "size=5", "size>"),
        ("ingress node-1 loss=2% speed=5", "option", "speed=5", "loss="),
        ("ingress node-1 loss=2% from=soon", "from", "soon", "seconds since the load began"),
        ("ingress node-1 loss=2% from=5 to=5", "to", "5", "later than from=5"),
    ],
)
def test_a_bad_text_is_refused_with_field_found_and_allowed(text: str, field: str, found: str, allowed: str) -> None:
    with pytest.raises(BadFault) as refused:
        parsed(text)
    message = str(refused.value)
    assert repr(text) in message
    assert f": {field}: found {found!r}, allowed: " in message
    assert allowed in message.partition("allowed: ")[2]


@given(st.text())
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    try:
        understood = parsed(text).text == text
    except BadFault as refused:
        understood = "allowed: " in str(refused)
    assert understood


def plan() -> NetworkPlan:
    control = free_control_range([])
    return plan_network(lab_id="00abcd", mode="root", specs=[NodeSpec(name=name) for name in NODES], control=control)


def rendered(text: str) -> dict[str, str]:
    return render_fault(parsed(text), number=0, nodes=plan().nodes)


def test_ingress_drops_at_the_receiver_only() -> None:
    scripts = rendered("ingress node-3 loss=2%")
    assert list(scripts) == ["node-3"]
    assert "numgen random mod 10000 < 200 counter name dropped drop" in scripts["node-3"]
    assert "saddr" not in scripts["node-3"]


def test_egress_drops_at_every_other_node_by_source_address() -> None:
    scripts = rendered("egress node-3 loss=2%")
    assert list(scripts) == ["node-1", "node-2"]
    source = plan().nodes["node-3"]
    for script in scripts.values():
        assert f"ip saddr != {source.address} accept" in script
        assert f"ip6 saddr != {source.address6} accept" in script


def test_a_pair_drops_in_one_direction() -> None:
    scripts = rendered("pair node-1>node-2 loss=5%")
    assert list(scripts) == ["node-2"]
    assert f"ip saddr != {plan().nodes['node-1'].address} accept" in scripts["node-2"]


def test_only_the_data_interface_is_touched() -> None:
    for text in ("ingress node-1 loss=2%", "egress node-1 loss=2%", "pair node-1>node-2 loss=2%"):
        for script in rendered(text).values():
            rules = script.split("flush chain")[1]
            assert rules.index('iifname != "data" accept') < rules.index("drop\n")


def test_certain_loss_draws_no_number() -> None:
    (script,) = rendered("ingress node-1 loss=100% proto=icmp size>200").values()
    assert "numgen" not in script
    assert "meta l4proto { icmp, ipv6-icmp } meta length > 200 counter name examined counter name dropped" in script


def test_tuples_are_chosen_by_a_hash_in_each_family() -> None:
    (script,) = rendered("ingress node-1 loss=100% tuples=1/16 proto=udp").values()
    for family, ip in (("ipv4", "ip"), ("ipv6", "ip6")):
        assert f"meta nfproto {family} meta l4proto {{ tcp, udp }} jhash {ip} saddr . {ip} daddr" in script
    assert script.count("mod 16 seed 0x5eed == 0 counter name examined counter name dropped drop") == 2


def test_every_nth_is_counted_not_drawn() -> None:
    (script,) = rendered("ingress node-1 every=50").values()
    assert "numgen inc mod 50 == 0" in script


def test_the_end_of_a_fault_keeps_its_counters() -> None:
    assert render_end(4) == "flush chain inet kpatrol_fault_4 arriving\n"


def test_receivers_of_an_egress_fault_include_targets() -> None:
    assert receivers(parsed("egress node-2 loss=1%"), plan().nodes) == ["node-1", "node-3"]


def test_the_timeline_is_in_order_of_time() -> None:
    faults = [parsed("ingress node-1 loss=1% from=5 to=20"), parsed("ingress node-2 loss=1%")]
    assert timeline(faults) == [
        Change(at_s=0.0, number=1, verb="begin"),
        Change(at_s=5.0, number=0, verb="begin"),
        Change(at_s=20.0, number=0, verb="end"),
    ]
