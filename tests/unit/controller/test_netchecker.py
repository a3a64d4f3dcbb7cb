# ruff: noqa: E501 - records as tables
"""netchecker's API: who reports, who does not and why, its JSON, its metrics, posts."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from controller.health import Pulse, pages
from controller.members import Heard
from controller.metrics import Metrics
from controller.netchecker_api import payload
from controller.netchecker_api.app import Agents
from controller.netchecker_api.errors import Counts
from controller.netchecker_api.exposition import AgentMetrics
from controller.netchecker_api.facts import AgentPod, NodeState
from controller.netchecker_api.payload import BadReport, read_report
from controller.netchecker_api.presence import Check, check
from topics.agent_reports import AgentReport, TimedUrl

NOW_US = 1_790_000_000_000_000
URL = "http://server:8081/api/v1/ping"


def heard(agent: str, *, ago_s: float = 1, **changes: Any) -> Heard:
    usual = {
        "agent": agent, "incarnation": 1, "node": f"n-{agent}", "at_us": NOW_US, "started_us": NOW_US, "interval_s": 5.0,
        "version": "1", "pod": f"pod-{agent}", "lookups": {"kubernetes.default": ("10.96.0.1",)}, "uptime_s": 77,
        "interfaces": {"eth0": ("10.0.0.1/24", "fe80::1/64")},
        "timed_urls": (TimedUrl(url=URL, connected=True, status=200, total_us=12_345, tcp_us=1_900, dns_us=3_000),),
    }  # fmt: skip
    return Heard(report=AgentReport(**{**usual, **changes}), at_us=NOW_US - round(ago_s * 1e6))


def checked(*items: Heard, pods: list[AgentPod] | None = None, nodes: dict[str, NodeState] | None = None,
            members: dict[str, str] | None = None) -> Check:  # fmt: skip
    by_agent = {item.report.agent: item for item in items}
    return check(heard=by_agent, members=members or {}, pods=pods or [], nodes=nodes or {}, now_us=NOW_US)


def test_all_is_well_in_netcheckers_words() -> None:
    found = checked(heard("a"), heard("b", ago_s=10))
    assert found.ok
    said = payload.answer(found)
    assert (said["Message"], said["Absent"], said["Outdated"]) == (
        *("all 2 agents have reported to the server", None, None),
    )


def test_absent_and_outdated_are_told_apart_with_reasons() -> None:
    silent = heard("b", ago_s=11, lookups={"kubernetes.default": ()})
    found = checked(heard("a"), silent, members={"a": "n-a", "c": "n-c"})
    said = payload.answer(found)
    assert (said["Absent"], said["Outdated"]) == (["c"], ["pod-b"])
    reasons = {item["Name"]: item["Reason"] for item in said["Details"]}
    assert "never reported" in reasons["c"]
    assert reasons["pod-b"] == (
        "last report 11 s ago, due every 5 s; before that: DNS on n-b has no answer for kubernetes.default"
    )
    assert not found.ok


def test_trouble_of_nodes_is_shown_apart_and_fails_nothing() -> None:
    pods = [AgentPod(name="pod-a", node="n1"), AgentPod(name="pod-b", node="n2"), AgentPod(name="pod-c", node="n3")]
    nodes = {"n1": NodeState(), "n2": NodeState(ready=False), "n3": NodeState(cordoned=True)}
    found = checked(heard("a"), heard("b", ago_s=60), pods=pods, nodes=nodes)
    assert found.ok
    trouble = payload.answer(found)["NodeTrouble"]
    assert [(item["Name"], item["Reason"]) for item in trouble] == [
        ("pod-b", "the node is NotReady; last report 60 s ago"),
        ("pod-c", "the node is cordoned; the agent never reported"),
    ]


def test_an_agent_on_a_cordoned_node_that_reports_is_present() -> None:
    pods = [AgentPod(name="pod-a", node="n1")]
    assert checked(heard("a"), pods=pods, nodes={"n1": NodeState(cordoned=True)}).of("present")


def test_young_pods_get_time_and_pods_that_do_not_run_say_why() -> None:
    young = AgentPod(name="young", node="n1", since_us=NOW_US - 10_000_000)
    stuck = AgentPod(name="stuck", node="n2", since_us=NOW_US - 90_000_000, trouble="ImagePullBackOff")
    found = checked(pods=[young, stuck])
    assert [agent.name for agent in found.of("starting")] == ["young"]
    assert found.of("absent")[0].reason == "never reported: ImagePullBackOff"


def test_nobody_at_all_is_no_success() -> None:
    found = checked()
    assert not found.ok
    assert "nothing can be said" in found.message()


def test_who_left_in_order_is_not_missed() -> None:
    found = checked(heard("a"), heard("b", ago_s=60, leaving=True))
    assert found.ok
    assert [agent.name for agent in found.of("left")] == ["pod-b"]


def test_the_record_has_netcheckers_keys() -> None:
    record = payload.agent(heard("a"))
    assert set(record) == {
        *("report_interval", "nodename", "podname", "hostdate", "uptime", "last_updated", "nslookup"),
        *("network_probes", "ips"),
    }
    assert record["ips"] == {"eth0": ["10.0.0.1/24", "fe80::1/64"]}
    assert record["network_probes"] == [
        {"URL": URL, "ConnectionResult": 1, "HTTPCode": 200, "Total": 12, "ContentTransfer": 0, "TCPConnection": 1,
         "DNSLookup": 3, "Connect": 0, "ServerProcessing": 0}
    ]  # fmt: skip


def test_errors_follow_from_the_time_alone() -> None:
    counts = Counts()
    report = heard("a").report
    counts.heard(report, at_us=0)
    second = 1_000_000
    # 5 s interval: the first error when two intervals have passed, one for every further one.
    at = {7: 0, 10: 1, 14: 1, 15: 2, 60: 11}
    assert {seconds: counts.errors(seconds * second)["n-a-private_network"] for seconds in at} == at
    counts.heard(report, at_us=20 * second)
    assert counts.errors(21 * second) == {"n-a-private_network": 3}
    assert counts.reports() == {"n-a-private_network": 2}


POSTED = {
    "report_interval": 60, "nodename": "node-9", "podname": "netchecker-agent-hostnet-x", "hostdate": "2018-01-02T00:00:00Z",
    "uptime": 1234, "nslookup": {"netchecker-service": None}, "ips": {"eth0": ["10.9.9.9/24"]},
    "network_probes": [{"URL": URL, "ConnectionResult": 1, "HTTPCode": 200, "Total": 9223372036854, "TCPConnection": 2}],
    "zero_extender": [0] * 1500,
}  # fmt: skip


def test_a_report_of_netcheckers_own_agent_is_read() -> None:
    report = read_report(json.dumps(POSTED).encode(), name="netchecker-agent-hostnet-x", now_us=NOW_US)
    assert (report.group, report.flavour, report.interval_s, report.uptime_s) == ("netchecker", "host", 60.0, 1234)
    assert report.lookups == {"netchecker-service": ()}
    # The constant that every shipped agent gives for times it did not measure.
    assert report.timed_urls[0].total_us == 0
    assert report.timed_urls[0].tcp_us == 2000


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "body: not JSON"),
        (b"[]", "body: found list, expected an object"),
        (b"{}", "report_interval: found None, allowed: a number from 1 to 86400"),
        (b'{"report_interval": 0}', "report_interval: found 0"),
        (b'{"report_interval": 9, "nodename": 7}', "nodename: found int"),
        (b'{"report_interval": 9, "ips": [1]}', "ips: expected an object of lists"),
        (b'{"report_interval": 9, "network_probes": [1]}', "network_probes: found int, expected objects"),
    ],
)
def test_a_bad_report_is_refused_by_its_key(body: bytes, words: str) -> None:
    with pytest.raises(BadReport) as said:
        read_report(body, name="x", now_us=NOW_US)
    assert words in str(said.value)


class Port:
    """What shares the port in these tests."""

    missing = ""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents
        self._metrics = Metrics()
        self._metrics.add(
            AgentMetrics(heard=agents.heard, counts=agents.counts, check=agents.check, now_us=agents.now_us)
        )

    def application(self) -> Any:
        from aiohttp import web

        app = web.Application()
        self._agents.add_routes(app)
        return app

    def metrics_text(self) -> str:
        return self._metrics.text()


def served(agents: Agents, *asks: Callable[[TestClient], Awaitable[ClientResponse]]) -> list[tuple[int, str]]:  # type: ignore[type-arg]
    async def scene() -> list[tuple[int, str]]:
        async with TestClient(TestServer(pages(Pulse(), Port(agents)))) as client:
            answers = [await ask(client) for ask in asks]
            return [(answer.status, await answer.text()) for answer in answers]

    return asyncio.run(scene())


def agents(*items: Heard, **changes: Any) -> Agents:
    by_agent = {item.report.agent: item for item in items}
    made = Agents(heard=lambda: by_agent, members=dict, now_us=lambda: NOW_US, **changes)
    for item in items:
        made.counts.heard(item.report, at_us=item.at_us)
    return made


def test_the_routes_answer_as_netcheckers_do() -> None:
    late = heard("b", ago_s=60)
    ping, every, one, none, good, redirect = served(
        agents(heard("a")),
        lambda c: c.get("/api/v1/ping"),
        lambda c: c.get("/api/v1/agents/"),
        lambda c: c.get("/api/v1/agents/pod-a"),
        lambda c: c.get("/api/v1/agents/nobody"),
        lambda c: c.get("/api/v1/connectivity_check"),
        lambda c: c.get("/api/v1/agents", allow_redirects=False),
    )
    assert ping == (200, "")
    assert list(json.loads(every[1])) == ["pod-a"]
    assert json.loads(one[1])["podname"] == "pod-a"
    assert (none[0], good[0], redirect[0]) == (404, 200, 301)
    bad = served(agents(heard("a"), late), lambda c: c.get("/api/v1/connectivity_check"))[0]
    assert (bad[0], json.loads(bad[1])["Outdated"]) == (400, ["pod-b"])


def test_posts_are_refused_unless_switched_on_and_never_stand_for_an_agent_of_ours() -> None:
    taken: list[AgentReport] = []

    async def post(report: AgentReport) -> bool:
        taken.append(report)
        return True

    body = json.dumps(POSTED)
    off = served(agents(heard("a")), lambda c: c.post("/api/v1/agents/x", data=body))[0]
    assert (off[0], "KPATROL_NETCHECKER_POST" in off[1]) == (405, True)
    on = served(
        agents(heard("a"), post=post),
        lambda c: c.post("/api/v1/agents/netchecker-agent-hostnet-x", data=body),
        lambda c: c.post("/api/v1/agents/pod-a", data=body),
        lambda c: c.post("/api/v1/agents/x", data="nonsense"),
    )
    assert [status for status, _ in on] == [200, 409, 400]
    assert [report.agent for report in taken] == ["netchecker-agent-hostnet-x"]


def test_metrics_bear_netcheckers_names() -> None:
    text = served(agents(heard("a"), heard("h", flavour="host", ago_s=60)), lambda c: c.get("/metrics"))[0][1]
    lines = text.splitlines()
    names = """connection_result code total_time_ms content_transfer_time_ms tcp_connection_time_ms dns_lookup_time_ms
    connect_time_ms server_processing_time_ms"""
    for name in names.split():
        assert any(
            line.startswith(f'ncagent_http_probe_{name}{{agent="n-a-private_network",url="{URL}"}}') for line in lines
        )
    assert 'ncagent_report_count_total{agent="n-a-private_network"} 1.0' in lines
    assert 'ncagent_error_count_total{agent="n-h-host_network"} 11.0' in lines
    # Who is silent shows no old probes as if they were of now.
    assert not any("http_probe" in line and "n-h-host" in line for line in lines)
    assert "ncagent_connectivity_check_result 0.0" in lines
    assert 'ncagent_dns_lookup_result{agent="n-a-private_network",name="kubernetes.default"} 1.0' in lines
    assert "kpatrol_controller_ready 0" in lines
