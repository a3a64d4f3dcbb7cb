"""The report's document: field by field against the lists of kdoctor's shapes, today's and the older ones'."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controller.report_api.document import document
from controller.report_api.material import Material, booked_qps
from controller.report_api.openapi import definitions, fields, v2, v3
from tests.unit.controller.report_world import SPECS, START_US, history, line, live, material, verdict
from topics.round_verdicts import AgentAccount


def listed() -> dict[str, list[str]]:
    """report_fields.txt: section → paths."""
    sections: dict[str, list[str]] = {}
    for text in Path(__file__).with_name("report_fields.txt").read_text().splitlines():
        if text.startswith("[") and text.endswith("]"):
            sections[text.strip("[]")] = []
        elif text and not text.startswith("#"):
            list(sections.values())[-1].append(text)
    return sections


def below(prefix: str, names: list[str]) -> list[str]:
    return [f"{prefix}.{name}" for name in names]


def expected(kind: str) -> list[str]:
    task, older, spec = {
        "NetReach": ("taskNetReach", "NetReachTask", "netReach"),
        "AppHttpHealthy": ("taskAppHealthy", "HttpAppHealthyTask", "appHttpHealthy"),
        "Netdns": ("taskNetDns", "netDNSTask", "netDns"),
    }[kind]
    own = "dns" if kind == "Netdns" else "http"
    of = listed()
    agent, older_agent = f"report.latestRoundReport[].{task}", f"spec.Report[].{older}"
    detail, older_detail = f"{agent}.roundTaskDetail[]", f"{older_agent}.{'detail' if own == 'dns' else 'Detail'}[]"
    older_task = [name[0].lower() + name[1:] if own == "dns" else name for name in of["older_task"]]
    return [
        *of["today"],
        f"task.spec.{spec}",
        *below(agent, of["task"]),
        *below(detail, of["detail"] + of[f"{own}_detail"]),
        *below(f"{detail}.requestTargetMetrics", of["metrics"] + of[f"{own}_metrics"]),
        f"{detail}.{'failureReason' if kind == 'NetReach' else 'reasonsForFailure'}",
        *below("spec", of["older"]),
        f"{older_agent}Spec",
        *below(older_agent, older_task),
        *below(older_detail, of["older_detail"] + of[f"older_{own}"]),
        *below(f"{older_detail}.Metrics", of["older_metrics"] + of[f"older_{own}_metrics"]),
    ]


def paths(value: Any, at: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield f"{at}.{name}".lstrip(".")
            yield from paths(item, f"{at}.{name}".lstrip("."))
    elif isinstance(value, list):
        for item in value:
            yield from paths(item, f"{at}[]")


@pytest.mark.parametrize("kind", sorted(SPECS))
def test_every_field_of_kdoctor_is_served(kind: str) -> None:
    served = set(paths(document(material(kind))))
    assert [path for path in expected(kind) if path not in served] == []
    assert len(expected(kind)) > 80


def described(value: Any, definition: str, at: str) -> Iterator[str]:
    """Fields of a document that `kubectl explain` does not know, or whose type is another."""
    for name, item in value.items():
        kind = fields()[definition]["fields"].get(name, (None,))[0]
        path = f"{at}.{name}"
        if kind is None:
            yield f"{path}: not described"
            continue
        listed, inner = kind.startswith("["), kind.strip("[]")
        if listed != isinstance(item, list) and item is not None:
            yield f"{path}: {kind}, served as {type(item).__name__}"
        for part in item if isinstance(item, list) else [item]:
            if inner in fields() and part is not None:
                yield from described(part, inner, path)
            elif part is not None and not isinstance(part, _TYPES.get(inner, dict)):
                yield f"{path}: {inner}, served as {type(part).__name__}"


_TYPES: dict[str, Any] = {
    **{"string": str, "time": str, "boolean": bool, "integer": int, "number": (int, float)},
}


@pytest.mark.parametrize("kind", sorted(SPECS))
def test_explain_knows_every_field_that_is_served(kind: str) -> None:
    assert list(described(document(material(kind)), "KdoctorReport", "")) == []


def test_explain_knows_no_field_that_is_never_served() -> None:
    served: set[str] = set()
    for kind in SPECS:
        served |= {path.rpartition(".")[2].removesuffix("[]") for path in paths(document(material(kind)))}
    served |= {path.rpartition(".")[2] for path in paths(document(_patrol()))}
    served |= {path.rpartition(".")[2] for path in paths(document(replace(material(), lines=())))}
    known = {name for definition in fields().values() for name in definition["fields"]}
    assert known - served == {"items"}


def _patrol() -> Material:
    spec = {"intervalInSecond": 10, "thresholds": {"lossRate": 0.0}}
    told = msgspec.structs.replace(verdict("NetReach"), kind="NetPatrol", task="netpatrol/mesh", spec=spec)
    return replace(
        material(),
        history=replace(history("NetReach"), task="netpatrol/mesh", kind="NetPatrol"),
        live=None,
        verdict=told,
        lines=[line(protocol="udp", size=1400)],
    )


def test_the_schemas_refer_to_nothing_that_is_missing() -> None:
    for text, known in ((json.dumps(v2()), v2()["definitions"]), (json.dumps(v3()), v3()["components"]["schemas"])):
        named = {part.split('"')[0] for part in text.split('$ref": "')[1:]}
        assert {name.rpartition("/")[2] for name in named} <= set(known)
    assert definitions("#/")["io.kdoctor.system.v1beta1.KdoctorReport"]["x-kubernetes-group-version-kind"]


def test_figures_are_those_of_the_requests() -> None:
    report = document(material())
    first = report["report"]["latestRoundReport"][0]
    assert (first["nodeName"], first["podName"], first["roundResult"]) == ("worker-2", "kpatrol-agent-y2", "fail")
    assert first["roundDuration"] == "10.049239s"
    assert first["taskNetReach"]["systemResource"] == {
        **{"maxCPU": "12.000%", "meanCPU": "5.269%", "maxMemory": "101.00MB"},
    }
    # 10/s for pod IPs, ClusterIP, NodePort and Ingress, by IPv4.
    assert first["taskNetReach"]["runningLoadTotal"] == {"appHttpHealthyQPS": 0, "netReachQPS": 40, "netDnsQPS": 0}
    detail = first["taskNetReach"]["roundTaskDetail"][0]
    assert detail["url"] == "http://10.96.0.9:80"
    assert (detail["requestSucceed"], detail["requestSucceedRate"], detail["requestMeanDelay"]) == (
        False,
        0.97,
        50.294117,
    )
    assert detail["failureReason"] == "97 of 100 requests succeeded, 1 of them asked: timeout ×2, refused ×1"
    metrics = detail["requestTargetMetrics"]
    assert metrics["statusCodes"] == {"200": 97, "0": 3}
    assert metrics["tps"] == pytest.approx(100 / 9.984307)
    assert metrics["latencies"]["p95InMs"] == 80.0
    assert metrics["totalDataSize"] == "39295 byte"
    assert report["overview"]["worstTargets"][0]["target"] == "AgentClusterV4IP_10.96.0.9:80"
    assert report["metadata"]["creationTimestamp"] == "2026-09-21T14:13:15Z"
    assert report["status"] == {
        **{"totalRoundNumber": 3, "roundFinishedNumber": 2, "status": "NotFinished", "roundNumber": 2},
    }


def test_dns_replies_are_told_by_name_and_requests_without_one_are_no_reply() -> None:
    report = document(material("Netdns"))
    detail = report["report"]["latestRoundReport"][0]["taskNetDns"]["roundTaskDetail"][0]
    assert detail["requestTargetMetrics"]["replyCode"] == {"NOERROR": 95, "NXDOMAIN": 2}
    assert detail["requestTargetMetrics"]["failedCounts"] == 3
    assert detail["requestTargetMetrics"]["domain"] == "kubernetes.default.svc.cluster.local."
    assert detail["requestServer"] == "10.96.0.10:53"


def test_an_application_is_named_by_the_url_of_its_task() -> None:
    part = document(material("AppHttpHealthy"))["report"]["latestRoundReport"][0]["taskAppHealthy"]
    assert part["targetType"] == "HttpAppHealthy"
    assert (part["roundTaskDetail"][0]["url"], part["roundTaskDetail"][0]["method"]) == (
        *("https://www.example.com/a?b=c", "POST"),
    )


def test_the_report_of_a_task_that_is_gone_is_complete() -> None:
    there, gone = document(material()), document(replace(material(), live=None))
    assert gone["report"] == there["report"]
    assert gone["task"] == there["task"]
    assert gone["status"] == {**there["status"], "status": "Finished"}


def test_a_task_of_which_no_round_is_over_has_an_empty_report() -> None:
    begun = Material(name="n", history=None, live=live("NetReach"))
    report = document(begun)
    assert report["report"] == {}
    assert report["status"]["roundNumber"] == 0
    assert report["spec"]["Report"] == []


def test_an_agent_that_said_nothing_is_told_with_the_cause() -> None:
    silent = AgentAccount(
        agent="agent-c", node="worker-3", planned=200, stored=0, unsent=0, declared_missing=200, unexplained=0,
        cause="agent died", state="gone",
    )  # fmt: skip
    told = verdict("NetReach", not_reported_nodes=("worker-3",))
    told = msgspec.structs.replace(told, accounts=(*told.accounts, silent))
    parts = document(material(verdict=told))["report"]["latestRoundReport"]
    third = next(part for part in parts if part["nodeName"] == "worker-3")
    assert (third["roundResult"], third["reasonsForFailure"]) == ("fail", "the agent did not report: agent died")


def test_targets_without_a_reply_give_numbers_that_json_can_hold() -> None:
    dead = line(
        ok=0, statuses={0: 100}, errors={"timeout": 100}, mean_us=float("nan"), quantiles_us=(float("nan"),) * 4
    )
    report = document(replace(material(), lines=[dead]))
    assert json.loads(json.dumps(report, allow_nan=False))["overview"]["worstTargets"][0]["succeedRate"] == 0


def test_booked_load_counts_ways_and_families() -> None:
    target = {"ipv4": True, "ipv6": True, "endpoint": True, "clusterIP": True, "ingress": True}
    assert booked_qps(kind="NetReach", spec={"request": {"qps": 5}, "target": target}) == 25
    assert booked_qps(kind="Netdns", spec={"request": {"qps": 7}}) == 7


def test_times_are_of_the_requests() -> None:
    assert START_US == 1_790_000_000_000_000
    metrics = document(material())["report"]["latestRoundReport"][0]["taskNetReach"]["roundTaskDetail"][0]
    assert metrics["requestTargetMetrics"]["requestStartTime"] == "2026-09-21T14:13:20Z"
    assert metrics["requestTargetMetrics"]["requestDuration"] == "9.984307s"
