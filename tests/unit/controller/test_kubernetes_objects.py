"""Kubernetes objects, plain JSON in: addresses, zones, events, conditions, and who may lead."""

import json
from typing import Any

from controller.kubernetes import conditions, election, events
from controller.kubernetes.book import Where, book, ingress_url, interfaces
from controller.kubernetes.nodes import NodeFacts, facts, node_changes, rollout, service_shape, shape_changes
from controller.kubernetes.owner import _definitions, _webhooks
from controller.members import Site, seated
from tests.unit.controller.controller_world import report

WHERE = Where(namespace="kpatrol", agents="kpatrol-agent")


def service(name: str, *addresses: str, namespace: str = "kpatrol", **more: Any) -> dict[str, Any]:
    spec = {
        "type": "NodePort",
        "clusterIPs": list(addresses),
        "ports": [{"name": "https", "port": 443, "nodePort": 31443}, {"name": "http", "port": 80, "nodePort": 31080}],
    }
    metadata = {"name": name, "namespace": namespace, "labels": more.get("labels", {})}
    return {"metadata": metadata, "spec": spec | more.get("spec", {}), "status": more.get("status", {})}


def named(*objects: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{o['metadata']['namespace']}/{o['metadata']['name']}": o for o in objects}


def test_the_agents_services_give_cluster_addresses_of_both_families_ports_and_load_balancers() -> None:
    balanced = {"loadBalancer": {"ingress": [{"ip": "192.0.2.50"}]}}
    named_only = {"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}}
    found = book(
        where=WHERE,
        services=named(
            service("kpatrol-agent-ipv4", "10.96.0.7", status=balanced),
            service("kpatrol-agent-ipv6", "fd00::7", status=named_only),
            service("kpatrol-agent-ipv4", "10.96.9.9", namespace="other"),
        ),
        ingresses={},
        pods=(),
    )
    assert found.cluster_ip == {"4": "10.96.0.7", "6": "fd00::7"}
    assert (found.service_port, found.node_ports) == (80, {"4": 31080, "6": 31080})
    assert found.load_balancer == {"4": "192.0.2.50", "6": "lb.example"}


def test_what_is_not_there_is_left_out() -> None:
    headless = service("kpatrol-agent-ipv4", "None", spec={"ports": []})
    found = book(where=WHERE, services=named(headless), ingresses={}, pods=())
    assert (found.cluster_ip, found.node_ports, found.load_balancer, found.ingress_url) == ({}, {}, {}, "")


def test_dns_services_are_told_by_label_in_kube_system_and_by_name_anywhere() -> None:
    coredns = service("kube-dns", "10.96.0.10", "fd00::a", namespace="kube-system", labels={"k8s-app": "kube-dns"})
    other = service("resolver", "10.96.0.11", namespace="team", labels={"k8s-app": "kube-dns"})
    found = book(where=WHERE, services=named(coredns, other), ingresses={}, pods=())
    assert found.cluster_dns == ("10.96.0.10", "fd00::a")
    assert found.dns_services == {"kube-system/kube-dns": ("10.96.0.10", "fd00::a"), "team/resolver": ("10.96.0.11",)}


def test_an_ingress_is_reached_by_its_first_address_under_its_first_path() -> None:
    ingress = {
        "spec": {"tls": [{}], "rules": [{"http": {"paths": [{"path": "/kdoctoragent"}]}}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "2001:db8::1"}]}},
    }
    assert ingress_url(ingress) == "https://[2001:db8::1]/kdoctoragent"
    assert ingress_url({"spec": {}, "status": {}}) == ""
    assert ingress_url(None) == ""


def test_further_interfaces_come_from_multus_annotation_without_the_default_network() -> None:
    networks = [
        {"interface": "eth0", "ips": ["10.0.0.1"], "default": True},
        {"interface": "net1", "ips": ["10.7.0.1", "fd07::1"]},
        {"name": "no addresses", "interface": "net2"},
    ]
    annotation = "k8s.v1.cni.cncf.io/networks-status"
    pod = {
        "metadata": {"name": "agent-x", "annotations": {annotation: json.dumps(networks)}},
        "spec": {"nodeName": "n1"},
    }
    assert interfaces(pod, (annotation,)) == {"net1": ("10.7.0.1", "fd07::1")}
    assert book(where=WHERE, services={}, ingresses={}, pods=[pod]).multus == {"n1": {"net1": ("10.7.0.1", "fd07::1")}}
    broken = {"metadata": {"name": "x", "annotations": {annotation: "{"}}}
    assert interfaces(broken, (annotation,)) == {}


def node(*, ready: str = "True", cordoned: bool = False) -> dict[str, Any]:
    labels = {"topology.kubernetes.io/zone": "a", "rack": "r7"}
    return {
        "metadata": {"name": "n1", "labels": labels},
        "spec": {"unschedulable": cordoned},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def test_a_node_says_where_it_stands_and_whether_it_is_there() -> None:
    assert facts(node(), rack_label="rack") == NodeFacts(zone="a", rack="r7", ready=True, cordoned=False)
    assert facts(node(ready="Unknown", cordoned=True)) == NodeFacts(zone="a", rack="", ready=False, cordoned=True)


def test_members_get_zone_and_rack_of_their_node_unless_they_say_it_themselves() -> None:
    reports = (report("node-1"), report("node-2", zone="own"))
    sites = {name: Site(zone="a", rack="r") for name in ("node-1", "node-2")}
    members = seated(reports, slots={}, sites=sites)
    assert [(member.zone, member.rack) for member in members] == [("a", "r"), ("own", "r")]


def test_every_change_of_a_node_is_one_event() -> None:
    before = {"gone": NodeFacts(), "n1": NodeFacts(), "n2": NodeFacts(cordoned=True), "same": NodeFacts()}
    after = {"new": NodeFacts(), "n1": NodeFacts(ready=False), "n2": NodeFacts(), "same": NodeFacts()}
    said = [(event.node, event.reason) for event in node_changes(before, after, at_us=1)]
    assert said == [
        ("gone", "NodeRemoved"), ("n1", "NodeNotReady"), ("n2", "NodeUncordoned"), ("new", "NodeAdded"),
    ]  # fmt: skip


def test_rollouts_and_services_tell_when_their_shape_changes() -> None:
    workload = {"metadata": {"generation": 2}, "status": {"desiredNumberScheduled": 3, "updatedNumberScheduled": 1}}
    done = {"metadata": {"generation": 2}, "status": {"desiredNumberScheduled": 3, "updatedNumberScheduled": 3}}
    assert (rollout(workload), rollout(done)) == ("generation 2, under way", "generation 2, complete")
    old, new = service_shape(service("a", "10.0.0.1")), service_shape(service("a", "10.0.0.2"))
    (event,) = shape_changes({"ns/a": old}, {"ns/a": new}, kind="service", reason="ServiceChanged", at_us=1)
    assert (event.object, "10.0.0.2" in event.message) == ("service/ns/a", True)


def item(number: int, status: str, **more: Any) -> dict[str, Any]:
    return {"roundNumber": number, "status": status, "startTimeStamp": "t", "expectedRequests": 6} | more


def test_events_tell_of_rounds_that_begin_and_close_and_of_later_revisions() -> None:
    first = {"history": [item(1, "ongoing")]}
    second = {"history": [item(2, "notstarted"), item(1, "fail", failureReason="some agents failed: x", revision=1)]}
    third = {"history": [item(2, "succeed", revision=1), item(1, "unknown", why="w", revision=2)]}
    assert [(e.type, e.reason) for e in events.said(None, first)] == [("Normal", "RoundScheduled")]
    assert [(e.type, e.reason, e.message) for e in events.said(first, second)] == [
        ("Warning", "RoundFailed", "round 1: some agents failed: x"),
        ("Normal", "RoundScheduled", "round 2: 6 requests from t"),
    ]
    assert [(e.reason, e.message) for e in events.said(second, third)] == [
        ("RoundUnknown", "round 1, revision 2: w"),
        ("RoundSucceeded", "round 2: succeed"),
    ]
    assert events.said(third, third) == []


def test_events_tell_of_the_end_and_of_what_is_missing_once() -> None:
    status = {
        "finish": True,
        "doneRound": 2,
        "lastRoundStatus": "succeed",
        "reasons": ["not found: Secret a/b", "other"],
    }
    assert [e.reason for e in events.said({}, status)] == ["NotFound", "Finished"]
    assert events.said(status, status) == []


def test_conditions_keep_the_time_of_their_last_change() -> None:
    good = conditions.dated(conditions.of_status({"reasons": []}), known=[], at="t1")
    assert [(c["type"], c["status"], c["lastTransitionTime"]) for c in good] == [
        ("Accepted", "True", "t1"), ("AgentsReady", "True", "t1"), ("TargetsFound", "True", "t1"),
    ]  # fmt: skip
    missing = conditions.of_status({"reasons": ["waiting for agents: 3", "not found: Secret a/b"]})
    later = conditions.dated(missing, known=good, at="t2")
    assert [(c["status"], c["lastTransitionTime"]) for c in later] == [("True", "t1"), ("False", "t2"), ("False", "t2")]
    assert later[2]["message"] == "Secret a/b"


def lease(version: str, holder: str) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15}}


def test_a_lease_is_taken_when_it_is_free_ours_or_long_unchanged_by_our_own_clock() -> None:
    first = election.seen(lease("7", "other"), before=None, now_s=100.0)
    again = election.seen(lease("7", "other"), before=first, now_s=114.0)
    assert not election.may_take(again, me="me", now_s=114.9)
    assert election.may_take(again, me="me", now_s=115.1)
    renewed = election.seen(lease("8", "other"), before=again, now_s=115.1)
    assert not election.may_take(renewed, me="me", now_s=120.0)
    assert election.may_take(election.seen(lease("9", ""), before=renewed, now_s=121.0), me="me", now_s=121.0)
    assert election.may_take(election.seen(lease("9", "me"), before=None, now_s=0.0), me="me", now_s=999.0)


def test_a_lease_taken_over_counts_the_change_of_hands_and_one_renewed_does_not() -> None:
    taken = election.held({"holderIdentity": "other", "leaseTransitions": 4}, me="me", now_us=1_790_000_000_000_000)
    assert (taken["leaseTransitions"], taken["acquireTime"], taken["renewTime"][:4]) == (5, taken["renewTime"], "2026")
    renewed = election.held(taken, me="me", now_us=1_790_000_001_000_000)
    assert (renewed["leaseTransitions"], renewed["acquireTime"]) == (5, taken["acquireTime"])
    assert renewed["renewTime"] != taken["renewTime"]


def test_another_products_definitions_and_webhooks_are_named() -> None:
    ours = {"metadata": {"name": "netreaches.kdoctor.io", "labels": {"app.kubernetes.io/part-of": "kpatrol"}}}
    helm = {"meta.helm.sh/release-name": "kdoctor", "meta.helm.sh/release-namespace": "kube-system"}
    theirs = {"metadata": {"name": "netdnses.kdoctor.io", "annotations": helm}}
    (said,) = _definitions([ours, theirs])
    assert "netdnses.kdoctor.io is another product's (Helm release kube-system/kdoctor)" in said
    hook = {"metadata": {"name": "kdoctor"}, "webhooks": [{"rules": [{"apiGroups": ["kdoctor.io"]}]}]}
    (said,) = _webhooks([hook, {"metadata": {"name": "other"}, "webhooks": [{"rules": [{"apiGroups": ["apps"]}]}]}])
    assert said.startswith("webhook kdoctor (no Helm release) judges tasks of kdoctor.io")
