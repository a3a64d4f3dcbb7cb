"""Addresses, names and scripts of the lab's network."""

from ipaddress import IPv4Network

import pytest

from kpatrol.lab.errors import LabError
from kpatrol.lab.netplan import (
    CONTROL,
    NetworkPlan,
    NodeSpec,
    control_port,
    free_control_range,
    node_script,
    plan_network,
    root_batch,
    switch_script,
)
from kpatrol.lab.services import Service, render_services


def planned(count: int = 3) -> NetworkPlan:
    specs = [NodeSpec(name=f"node-{i}", zone=f"zone-{i % 2}", rack="r1") for i in range(1, count + 1)]
    return plan_network(lab_id="0a1b2c", mode="root", specs=specs, control=free_control_range([]))


def test_every_node_has_addresses_of_its_own_on_both_paths() -> None:
    nodes = list(planned(300).nodes.values())
    for addresses in (
        {node.address for node in nodes},
        {node.address6 for node in nodes},
        {node.ctl_address for node in nodes},
    ):
        assert len(addresses) == 300
    assert nodes[0].address == "10.201.0.1"
    assert nodes[0].zone == "zone-1"
    assert planned().gateway not in {node.ctl_address for node in nodes}


def test_interface_names_fit_the_kernel() -> None:
    plan = planned()
    assert len(plan.bridge) <= 15
    assert len(control_port(plan, 2000)) <= 15


def test_the_control_range_avoids_what_the_machine_uses() -> None:
    first = free_control_range([])
    second = free_control_range([first])
    assert not second.overlaps(first)
    assert second.subnet_of(CONTROL)
    assert free_control_range([IPv4Network("10.202.0.0/17")]) == IPv4Network("10.202.128.0/21")


def test_a_machine_that_uses_the_whole_range_is_told_so() -> None:
    with pytest.raises(LabError, match=r"no free range left in 10\.202\.0\.0/16"):
        free_control_range([IPv4Network("10.0.0.0/8")])


def test_the_same_name_twice_is_refused() -> None:
    specs = [NodeSpec(name="a"), NodeSpec(name="a")]
    with pytest.raises(LabError, match="found twice: a"):
        plan_network(lab_id="000001", mode="loopback", specs=specs)


def test_loopback_nodes_differ_by_address_and_have_no_namespace() -> None:
    plan = plan_network(lab_id="000001", mode="loopback", specs=[NodeSpec(name="a"), NodeSpec(name="b")])
    assert [node.address for node in plan.nodes.values()] == ["127.2.0.1", "127.2.0.2"]
    assert {node.namespace for node in plan.nodes.values()} == {None}


def test_control_ports_are_isolated_and_data_has_its_own_bridge() -> None:
    plan = planned(2)
    batch = root_batch(plan, switch="/run/netns/x")
    assert batch.count("isolated on") == 2
    assert "link add data2 netns /run/netns/x type veth peer name data netns /run/netns/kp-0a1b2c-2" in batch
    assert switch_script(plan).count("master kpdata") == 2


def test_a_node_sends_one_segment_a_packet_and_may_use_low_ports() -> None:
    plan = planned()
    script = node_script(plan, plan.nodes["node-2"], groups="0 0")
    assert "mtu 1500 gso_max_segs 1" in script
    assert "echo '0' > /proc/sys/net/ipv4/ip_unprivileged_port_start" in script
    assert "echo '0 0' > /proc/sys/net/ipv4/ping_group_range" in script


def test_a_service_needs_members_and_the_address_of_its_kind() -> None:
    with pytest.raises(LabError, match="at least one member"):
        Service(name="s", kind="clusterip", port=80, target_port=80, members=(), address="10.203.0.1")
    with pytest.raises(LabError, match="a clusterip has an address, a nodeport has none"):
        Service(name="s", kind="nodeport", port=80, target_port=80, members=("node-1",), address="10.203.0.1")


def test_services_pick_a_member_at_random_in_both_families() -> None:
    plan = planned(2)
    service = Service(
        name="s",
        kind="clusterip",
        port=80,
        target_port=8080,
        members=("node-1", "node-2"),
        address="10.203.0.1",
        address6="fd00::1",
    )
    script = render_services([service], own=plan.nodes["node-1"], nodes=dict(plan.nodes))
    assert (
        "ip daddr 10.203.0.1 tcp dport 80 dnat ip to numgen random mod 2 map "
        "{ 0 : 10.201.0.1 . 8080, 1 : 10.201.0.2 . 8080 }" in script
    )
    assert "ip6 daddr fd00::1 tcp dport 80 dnat ip6" in script
