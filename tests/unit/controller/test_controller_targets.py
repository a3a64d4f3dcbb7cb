"""From a task and an address book to the targets of a round."""

import pytest

from controller.addressbook import AddressBook, SecretFiles
from controller.canary import canary_of
from controller.members import Epoch, seated
from controller.resolve import Resolved, resolve
from controller.rounds import build_round
from controller.schedule import timing
from controller.tasks import Task, load_tasks
from controller.tasks.problems import TaskFileErrors
from tests.unit.controller.controller_world import ENDPOINT_ONLY, START, net_reach, report
from topics import share
from topics.mesh_members import Member, digest
from topics.outcome import Layer, Proto
from topics.task_rounds import FULL_SIZE, HttpRequest, RoundScheduled

MEMBERS = seated((report("node-1"), report("node-2"), report("node-3")), slots={})
BOOK = AddressBook(
    cluster_ip={"4": "10.203.0.1", "6": "fd00::1"},
    node_port=30080,
    load_balancer={"4": "192.0.2.100"},
    ingress_url="https://192.0.2.101/kdoctoragent",
    multus={"node-1": {"net1": ("172.16.0.1", "fd01::1")}, "node-2": {"net1": ("172.16.0.2",)}},
    cluster_dns=("10.96.0.10", "fd00::a"),
    dns_services={"kube-system/coredns": ("10.96.0.11",)},
    config_maps={"web/payload": {"b": "2", "a": "1"}},
    secrets={"web/client": SecretFiles(ca_file="/tls/ca.crt", cert_file="/tls/tls.crt", key_file="/tls/tls.key")},
)


def one(text: str) -> Task:
    (task,) = load_tasks(text)
    return task


def reach(target: str) -> Resolved:
    return resolve(one(net_reach(target=target)), members=MEMBERS, book=BOOK)


def http(target: str) -> Resolved:
    head = "apiVersion: kdoctor.io/v1beta1\nkind: AppHttpHealthy\nmetadata: {name: a}\n"
    return resolve(one(f"{head}spec: {{target: {target}}}"), members=MEMBERS, book=BOOK)


def dns(spec: str) -> Resolved:
    head = "apiVersion: kdoctor.io/v1beta1\nkind: Netdns\nmetadata: {name: a}\n"
    return resolve(one(f"{head}spec: {spec}"), members=MEMBERS, book=BOOK)


def test_endpoint_is_the_mesh_and_nothing_else() -> None:
    found = reach(ENDPOINT_ONLY)
    assert found.mesh is not None
    assert (found.mesh.protos, found.mesh.families, found.mesh.degree) == ((Proto.http,), (4,), 0)
    assert found.targets == ()
    assert found.unresolved == ()


def test_services_have_the_names_that_reports_know_them_by() -> None:
    found = reach("{loadBalancer: true, ingress: true, ipv6: true}")
    assert [(t.name, t.dst, t.layer) for t in found.targets] == [
        ("AgentClusterV4IP_10.203.0.1:80", "cluster-ip", Layer.cluster_ip),
        ("AgentNodePortV4IP_{node}_30080", "node-port", Layer.node_port),
        ("AgentLoadbalancerV4IP_192.0.2.100:80", "load-balancer", Layer.load_balancer),
        ("AgentClusterV6IP_[fd00::1]:80", "cluster-ip-v6", Layer.cluster_ip),
        ("AgentIngress_v4_https://192.0.2.101/kdoctoragent", "ingress", Layer.ingress),
    ]
    ingress = found.targets[-1]
    assert (ingress.proto, ingress.address, ingress.port) == (Proto.https, "192.0.2.101", 443)
    # The Ingress alone is asked for its rule's path.
    assert [t.url_path for t in found.targets] == [""] * 4 + ["/kdoctoragent"]
    assert found.http == HttpRequest()


def test_what_is_not_there_is_listed() -> None:
    found = reach("{loadBalancer: true, ingress: true, ipv6: true, multusInterface: true}")
    assert set(found.unresolved) == {
        "IPv6 address of agent node-1",
        "IPv6 address of agent node-2",
        "IPv6 address of agent node-3",
        "IPv6 address of node node-1",
        "IPv6 address of node node-2",
        "IPv6 address of node node-3",
        "IPv6 load-balancer address of the agents' Service",
        "further interface of agent node-3",
    }


def test_an_empty_book_leaves_every_service_unresolved() -> None:
    found = resolve(one(net_reach(target="{ingress: true}")), members=MEMBERS, book=AddressBook())
    assert found.targets == ()
    assert found.unresolved == (
        "IPv4 cluster-ip address of the agents' Service",
        "IPv4 node port of the agents' Service",
        "address of the agents' Ingress",
    )


def test_further_interfaces_are_targets_of_the_agent_they_belong_to() -> None:
    found = reach("{endpoint: false, clusterIP: false, nodePort: false, multusInterface: true}")
    assert found.mesh is None
    assert [(t.agent, t.address, t.dst) for t in found.targets] == [
        ("node-1", "172.16.0.1", "node-1/net1"),
        ("node-2", "172.16.0.2", "node-2/net1"),
    ]


def test_a_node_port_is_asked_on_each_agents_own_node() -> None:
    round_ = build(net_reach(target="{endpoint: false, clusterIP: false}"))
    (stream,) = share.share(round_=round_, members=MEMBERS, agent="node-2")
    assert (stream.target.address, stream.target.name) == ("192.0.2.2", "AgentNodePortV4IP_192.0.2.2_30080")


def test_a_url_becomes_address_path_and_host_header() -> None:
    found = http('{host: "https://nginx.ns1:8443/a b?q=ü", method: POST}'.replace("a b", "a%20b"))
    (target,) = found.targets
    assert (target.name, target.dst) == ("HttpAppHealthy target", "nginx.ns1:8443")
    assert (target.proto, target.address, target.port) == (Proto.https, "nginx.ns1", 8443)
    request = found.http
    assert request is not None
    assert (request.method, request.host_header, request.server_name) == ("POST", "nginx.ns1:8443", "nginx.ns1")
    assert request.url_path == "/a%20b?q=%C3%BC"
    assert (request.tls, request.verify) == (True, False)


def test_header_values_keep_their_colons() -> None:
    found = http('{host: web, method: GET, header: ["Authorization: Basic a:b", "X-Empty:"]}')
    assert found.http is not None
    assert found.http.headers == ("Authorization: Basic a:b", "X-Empty: ")


def test_a_body_is_the_config_map_as_one_object_with_sorted_keys() -> None:
    found = http("{host: web, method: POST, bodyConfigmapName: payload, bodyConfigmapNamespace: web}")
    assert found.http is not None
    assert found.http.body == '{"a":"1","b":"2"}'


def test_a_secret_is_a_set_of_paths_and_switches_verification_on() -> None:
    found = http('{host: "https://web", method: GET, tlsSecretName: client, tlsSecretNamespace: web, http2: true}')
    assert found.http is not None
    assert (found.http.verify, found.http.ca_file, found.http.key_file) == (True, "/tls/ca.crt", "/tls/tls.key")
    assert found.http.http2


def test_a_missing_secret_and_a_missing_body_are_listed() -> None:
    found = http(
        '{host: "https://web", method: POST, tlsSecretName: cert, tlsSecretNamespace: web2, '
        "bodyConfigmapName: a, bodyConfigmapNamespace: b}"
    )
    assert found.unresolved == ("ConfigMap b/a", "Secret web2/cert")


def test_http2_is_for_tls_only() -> None:
    found = http("{host: web, method: GET, http2: true}")
    assert found.http is not None
    assert not found.http.http2


@pytest.mark.parametrize("asked", [True, False])
def test_connections_are_kept_unless_the_task_wants_new_ones(asked: bool) -> None:
    request = http(f'{{host: "https://web", method: GET, http2: true, newConnection: {str(asked).lower()}}}').http
    assert request is not None
    assert (request.new_connection, request.http2) == (asked, True)
    left_out = http("{host: web, method: GET}").http
    assert left_out is not None
    assert not left_out.new_connection


def test_an_ipv6_url_keeps_its_brackets_where_they_belong() -> None:
    (target,) = http('{host: "http://[2001:db8::1]:8080/", method: GET}').targets
    assert (target.address, target.family, target.dst) == ("2001:db8::1", 6, "[2001:db8::1]:8080")


def test_dns_by_user_service_and_cluster() -> None:
    user = dns("{target: {targetUser: {server: 10.0.0.9, port: 5353}}, request: {domain: a.example}}")
    assert [t.name for t in user.targets] == ["typeA_10.0.0.9:5353_a.example"]
    named = dns("{target: {targetDns: {serviceName: coredns, serviceNamespace: kube-system}}}")
    assert [(t.address, t.port) for t in named.targets] == [("10.96.0.11", 53)]
    cluster = dns("{}")
    assert [t.address for t in cluster.targets] == ["10.96.0.10"]
    both = dns("{target: {targetDns: {testIPv6: true}}}")
    assert [(t.address, t.family) for t in both.targets] == [("10.96.0.10", 4), ("fd00::a", 6)]
    assert [(t.name.split("_")[0], t.record_type) for t in both.targets] == [("typeA", "A"), ("typeAAAA", "AAAA")]


def test_ipv6_servers_are_asked_for_aaaa() -> None:
    found = dns("{target: {targetDns: {testIPv4: false, testIPv6: true}}, request: {protocol: tcp}}")
    assert found.dns is not None
    assert (found.targets[0].record_type, found.dns.protocol) == ("AAAA", "tcp")
    assert found.targets[0].name.startswith("typeAAAA_[fd00::a]:53_")


def test_a_race_asks_each_server_twice_at_once() -> None:
    found = dns("{target: {targetDns: {testIPv6: true}}, request: {race: true}}")
    assert [(t.address, t.record_type, t.together) for t in found.targets] == [
        ("10.96.0.10", "A", False),
        ("10.96.0.10", "AAAA", True),
        ("fd00::a", "A", False),
        ("fd00::a", "AAAA", True),
    ]
    assert found.dns is not None
    assert found.dns.race


def test_what_a_task_says_of_attempts_and_rcodes_reaches_the_round() -> None:
    text = "apiVersion: kdoctor.io/v1beta1\nkind: Netdns\nmetadata: {name: a}\nspec: "
    round_ = build(text + "{request: {attempts: 3, tcpFallback: true}, expect: {rcode: NXDOMAIN}}")
    assert round_.dns is not None
    assert (round_.dns.attempts, round_.dns.tcp_fallback, round_.expect.rcode) == (3, True, 3)
    plain = build(text + "{}")
    assert plain.dns is not None
    # As kdoctor has it: one attempt, and whatever rcode comes in time.
    assert (plain.dns.attempts, plain.dns.tcp_fallback, plain.dns.race, plain.expect.rcode) == (1, False, False, None)


@pytest.mark.parametrize(
    "request_",
    [
        "race: true, protocol: tcp",
        "race: true, attempts: 2",
        "attempts: 2, protocol: tcp",
        "attempts: 6",
        "attempts: 0",
    ],
)
def test_options_of_dns_that_do_not_fit_together_are_refused(request_: str) -> None:
    with pytest.raises(TaskFileErrors, match=r"attempts|race"):
        dns(f"{{request: {{{request_}}}}}")


def test_a_dns_service_that_does_not_exist_is_listed() -> None:
    found = dns("{target: {targetDns: {serviceName: gone, serviceNamespace: x, testIPv6: true}}}")
    assert found.targets == ()
    assert found.unresolved == ("IPv4 address of Service x/gone", "IPv6 address of Service x/gone")


def build(text: str) -> RoundScheduled:
    task = one(text)
    epoch = Epoch(group="default", number=4, digest=digest(MEMBERS), at_us=START, members=MEMBERS)
    return build_round(task=task, number=2, start_us=START, timing=timing(task), epoch=epoch, book=BOOK, cluster="test")


def test_planned_is_what_the_shares_add_up_to() -> None:
    round_ = build(net_reach(target="{loadBalancer: true}"))
    shares = [share.share(round_=round_, members=MEMBERS, agent=m.agent) for m in MEMBERS]
    assert round_.planned == sum(stream.requests for streams in shares for stream in streams)
    assert round_.planned == 3 * (2 + 3) * 50


def test_a_patrol_spreads_its_requests_over_its_interval() -> None:
    round_ = build(
        "apiVersion: kpatrol.io/v1beta1\nkind: NetPatrol\nmetadata: {name: a}\n"
        "spec: {protocols: [udp], degree: 1, intervalSecond: 10, requestsPerRound: 7}"
    )
    assert share.requests_due(rate=round_.rate, duration_s=round_.duration_s) == 7
    assert round_.duration_s < 10
    assert round_.mesh is not None
    assert round_.mesh.degree == 1
    assert round_.expect.success_rate == 0.99


def test_sizes_are_of_datagrams_and_everything_a_patrol_says_reaches_the_round() -> None:
    round_ = build(
        "apiVersion: kpatrol.io/v1beta1\nkind: NetPatrol\nmetadata: {name: a}\n"
        "spec: {protocols: [icmp, http], packetSizesInByte: [0, 900], fullSizePacket: true, sourcePorts: 7, dscp: 46}"
    )
    assert round_.mesh is not None
    assert (round_.mesh.sizes, round_.mesh.source_ports, round_.mesh.dscp) == ((0, 900, FULL_SIZE), 7, 46)
    streams = share.share(round_=round_, members=MEMBERS, agent=MEMBERS[0].agent)
    sizes = [(s.target.proto, s.target.size) for s in streams if s.target.agent == MEMBERS[1].agent]
    assert sizes == [(Proto.icmp, 0), (Proto.icmp, 900), (Proto.icmp, FULL_SIZE), (Proto.http, 0)]
    assert round_.planned == len(MEMBERS) * len(streams) * streams[0].requests


def test_the_round_names_its_membership_and_its_deadline() -> None:
    round_ = build(net_reach(target=ENDPOINT_ONLY))
    assert (round_.members.epoch, round_.members.count, round_.members.digest) == (4, 3, digest(MEMBERS))
    assert round_.deadline_us == START + 60_000_000
    assert (round_.task, round_.kind, round_.cluster) == ("netreach/reach", "NetReach", "test")


def test_a_canary_is_between_two_nodes_and_stays_there_when_others_come_and_go() -> None:
    text = (
        "apiVersion: kpatrol.io/v1beta1\nkind: NetPatrol\nmetadata: {name: a}\n"
        "spec: {protocols: [udp], requestsPerRound: 100, canaryLossRate: 0.2}"
    )
    members = tuple(Member(slot=i, agent=f"a{i}", node=f"n{i // 2}", ipv4=f"10.0.0.{i}", udp_port=9) for i in range(8))
    canary = canary_of(uid="u", share=0.2, members=members)
    assert canary is not None
    assert canary.src_node != canary.dst_node
    ends = {canary.src, canary.dst}
    for left in members:
        rest = tuple(m for m in members if m != left)
        assert (canary_of(uid="u", share=0.2, members=rest) == canary) == (left.agent not in ends)
    assert canary_of(uid="u", share=0.2, members=members[:2]) is None
    assert canary_of(uid="u", share=0.0, members=members) is None
    alone = build(text)
    assert (alone.canary, alone.unresolved, alone.expect.success_rate) == (None, ("two nodes for the canary",), 0.0)
